"""Every error of ours, and the exit code with which ``telecine run`` reports it.

    TelecineError            1   anything else
    ├── InputError          78   inputs or credentials are wrong: never retry
    ├── RetryLater          75   preempted, or a store or server is away: retry with back-off
    ├── HardwareFault       69   retry on another machine
    └── BadData              -   one item is unusable: recorded with its reason, never leaves a component

The numbers are those of sysexits(3): EX_CONFIG, EX_TEMPFAIL and EX_UNAVAILABLE.
"""


class TelecineError(Exception):
    """Base of the tree above; the message says what, which value, what was expected, what to do."""

    exit_code = 1


class InputError(TelecineError):
    """A value that a person gave cannot work; the same call will fail again."""

    exit_code = 78


class RetryLater(TelecineError):
    """The work is sound but cannot go on here and now; the same call continues where this one stopped."""

    exit_code = 75


class HardwareFault(TelecineError):
    """The machine is broken; the same call may succeed elsewhere."""

    exit_code = 69


class BadData(TelecineError):
    """One item of a batch cannot be used. ``ctx.items`` records ``reason`` and the batch goes on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
