"""Clusters are the same on every run, and a small one is found beside a large one."""

import numpy as np

from telecine_components.media.clusters import clusters


def test_a_small_cluster_is_found_beside_a_large_one_and_again() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat([0, 1], [4000, 40])
    vectors = rng.normal(size=(2, 16))[points] + rng.normal(0, 0.1, (len(points), 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    for seed in range(3):
        found = clusters(vectors, 2, seed=seed, num_threads=1)
        assert len(set(zip(points.tolist(), found.tolist(), strict=True))) == 2
        assert (clusters(vectors, 2, seed=seed, num_threads=1) == found).all()
    assert (clusters(vectors, 1, seed=0, num_threads=1) == 0).all()
