"""Which checkpoints stay: the newest ones, the best ones, and one every so many steps."""

import dataclasses
from collections.abc import Iterable, Mapping

from telecine.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keep:
    """What to keep; a checkpoint stays if any of these wants it.

    Attributes:
        last: the newest ones, at least 1: what a run goes on from.
        interval: of the ``last`` one at least is at a multiple of this, and of those at none, which stops left behind,
            only the newest of all stays. So what a run can go back to does not depend on where it was stopped.
        best: those with the lowest scores, of the ones that have a score.
        every_steps: those whose step is a multiple of this; 0 for none.

    Raises:
        InputError: for a number out of range.
    """

    last: int = 2
    interval: int = 1
    best: int = 0
    every_steps: int = 0

    def __post_init__(self) -> None:
        for name, least in (("last", 1), ("interval", 1), ("best", 0), ("every_steps", 0)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"checkpoints to keep: {name} must be at least {least}, got {value}")

    def of(self, steps: Iterable[int], scores: Mapping[int, float]) -> set[int]:
        """The steps that stay, of those that are there.

        Args:
            scores: by step, lower is better; of two equal ones the later step is the better.
        """
        there = sorted(set(steps))
        ranked = sorted((step for step in there if step in scores), key=lambda step: (scores[step], -step))
        on_time = [step for step in there if step % self.interval == 0]
        num_late = len({*there[-1:]} - {*on_time})
        last = [*there[-1:], *on_time[-max(1, self.last - num_late) :]]
        regular = {step for step in there if self.every_steps and step % self.every_steps == 0}
        return {*last, *ranked[: self.best], *regular}
