"""What a pod learns of how long its work waited: from the claim of its job, and from whoever watched it."""

import time
from typing import Any

import pytest

from telecine.work import beginning, waits

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def test_a_pod_knows_when_its_job_was_claimed_and_when_it_was_seen_on_a_node(stage: Any) -> None:
    here = stage("Job")
    before = time.time()
    made = here.submit()
    claimed = time.time()
    watch = here.watch(made)
    here.pod(made, "Pending", node="")
    assert watch.step() is None
    unplaced = beginning.of_process(here.store, made.prefix, run="r", task=made.task, environment=POD)
    assert before <= unplaced.submitted <= claimed
    assert unplaced.placed is None
    here.pod(made, "Pending", node="n1")
    seen = time.time()
    assert watch.step() is None
    placed = beginning.of_process(here.store, made.prefix, run="r", task=made.task, environment=POD)
    assert placed.submitted == unplaced.submitted
    assert seen <= placed.placed <= time.time()
    here.start(made)
    assert watch.step() is None
    assert waits.read(here.store, "r", made.task).placed == placed.placed, "it runs where it was placed"


def test_a_pod_that_takes_another_ones_place_is_placed_anew(stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    watch = here.watch(made)
    found = []
    for node in ("n1", "", "n2"):
        pod = here.pod(made, "Pending", node=node)
        assert watch.step() is None
        found.append(waits.read(here.store, "r", made.task).placed)
        here.cluster.remove("Pod", pod)
    assert found[1] is None and found[0] < found[2]


@pytest.mark.parametrize("variables", [{}, POD | {"TELECINE_SUBMITTED": "5.0"}])
def test_what_a_runner_says_itself_is_not_looked_up(variables: dict[str, str], stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    found = beginning.of_process(here.store, made.prefix, run="r", task=made.task, environment=variables)
    assert found.submitted in (None, 5.0) and found.placed is None
