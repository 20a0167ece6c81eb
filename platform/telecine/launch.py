"""What starts a component, wherever it runs: one argv and the variables that go with it.

The inputs travel in a variable: an argv shows in every process list, has a length, is searched for ``$(NAME)`` by
Kubernetes and goes through a shell in Ray.
"""

import dataclasses
import json
from typing import Any

from telecine.component import Component
from telecine.settings import Settings

INPUTS = "TELECINE_INPUTS"
SUBMITTED, PLACED = "TELECINE_SUBMITTED", "TELECINE_PLACED"
"""When a runner was asked for the work, and when it had a machine for it, in seconds since the epoch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """One task's call of a component whose work has not been done yet.

    Attributes:
        inputs: the component's checked ``Inputs``.
        run, task: whom the work is for; see :mod:`telecine.work.runs`.
        key: content key of the work; where code or artifacts differ from the caller's, the call is refused.
        attempt: the caller's count, from 1.
        settings: the caller's places.
    """

    component: Component
    inputs: Any
    run: str
    task: str
    key: str
    settings: Settings
    attempt: int = 1

    @property
    def prefix(self) -> str:
        """Folder of the work, relative to the store's root."""
        return f"work/{self.component.name}/{self.key}"

    def argv(self) -> list[str]:
        """The command line, the same on a laptop, in an image, a Job, a RayJob and a TrainJob."""
        name = self.component.name
        given = ["--inputs", f"env:{INPUTS}", "--run", self.run, "--task", self.task, "--key", self.key]
        return ["telecine", "run", name, *given]

    def variables(self) -> dict[str, str]:
        """What the call reads beside its argv; secrets are not among them."""
        places = dataclasses.replace(self.settings, runner="process").environment()
        inputs = json.dumps(dataclasses.asdict(self.inputs), sort_keys=True)
        return {**places, INPUTS: inputs, "TELECINE_TRY": str(self.attempt)}
