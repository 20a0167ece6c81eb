"""Which executor runs a batch: Ray where the process belongs to a Ray cluster, else processes of this machine."""

import os

from telecine.work.items import Executor
from telecine_components.stages.pool import Pool
from telecine_components.stages.ray_stream import RayStream


def executor_of(*, num_workers: int, stall_s: float) -> Executor:
    """The executor of the place.

    Args:
        num_workers: processes of this machine; a Ray cluster takes as many as it has room for.
        stall_s: silence after which a worker process counts as hung.
    """
    pool = Pool(num_workers=num_workers, stall_s=stall_s)
    return RayStream(stall_s=stall_s) if os.environ.get("RAY_ADDRESS") else pool
