"""Two ranks train, and one of them is slow in each of its forward passes: ``shared_slow_rank.py FOLDER``."""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import shared_training  # type: ignore[import-not-found]  # it lies beside this script
from torch import nn

from telecine_components.training.engine import Engine
from telecine_components.training.ledger import Ledger
from telecine_components.training.loader import Batch
from telecine_components.training.loop import STEPS_COMPARED, NoCheckpoints, train
from telecine_components.training.losses import FlowMatching, Objective
from telecine_components.training.ranks import Ranks, together
from telecine_components.training.text import CachedText
from telecine_models.text import HashTextEncoder

SLOW_RANK, DELAY_S = 1, 0.06
CONFIG = dataclasses.replace(shared_training.CONFIG, num_steps=STEPS_COMPARED, checkpoint_every_steps=1000)


@dataclasses.dataclass
class SlowLoss:
    """A loss whose slow rank sleeps; ``slept_s`` so long in all."""

    inner: FlowMatching
    ranks: Ranks
    slept_s: float = 0.0

    def __call__(self, model: nn.Module, batches: Sequence[Batch]) -> Objective:
        """The inner loss."""
        if self.ranks.number == SLOW_RANK:
            began = time.perf_counter()
            time.sleep(DELAY_S)
            self.slept_s += time.perf_counter() - began
        return self.inner(model, batches)


def follow(ranks: Ranks, folder: str) -> None:
    """Train, and leave what this rank's ledger has and how long it slept."""
    text = CachedText(HashTextEncoder(text_dim=8, max_tokens=4))
    inner = FlowMatching(encode_text=text, caption_dropout_ratio=0.0, seed=3, num_strata=shared_training.NUM_SAMPLES)
    loss, ledger = SlowLoss(inner, ranks), Ledger()
    train(
        Engine(shared_training.model(), CONFIG, ranks),
        steps=lambda number: shared_training.steps(ranks, number),
        loss=loss,
        checkpoints=NoCheckpoints(),
        ledger=ledger,
    )
    told = {"slept_s": loss.slept_s, "total": ledger.total()}
    (Path(folder) / f"{ranks.number}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    with together(2, follow, sys.argv[1]) as met:
        follow(met, sys.argv[1])
