"""A training for several processes: what they run has to be importable by each of them."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import install_import_hook
from safetensors.torch import save_file

install_import_hook("telecine_models", "beartype.beartype")

from telecine.errors import RetryLater  # noqa: E402
from telecine.storage import Store  # noqa: E402
from telecine.work.checkpoints import Checkpoints  # noqa: E402
from telecine.work.digests import Digests  # noqa: E402
from telecine_components.training.config import TrainingConfig  # noqa: E402
from telecine_components.training.determinism import deterministic  # noqa: E402
from telecine_components.training.engine import Engine  # noqa: E402
from telecine_components.training.ledger import Ledger  # noqa: E402
from telecine_components.training.loader import Batch, StepBatches  # noqa: E402
from telecine_components.training.loop import Hooks, NoCheckpoints, StepResult, train  # noqa: E402
from telecine_components.training.losses import FlowMatching  # noqa: E402
from telecine_components.training.randomness import generator  # noqa: E402
from telecine_components.training.ranks import Ranks, together  # noqa: E402
from telecine_components.training.text import CachedText  # noqa: E402
from telecine_models.text import HashTextEncoder  # noqa: E402
from telecine_models.video_dit.model import VideoDiT  # noqa: E402

NUM_SAMPLES = 6
TALL, WIDE = (3, 2, 8, 4), (3, 1, 4, 8)
CONFIG = TrainingConfig(
    num_steps=9, batch_size=NUM_SAMPLES, learning_rate=0.02, warmup_steps=2, weight_decay=0.1, checkpoint_every_steps=4
)


@dataclasses.dataclass(frozen=True)
class Task:
    """One attempt: ``folder`` is where its checkpoints lie, and ``name`` what its results are found by.

    ``slow_s`` is what rank 1 takes longer to read a step.
    """

    name: str
    folder: str
    config: TrainingConfig = CONFIG
    stop_after: int = 10**9
    num_experts: int = 0
    only_gradients: bool = False
    slow_s: float = 0.0


def model(num_experts: int = 0) -> VideoDiT:
    torch.manual_seed(0)
    built = VideoDiT(patch_size=(1, 4, 4), num_layers=2, num_heads=2, head_dim=16, text_dim=8, num_experts=num_experts)
    with torch.no_grad():
        for parameter in built.parameters():  # a fresh model's gates are zero, and nothing flows through its blocks
            parameter.add_(0.02 * torch.randn_like(parameter))
    return built


def steps(ranks: Ranks, number: int, sharing: int = 1) -> StepBatches:
    """A rank's samples of a step: one shape for some, another for the rest; every fourth step has only one sample.

    ``sharing`` ranks after each other have the same.
    """
    num_samples, num_groups = 1 if number % 4 == 2 else NUM_SAMPLES, ranks.size // sharing
    of_groups = [_batches(number * NUM_SAMPLES, num_samples, group, num_groups) for group in range(num_groups)]
    mine = of_groups[ranks.number // sharing]
    spares = [Batch(torch.zeros(1, *WIDE), [""], positions=(0,))] * (max(map(len, of_groups)) - len(mine))
    return StepBatches(mine, num_samples, 1.0, spares)


def _batches(first: int, num_samples: int, rank: int, num_ranks: int) -> list[Batch]:
    mine = range(first + rank, first + num_samples, num_ranks)
    tall = [position for position in mine if position % 3]
    wide = [position for position in mine if not position % 3]
    return [_batch(chosen, shape) for chosen, shape in ((tall, TALL), (wide, WIDE)) if chosen]


def _batch(positions: list[int], shape: tuple[int, ...]) -> Batch:
    videos = [torch.randn(shape, generator=generator(5, position)) for position in positions]
    return Batch(torch.stack(videos), ["a red square"] * len(videos), positions=tuple(positions))


def attempt(ranks: Ranks, task: Task) -> None:
    """Train as one of the ranks, until the end or a stop; rank 0 leaves its results in the task's folder."""
    torch.set_num_threads(1)
    seen: list[StepResult] = []
    ledger = Ledger()
    engine = Engine(model(task.num_experts), task.config, ranks)
    loss = FlowMatching(
        encode_text=CachedText(HashTextEncoder(text_dim=8, max_tokens=4)),
        caption_dropout_ratio=0.2,
        seed=3,
        num_strata=NUM_SAMPLES,
        has_experts=task.num_experts > 0,
    )
    if task.only_gradients:
        _save_gradients(engine, loss, task)
        return

    def read(number: int) -> StepBatches:
        time.sleep(task.slow_s * (ranks.number == 1))
        return steps(ranks, number, task.config.sequence_parallel)

    with deterministic(1):
        try:
            state = train(
                engine,
                steps=read,
                loss=loss,
                checkpoints=checkpoints_in(Path(task.folder)) if ranks.leads else NoCheckpoints(),
                hooks=Hooks(observe=seen.append, stop_requested=lambda: len(seen) >= task.stop_after - 1),
                ledger=ledger,
            )
        except RetryLater as error:
            told: dict[str, Any] = {"stopped": str(error)}
        else:
            files = engine.collect(state)
            with engine.averaged() as averaged:
                if ranks.leads:
                    save_file(averaged.state_dict(), Path(task.folder) / f"{task.name}.average")
                    save_file(files["weights.safetensors"], Path(task.folder) / f"{task.name}.weights")
            told = {"history": state.history, "again": _last_step_again(engine, read, loss, Path(task.folder))}
    if ranks.leads:
        told |= {"straggler_s": ledger.times().seconds["straggler"]}
        told |= {"losses": [each.loss for each in seen], "grad_norms": [each.grad_norm for each in seen]}
        (Path(task.folder) / f"{task.name}.json").write_text(json.dumps(told))


def _last_step_again(
    engine: Engine, read: Callable[[int], StepBatches], loss: FlowMatching, folder: Path
) -> float | None:
    """The loss of the last step but one's state on the data of the last, once the weights have gone past it."""
    number = engine.config.num_steps - 1
    found = checkpoints_in(folder).latest(lambda step: step == number) if engine.ranks.leads else None
    if not engine.ranks.told(found is not None):
        return None
    restored = engine.load(found.dir if found is not None else None)
    (total,) = engine.ranks.total(engine.backward(read(restored.data_step), loss).loss)
    return total


def _save_gradients(engine: Engine, loss: FlowMatching, task: Task) -> None:
    """Those of step 0, its loss, and what the module then says to rank 0 alone."""
    with deterministic(1):
        data = steps(engine.ranks, 0, task.config.sequence_parallel)
        share = engine.backward(data, loss)
        (total,) = engine.ranks.total(share.loss)
        if engine.ranks.leads:
            found = {name: each.grad for name, each in engine.module.named_parameters() if each.grad is not None}
            said = engine.module(torch.ones(1, 3, 2, 8, 4), torch.tensor([0.5]), torch.ones(1, 2, 8)).detach()
            save_file(found | {"loss": torch.tensor(total), "said": said}, Path(task.folder) / f"{task.name}.gradients")


def follow(ranks: Ranks, tasks: list[Task]) -> None:
    """What every rank does."""
    for task in tasks:
        attempt(ranks, task)


def lead(num_processes: int, tasks: list[Task]) -> None:
    """Train with so many processes, one task after the other."""
    with together(num_processes, follow, tasks) as ranks:
        follow(ranks, tasks)


def checkpoints_in(folder: Path) -> Checkpoints:
    """Checkpoints in a store of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    store, digests = Store(f"file://{folder}/store"), Digests(folder)
    return Checkpoints(
        store, digests, work_prefix="work/t/k", attempt="one", scratch=folder / "s", before_commit=lambda: ()
    )


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    lead(
        asked["num_processes"],
        [Task(**{**each, "config": dataclasses.replace(CONFIG, **each["config"])}) for each in asked["tasks"]],
    )
