import pytest

from telecine_components.stages.executors import executor_of
from telecine_components.stages.pool import Pool
from telecine_components.stages.ray_stream import RayStream


def test_a_process_of_a_ray_cluster_hands_items_to_it_and_any_other_to_its_own_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert executor_of(num_workers=2, stall_s=5.0) == Pool(num_workers=2, stall_s=5.0)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert executor_of(num_workers=2, stall_s=5.0) == RayStream(stall_s=5.0)
