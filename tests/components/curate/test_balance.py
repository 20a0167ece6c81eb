"""Large clusters give up more than small ones, and nothing is given up unasked."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from telecine_components.curate.balance.quotas import chosen, quotas
from telecine_components.media import clips, embeddings

Run = Callable[..., Any]
Rows = Callable[[str], list[dict[str, Any]]]


def manifest(folder: Path, sizes: list[int], seed: int = 0, **columns: Any) -> Path:
    """Clips around as many points as there are sizes; their ids begin with the number of their point."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), 24))
    rows = []
    for point, size in enumerate(sizes):
        vectors = centres[point] + rng.normal(0, 0.1, (size, 24))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows += [{"clip_id": f"{point}-{i:05d}", "descriptor": v.tolist(), **columns} for i, v in enumerate(vectors)]
    order = np.random.default_rng(seed + 1).permutation(len(rows))
    clips.write(folder / "clips.parquet", [rows[place] for place in order])
    return folder / "clips.parquet"


def kept_by_point(rows: list[dict[str, Any]]) -> dict[int, int]:
    return dict(sorted(Counter(int(row["clip_id"][0]) for row in rows if row["reason"] is None).items()))


def test_quotas_go_with_the_square_root_of_the_size() -> None:
    # models_data.md 5, check 6: clusters of 100 and 10,000 go from 1:100 to 1:10.
    assert quotas(np.array([100, 10_000]), 1100, "sqrt").tolist() == [100, 1000]
    assert quotas(np.array([100, 10_000]), 110, "sqrt").tolist() == [10, 100]


@pytest.mark.parametrize("rule", ["sqrt", "cap", "none"])
@pytest.mark.parametrize("seed", range(5))
def test_quotas_add_up_and_ask_for_no_more_than_there_is(rule: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 300, 40)
    for total in (0, 1, 39, 1000, int(sizes.sum()), 10**6):
        kept = quotas(sizes, total, rule)
        assert kept.sum() == min(total, sizes.sum())
        assert (kept <= sizes).all()
        assert (kept >= 0).all()


def test_rules_differ_in_who_gives_up_clips() -> None:
    sizes = np.array([10, 90, 900])
    assert quotas(sizes, 300, "none").tolist() == [3, 27, 270]
    assert quotas(sizes, 300, "cap").tolist() == [10, 90, 200]
    assert quotas(sizes, 300, "sqrt").tolist() == [10, 70, 220]


def test_the_most_suitable_are_chosen_and_the_seed_decides_between_equals() -> None:
    rows = [{"clip_id": f"{place:04d}", "suitability": float(place % 4)} for place in range(40)]
    assert chosen(rows, 10, seed=0) == {row["clip_id"] for row in rows if row["suitability"] == 3}
    equals = [row | {"suitability": None} for row in rows]
    assert len(chosen(equals, 10, seed=0)) == 10
    assert chosen(equals, 10, seed=0) == chosen(equals[::-1], 10, seed=0)
    assert chosen(equals, 10, seed=0) != chosen(equals, 10, seed=1)


def test_a_small_cluster_keeps_its_clips_beside_a_large_one(run_component: Run, rows_of: Rows, tmp_path: Path) -> None:
    given = manifest(tmp_path, [40, 4000])
    outputs = run_component("curate.balance", clips_uri=given, num_clusters=2, max_clips=440)
    rows = rows_of(outputs.clips_uri)
    assert kept_by_point(rows) == {0: 40, 1: 400}
    assert {row["reason"] for row in rows} == {None, "over_quota"}
    assert len({(row["clip_id"][0], row["cluster"]) for row in rows}) == 2
    assert (outputs.num_clips, outputs.num_over_quota, outputs.num_clusters) == (440, 3600, 2)


def test_a_share_of_the_clips_is_what_it_is_on_paper(run_component: Run, tmp_path: Path) -> None:
    given = manifest(tmp_path, [100])
    kept = {
        ratio: run_component("curate.balance", clips_uri=given, keep_ratio=ratio).num_clips
        for ratio in (0.07, 0.55, 0.071)
    }
    assert kept == {0.07: 7, 0.55: 55, 0.071: 8}, "0.07 * 100 is 7.000000000000001 to a machine"


def test_nothing_is_left_out_unless_fewer_clips_are_asked_for(
    run_component: Run, rows_of: Rows, tmp_path: Path
) -> None:
    given = manifest(tmp_path, [5, 50])
    rows = rows_of(run_component("curate.balance", clips_uri=given).clips_uri)
    assert kept_by_point(rows) == {0: 5, 1: 50}
    assert all(row["cluster"] is not None and row["stages"][0]["name"] == "curate.balance" for row in rows)
    fewer = rows_of(run_component("curate.balance", clips_uri=given, keep_ratio=0.5).clips_uri)
    assert sum(row["reason"] is None for row in fewer) == 28


def test_rejected_clips_and_bad_files_have_no_cluster(run_component: Run, rows_of: Rows, tmp_path: Path) -> None:
    vector = [1.0, 0.0]
    rejected = {"clip_id": "a", "descriptor": vector, "reason": "too_dark"}
    given = [rejected, {"source": "b.mp4", "reason": "empty file"}, {"clip_id": "c", "descriptor": vector}]
    clips.write(tmp_path / "clips.parquet", given)
    rows = rows_of(run_component("curate.balance", clips_uri=tmp_path / "clips.parquet").clips_uri)
    assert [(row["reason"], row["cluster"]) for row in rows] == [("too_dark", None), ("empty file", None), (None, 0)]


def test_clusters_come_from_embeddings_where_they_are_given(run_component: Run, rows_of: Rows, tmp_path: Path) -> None:
    given = manifest(tmp_path, [30, 30])
    ids = sorted(row["clip_id"] for row in clips.read(given, owner="test"))
    halves = np.array([[1.0, 0.01 * place] if place % 2 else [0.01 * place, 1.0] for place in range(60)], np.float32)
    embeddings.write(tmp_path / "embeddings.parquet", ids, halves)
    inputs = {"clips_uri": given, "embeddings_uri": tmp_path / "embeddings.parquet", "num_clusters": 2}
    rows = rows_of(run_component("curate.balance", **inputs).clips_uri)
    found = {row["clip_id"]: row["cluster"] for row in rows}
    assert len({(place % 2, found[clip_id]) for place, clip_id in enumerate(ids)}) == 2
