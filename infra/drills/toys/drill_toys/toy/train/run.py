"""Make the items, do the steps, write the outputs.

A drill may name in the environment: TOY_MEET, a folder in which the process waits for TOY_MEMBERS processes;
TOY_STEP_S, seconds that each step takes; TOY_TRACE, a file that gets a line for each item and step really done.
"""

import hashlib
import os
import time
from pathlib import Path

from drill_toys.toy.train.spec import Inputs, Outputs
from telecine.config import Artifact
from telecine.context import Context, Source
from telecine.errors import RetryLater
from telecine.work.retention import Keep

MEET_TIMEOUT_S = 60.0


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """See :class:`Inputs`."""
    _meet()

    def process(source: Source, folder: Path) -> dict[str, str]:
        _trace(source.name)
        (folder / "part.bin").write_bytes(_content(source.name, inputs.file_bytes))
        return {"name": source.name}

    sources = [
        Source(f"item {index}", f"{inputs.seed}-{index}-{inputs.file_bytes}") for index in range(inputs.num_items)
    ]
    items = ctx.items(sources, process)
    latest = ctx.checkpoints.latest()
    state, done = ((latest.dir / "state.txt").read_text(), latest.step) if latest else (f"seed {inputs.seed}", 0)
    for step in range(done + 1, inputs.num_steps + 1):
        state = _step(inputs, ctx, step, state)
    parts = [hashlib.sha256((ctx.path(item.path) / "part.bin").read_bytes()).hexdigest() for item in items]
    (ctx.dir / "model").mkdir()
    (ctx.dir / "model" / "weights.bin").write_bytes(_content(state, inputs.file_bytes))
    (ctx.dir / "model" / "parts.txt").write_text("\n".join(parts))
    return Outputs(model_uri=Artifact("model"), state=state)


def _step(inputs: Inputs, ctx: Context, step: int, state: str) -> str:
    time.sleep(float(os.environ.get("TOY_STEP_S", "0")))
    state = hashlib.sha256(state.encode()).hexdigest()
    _trace(f"step {step}")

    def write(folder: Path) -> None:
        (folder / "state.txt").write_text(state)
        (folder / "weights.bin").write_bytes(_content(state, inputs.file_bytes))

    ctx.tracker.metrics({"train/loss": 1.0 / step}, step)
    ctx.progress(step, inputs.num_steps)
    if step % inputs.checkpoint_every_steps == 0 or ctx.stop_requested:
        ctx.checkpoints.save(step, write)
        ctx.checkpoints.prune(Keep(last=2))
    if ctx.stop_requested:
        raise RetryLater(f"stopped after step {step} of {inputs.num_steps}; the same call continues there")
    return state


def _content(name: str, size: int) -> bytes:
    block = hashlib.sha256(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def _meet() -> None:
    if folder := os.environ.get("TOY_MEET"):
        (Path(folder) / f"here-{os.getpid()}").touch()
        deadline = time.monotonic() + MEET_TIMEOUT_S
        while len(list(Path(folder).glob("here-*"))) < int(os.environ["TOY_MEMBERS"]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {MEET_TIMEOUT_S:.0f} s in {folder} for the other processes")
            time.sleep(0.005)


def _trace(line: str) -> None:
    if path := os.environ.get("TOY_TRACE"):
        with open(path, "a") as file:
            file.write(line + "\n")
