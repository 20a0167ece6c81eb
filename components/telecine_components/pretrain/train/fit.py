"""One training as every rank of it sees it: rank 0 in the component's process, the others beside it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from telecine.nodes import Follower
from telecine_components.pretrain.train.data import Splits, read_splits
from telecine_components.pretrain.train.spec import Inputs
from telecine_components.training.checkpoint import TrainingState
from telecine_components.training.config import TrainingConfig
from telecine_components.training.engine import Engine, deterministic
from telecine_components.training.ledger import Ledger
from telecine_components.training.loader import Steps, read_index
from telecine_components.training.loop import Checkpoints, Hooks, NoCheckpoints, train
from telecine_components.training.losses import EncodeText, FlowMatching
from telecine_components.training.plan import Cost
from telecine_components.training.randomness import torch_seed
from telecine_components.training.ranks import Ranks, together
from telecine_components.training.text import CachedText
from telecine_models.pipeline import TelecinePipeline
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT

_INIT_STREAM = 0


@dataclasses.dataclass(frozen=True)
class Job:
    """What ranks of one machine share, as plain data.

    Attributes:
        dataset: local folder of the dataset.
        shards: local path by store path.
    """

    inputs: Inputs
    dataset: str
    shards: Mapping[str, str]

    def locate(self, shard: str) -> Path:
        """Local path of a shard."""
        return Path(self.shards[shard])


def follow(ranks: Ranks, job: Job) -> None:
    """Do a rank's part of every step and of every look at the averaged weights, and nothing else."""
    inputs = job.inputs
    with deterministic(inputs.num_threads):
        splits = read_splits(Path(job.dataset), job.locate, seed=inputs.seed)
        pipeline = build_pipeline(inputs)
        engine = Engine(pipeline.transformer, config_of(inputs), ranks)

        def evaluate(_: int) -> dict[str, float]:
            with engine.averaged():
                return {}

        encode_text = CachedText(pipeline.text_encoder)
        fit(engine, splits, encode_text, inputs, NoCheckpoints(), Hooks(evaluate=evaluate))
        with engine.averaged():
            pass


def follow_node(inputs: Inputs, follower: Follower) -> None:
    """Be the first rank of a node that does not lead, with others beside it."""
    job = job_of(inputs, follower.fetch(inputs.dataset_uri), follower.path)
    with together(inputs.num_processes, follow, job) as ranks:
        follow(ranks, job)


def job_of(inputs: Inputs, dataset: Path, locate: Callable[[str], Path]) -> Job:
    """The job of a dataset whose shards can be located."""
    shards = {sample.shard for sample in read_index(dataset / "index.parquet")}
    return Job(inputs, str(dataset), {shard: str(locate(shard)) for shard in sorted(shards)})


def fit(
    engine: Engine,
    splits: Splits,
    encode_text: EncodeText,
    inputs: Inputs,
    checkpoints: Checkpoints,
    hooks: Hooks,
    ledger: Ledger | None = None,
) -> TrainingState:
    """Train to the last step on this rank's share of the data."""
    plan = splits.train.plan(cost_of(inputs), batch_size=inputs.batch_size)
    loss = FlowMatching(
        encode_text=encode_text,
        caption_dropout_ratio=inputs.caption_dropout_ratio,
        seed=inputs.seed,
        num_strata=inputs.batch_size,
        has_experts=inputs.num_experts > 0,
    )
    ranks = engine.ranks
    bound = inputs.max_tokens or None
    with Steps(splits.train, plan, rank=ranks.number, world_size=ranks.size, max_tokens=bound) as steps:
        return train(
            engine,
            steps=steps,
            loss=loss,
            checkpoints=checkpoints,
            hooks=hooks,
            ledger=ledger,
            eval_every_steps=inputs.eval_every_steps,
        )


def patch_size(inputs: Inputs) -> tuple[int, int, int]:
    """Frames, rows and columns of one token."""
    return inputs.patch_frames, inputs.patch_px, inputs.patch_px


def model_config(inputs: Inputs) -> VideoDiTConfig:
    """Sizes and abilities of the model."""
    return VideoDiTConfig.from_depth(inputs.depth, patch_size=patch_size(inputs), num_experts=inputs.num_experts)


def cost_of(inputs: Inputs) -> Cost:
    """What a sample costs, by its shape."""
    return Cost.of(model_config(inputs))


def config_of(inputs: Inputs) -> TrainingConfig:
    """The trainer's part of the inputs."""
    names = {field.name for field in dataclasses.fields(TrainingConfig)}
    return TrainingConfig(**{name: value for name, value in dataclasses.asdict(inputs).items() if name in names})


def build_pipeline(inputs: Inputs) -> TelecinePipeline:
    """The untrained pipeline: a function of the model's sizes and the seed."""
    config = model_config(inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(inputs.seed, _INIT_STREAM))
        transformer = VideoDiT(**dataclasses.asdict(config))
    return TelecinePipeline(transformer=transformer, text_encoder=HashTextEncoder(text_dim=config.text_dim))
