"""One training as every rank of it sees it: rank 0 in the component's process, the others beside it."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from telecine.nodes import Follower
from telecine_components.pretrain.train import looks, model
from telecine_components.pretrain.train.data import Splits, read_splits
from telecine_components.pretrain.train.model import Folders, Subject
from telecine_components.pretrain.train.spec import Inputs
from telecine_components.training.checkpoint import TrainingState
from telecine_components.training.config import TrainingConfig
from telecine_components.training.determinism import deterministic
from telecine_components.training.engine import Engine
from telecine_components.training.ledger import Ledger
from telecine_components.training.loader import Steps, read_index
from telecine_components.training.loop import Checkpoints, Hooks, NoCheckpoints, train
from telecine_components.training.losses import FlowMatching
from telecine_components.training.ranks import Ranks, together
from telecine_components.training.watchdog import PATIENCE_S, Watchdog

DEFAULT_BATCH_SIZE = 16
FOLLOWERS_WAIT_S, FOLLOWERS_STEP_RATIO = 60.0, 6.0
"""Beyond the seconds, and the median steps, after which rank 0 tells a hang."""
MEASURED_BEFORE, MEASURED_AFTER = "measured-before", "measured-after"
"""What rank 0 does by itself, for as long as the held-out samples take, before and after the training."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What ranks of one machine share, as plain data.

    Attributes:
        folders: of the artifacts.
        shards: local path by store path.
    """

    inputs: Inputs
    folders: Folders
    shards: Mapping[str, str]

    def locate(self, shard: str) -> Path:
        """Local path of a shard."""
        return Path(self.shards[shard])

    def splits(self) -> Splits:
        """The dataset, unchecked."""
        inputs = self.inputs
        return read_splits(
            Path(self.folders.dataset),
            self.locate,
            seed=inputs.seed,
            conditions=inputs.conditions,
            actions=inputs.train_actions,
        )

    def subject(self, splits: Splits) -> Subject:
        """The model, the same on every rank."""
        architecture = model.architecture_of(self.inputs, self.folders)
        return model.build(self.inputs, self.folders, architecture, splits.samples, self.locate)


def follow(ranks: Ranks, job: Job) -> None:
    """Do a rank's part of every step and of every look at the averaged weights, and nothing else."""
    inputs = job.inputs
    with deterministic(inputs.num_threads):
        ledger = Ledger()

        def watched(patience_s: float) -> Watchdog:
            # Rank 0 can save the attempt's state before it ends; so it is the first to lose its patience.
            return Watchdog(
                ledger,
                roll_call=ranks.roll_call,
                floor_s=inputs.hang_floor_s,
                step_ratio=FOLLOWERS_STEP_RATIO,
                patience_s=patience_s,
                grace_s=FOLLOWERS_WAIT_S,
            )

        with ledger.spend("init"), watched(math.inf):
            splits = job.splits()
            subject = job.subject(splits)
            ranks.await_leader(MEASURED_BEFORE)
            engine = Engine(subject.module, config_of(inputs), ranks)

        def evaluate(step: int) -> dict[str, float]:
            for is_due in (looks.is_measured, looks.is_filmed):
                with engine.averaged() if is_due(inputs, step) else contextlib.nullcontext():
                    pass
            return {}

        with watched(PATIENCE_S):
            fit(engine, splits, subject, inputs, NoCheckpoints(), Hooks(evaluate=evaluate), ledger)
            with engine.averaged():
                pass
        ranks.await_leader(MEASURED_AFTER)


def follow_node(inputs: Inputs, follower: Follower) -> None:
    """Be the first rank of a node that does not lead, with others beside it."""
    folders = Folders.fetch(inputs, follower.fetch)
    job = job_of(with_batch_size(inputs, folders), folders, follower.path)
    with together(inputs.num_processes, follow, job) as ranks:
        follow(ranks, job)


def with_batch_size(inputs: Inputs, folders: Folders) -> Inputs:
    """The inputs with the batch that 0 stands for: DEFAULT_BATCH_SIZE, or all training samples if they are fewer."""
    if inputs.batch_size:
        return inputs
    num_train = sum(sample.split == "train" for sample in read_index(Path(folders.dataset) / "index.parquet"))
    return dataclasses.replace(inputs, batch_size=max(1, min(DEFAULT_BATCH_SIZE, num_train)))


def job_of(inputs: Inputs, folders: Folders, locate: Callable[[str], Path]) -> Job:
    """The job of a dataset whose shards can be located."""
    shards = {sample.shard for sample in read_index(Path(folders.dataset) / "index.parquet")}
    return Job(inputs, folders, {shard: str(locate(shard)) for shard in sorted(shards)})


def fit(
    engine: Engine,
    splits: Splits,
    subject: Subject,
    inputs: Inputs,
    checkpoints: Checkpoints,
    hooks: Hooks,
    ledger: Ledger,
) -> TrainingState:
    """Train to the last step on this rank's share of the data."""
    with ledger.spend("init"):
        cost = subject.cost(inputs, [sample.caption for sample in splits.train.samples])
        plan = splits.train.plan(cost, batch_size=inputs.batch_size)
    loss = FlowMatching(
        encode_text=subject.encode_text,
        caption_dropout_ratio=inputs.caption_dropout_ratio,
        seed=inputs.seed,
        num_strata=inputs.batch_size,
        has_experts=subject.architecture.has_experts,
        condition_dropout_ratio=inputs.condition_dropout_ratio,
        condition_positions=condition_positions(inputs),
    )
    ranks = engine.ranks
    bound = inputs.max_tokens or None
    sharing = inputs.sequence_parallel
    share = {"rank": ranks.number // sharing, "world_size": ranks.size // sharing}
    # The thread that reads ahead is let finish what it reads.
    steps = Steps(splits.train, plan, **share, max_tokens=bound)
    with ledger.spend("data_wait"), steps:
        return train(
            engine,
            steps=steps,
            loss=loss,
            checkpoints=checkpoints,
            hooks=hooks,
            ledger=ledger,
            eval_every_steps=looks.every_steps(inputs),
        )


def condition_positions(inputs: Inputs) -> dict[str, int]:
    """The curriculum in samples: where shapes differ, a step's are ``batch_size`` on average."""
    steps = inputs.condition_steps or (0,) * len(inputs.conditions)
    return {kind: step * inputs.batch_size for kind, step in zip(inputs.conditions, steps, strict=True)}


def config_of(inputs: Inputs) -> TrainingConfig:
    """The trainer's part of the inputs."""
    names = {field.name for field in dataclasses.fields(TrainingConfig)}
    return TrainingConfig(**{name: value for name, value in dataclasses.asdict(inputs).items() if name in names})
