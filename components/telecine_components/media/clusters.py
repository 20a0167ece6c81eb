"""Groups of vectors that lie close: k-means, the same on every run."""

import faiss
import numpy as np
import numpy.typing as npt

NUM_ROUNDS = 20


def clusters(
    vectors: npt.NDArray[np.float32], num_clusters: int, *, seed: int, num_threads: int
) -> npt.NDArray[np.int64]:
    """The cluster of each vector [N, D] of length 1, by cosine; 0 throughout where there is one cluster.

    The result depends on the order of the vectors and on the number of threads (sums in another order), so both are
    for the caller to fix.
    """
    if num_clusters <= 1:
        return np.zeros(len(vectors), np.int64)
    faiss.omp_set_num_threads(num_threads)
    means = faiss.Kmeans(
        vectors.shape[1],
        num_clusters,
        niter=NUM_ROUNDS,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        # A start at points drawn by chance would find no small cluster beside a large one.
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
    )
    means.train(vectors)
    return np.asarray(means.index.search(vectors, 1)[1][:, 0], np.int64)
