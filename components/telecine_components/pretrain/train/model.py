"""What is trained: a video DiT from nothing or from a pipeline folder, or a Wan of diffusers, whole or by a LoRA.

What it is, is read from configurations first, so that all that does not fit is refused before a weight is loaded.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from telecine.errors import InputError
from telecine_components.pretrain.train import abilities
from telecine_components.pretrain.train.spec import Inputs
from telecine_components.training import lora
from telecine_components.training.loader import Sample
from telecine_components.training.losses import EncodeText
from telecine_components.training.pipelines import load_pipeline
from telecine_components.training.plan import Cost
from telecine_components.training.randomness import torch_seed
from telecine_components.training.stored_text import StoredText
from telecine_components.training.text import CachedText
from telecine_models import flops
from telecine_models.denoiser import SteeredDenoiser, WanDenoiser, load_wan
from telecine_models.pipeline import TelecinePipeline
from telecine_models.text import HashTextEncoder, TransformersTextEncoder, load_text_encoder
from telecine_models.vae import CausalVAE, load_vae
from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT

_INIT_STREAM = 0
_CACHED_WITH, _BUILT_IN = "cached_with.json", "built-in"
_CAPTIONS_COUNTED = 64
_SIZES = ("depth", "num_experts", "patch_frames", "patch_px")
_DIT, _WAN = VideoDiT.__name__, WanTransformer3DModel.__name__


@dataclasses.dataclass(frozen=True)
class Folders:
    """Local folders of the artifacts, as plain data; empty where none is given."""

    dataset: str
    model: str = ""
    vae: str = ""
    text_encoder: str = ""

    @classmethod
    def fetch(cls, inputs: Inputs, fetch: Callable[[str], Path]) -> "Folders":
        """Make them local."""
        uris = {field.name: getattr(inputs, f"{field.name}_uri") for field in dataclasses.fields(cls)}
        return cls(**{name: str(fetch(uri)) if uri else "" for name, uri in uris.items()})

    @property
    def cached_with(self) -> Mapping[str, Any]:
        """What pretrain.cache says of a dataset of latents; of frames, what stands in their place."""
        path = Path(self.dataset) / _CACHED_WITH
        frames = {"latent_channels": 3, "text_dim": VideoDiTConfig.text_dim, "vae": _BUILT_IN}
        found: Mapping[str, Any] = json.loads(path.read_text()) if path.is_file() else frames
        return found


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model by its configuration.

    Attributes:
        config: of a video DiT, or what ``config.json`` of a Wan holds.
        folder: of the transformer's weights; None for a model that begins untrained.
    """

    config: VideoDiTConfig | Mapping[str, Any]
    folder: Path | None = None

    @property
    def is_wan(self) -> bool:
        """Whether it is a Wan."""
        return not isinstance(self.config, VideoDiTConfig)

    @property
    def patch(self) -> tuple[int, int, int]:
        """Frames, rows and columns of one token."""
        frames, rows, columns = self["patch_size"]
        return frames, rows, columns

    def cost(self, *, num_text_tokens: int, is_frozen: bool) -> Cost:
        """What a sample costs, by its shape.

        Args:
            num_text_tokens: of a caption; a Wan's are padded.
            is_frozen: whether something beside the model is trained, not its own weights.
        """

        def flops_of(num_tokens: int) -> float:
            if isinstance(self.config, VideoDiTConfig):
                sample = flops.video_dit(self.config, num_video_tokens=num_tokens, num_text_tokens=num_text_tokens)
            else:
                sample = flops.wan(self.config, num_video_tokens=num_tokens)
            return sample.frozen_training_flops if is_frozen else sample.training_flops

        try:
            return Cost.fitted(flops_of, self.patch)
        except ValueError as error:
            raise InputError(f"pretrain.train: {error}") from error

    @property
    def has_experts(self) -> bool:
        """Whether some of its feed-forwards are mixtures."""
        return isinstance(self.config, VideoDiTConfig) and self.config.num_experts > 0

    def __getitem__(self, name: str) -> Any:
        return getattr(self.config, name) if isinstance(self.config, VideoDiTConfig) else self.config[name]


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What a training trains, and what it trains it with.

    Attributes:
        module: a :class:`telecine_models.denoiser.Denoiser`, the engine's own.
        pipeline: of a video DiT; None for a Wan, of which only the transformer is here.
    """

    architecture: Architecture
    module: nn.Module
    pipeline: TelecinePipeline | None
    encode_text: EncodeText

    def cost(self, inputs: Inputs, captions: Sequence[str]) -> Cost:
        """What a sample with a caption of the mean length costs, by its shape; the same on every rank."""
        num = min(len(captions), _CAPTIONS_COUNTED)
        counted = [captions[number * len(captions) // num] for number in range(num)]
        lengths = [int(self.encode_text([caption])[1].sum()) for caption in counted]
        is_frozen = inputs.lora_rank > 0 or inputs.train_actions
        cost = self.architecture.cost(num_text_tokens=round(sum(lengths) / num), is_frozen=is_frozen)
        return dataclasses.replace(cost, conditions=inputs.conditions)

    def save(self, module: nn.Module, folder: Path, inputs: Inputs, source: str) -> None:
        """Write what diffusers loads: the module's weights, or those of ``source`` as they are and a LoRA beside."""
        if inputs.lora_rank and inputs.merge_lora:
            module = self._merged(module, source)
        elif inputs.lora_rank:
            begun_with = self.architecture.folder if self.architecture.is_wan else Path(source)
            assert begun_with is not None
            shutil.copytree(
                begun_with, folder, ignore=shutil.ignore_patterns(lora.FOLDER), copy_function=shutil.copyfile
            )
            lora.save_lora(_core(module), folder / lora.FOLDER)
            return
        if isinstance(module, SteeredDenoiser):
            self._save_steered(module, folder, source)
        elif self.pipeline is None:
            _core(module).save_pretrained(folder)
        else:
            parts = {name: getattr(self.pipeline, name) for name in ("text_encoder", "vae", "action_control")}
            assert isinstance(module, VideoDiT)
            TelecinePipeline(transformer=module, **parts).save_pretrained(folder, safe_serialization=True)
        _forget_places(folder)

    def _save_steered(self, module: SteeredDenoiser, folder: Path, source: str) -> None:
        """The model that was begun with, to the byte but without its LoRA, and the action module."""
        part, left_out = "action_control", shutil.ignore_patterns(lora.FOLDER, "action_control")
        shutil.copytree(source, folder, ignore=left_out, copy_function=shutil.copyfile)
        module.control.save_pretrained(folder / part)
        parts = {name: getattr(self.pipeline, name) for name in ("text_encoder", "vae")}
        pipeline = TelecinePipeline(transformer=module.transformer, action_control=module.control, **parts)
        pipeline.save_config(folder)

    def _merged(self, module: nn.Module, source: str) -> nn.Module:
        """The model that was begun with, the factors of ``module`` in its weights."""
        begun_with = load_wan(self.architecture.folder) if self.architecture.folder and self.pipeline is None else None
        merged = begun_with or load_pipeline(Path(source), lora_scale=0).transformer
        factors = {name: each.detach().cpu() for name, each in lora.lora_of(_core(module)).items()}
        lora.join_lora(_core(merged), factors)
        lora.merge_lora(_core(merged))
        return merged


def architecture_of(inputs: Inputs, folders: Folders) -> Architecture:
    """What is to be trained.

    Raises:
        InputError: ``model_uri`` holds something else, or sizes were given that are not its; a LoRA beside nothing.
    """
    if inputs.merge_lora and not inputs.lora_rank:
        raise InputError(
            "pretrain.train: merge_lora needs a lora_rank of at least 1, got 0; give one or leave both out"
        )
    if not folders.model:
        if inputs.lora_rank:
            raise InputError(
                "pretrain.train: lora_rank needs model_uri, a model to go beside; give one or leave it out"
            )
        known = {"in_channels": folders.cached_with["latent_channels"], "text_dim": folders.cached_with["text_dim"]}
        patch = (inputs.patch_frames, inputs.patch_px, inputs.patch_px)
        config = VideoDiTConfig.from_depth(inputs.depth, patch_size=patch, num_experts=inputs.num_experts, **known)
        return Architecture(abilities.taught(inputs, config))
    found = _read_architecture(Path(folders.model))
    _check_sizes(inputs, found)
    _check_lora(inputs, Path(folders.model))
    if isinstance(found.config, VideoDiTConfig):
        return dataclasses.replace(found, config=abilities.taught(inputs, found.config))
    return found


def check_fit(inputs: Inputs, folders: Folders, model: Architecture, samples: Sequence[Sample]) -> None:
    """Raise :class:`InputError` where the model cannot be trained on the dataset."""
    is_cached = any(sample.latent_shape for sample in samples)
    if model.is_wan and not is_cached:
        raise InputError("pretrain.train: a Wan is trained on latents; give the dataset_uri that pretrain.cache wrote")
    if model.is_wan and inputs.sample_every_steps:
        raise InputError("pretrain.train: films of a Wan need its autoencoder too; set sample_every_steps=0")
    if inputs.sample_every_steps and not inputs.sample_prompts:
        raise InputError(
            "pretrain.train: sample_prompts must name at least one film, got none; give one or turn "
            "films off with sample_every_steps=0"
        )
    channels = {sample.x0_shape[0] for sample in samples} - {model["in_channels"]}
    if channels:
        kind = "latents" if is_cached else "frames"
        raise InputError(
            f"pretrain.train: model_uri takes {model['in_channels']} channels and the dataset's {kind} have "
            f"{min(channels)}; give what pretrain.cache made with the model's own autoencoder"
        )
    if is_cached and model["text_dim"] != folders.cached_with["text_dim"]:
        raise InputError(
            f"pretrain.train: model_uri takes token vectors of width {model['text_dim']} and the dataset's have "
            f"{folders.cached_with['text_dim']}; give what pretrain.cache made with the model's own text encoder"
        )


def check_sharing(inputs: Inputs, model: Architecture, num_ranks: int) -> None:
    """Raise :class:`InputError` where ranks cannot share the model's sequences as they are told to."""
    size = inputs.sequence_parallel
    if size == 1:
        return
    refused = {
        "a Wan": model.is_wan,
        "experts, which choose among all tokens": model.has_experts,
        "conditions": bool(inputs.conditions) or (not model.is_wan and bool(model["conditions"])),
        "actions": inputs.train_actions,
        "compile, which loses gradients of what is exchanged": inputs.compile,
    }
    for what, given in refused.items():
        if given:
            raise InputError(f"pretrain.train: sequence_parallel must be 1 with {what}, got {size}; leave one out")
    if num_ranks % size:
        raise InputError(
            f"pretrain.train: sequence_parallel must divide the {num_ranks} ranks, got {size}; set num_processes"
        )
    if model["num_heads"] % size:
        raise InputError(
            f"pretrain.train: sequence_parallel must divide the model's {model['num_heads']} heads, got {size}"
        )


def check_experts(inputs: Inputs, model: Architecture, samples: Sequence[Sample], num_ranks: int) -> None:
    """Raise :class:`InputError` where a forward pass may have fewer tokens than experts that each take an equal share.

    Args:
        samples: those that are trained on.
        num_ranks: that share a step's samples.
    """
    if not model.has_experts or model["mixture"] == "token_choice":
        return
    shapes = {sample.shape for sample in samples}
    fewest = min(flops.num_tokens(shape, model.patch) for shape in shapes)
    # Where shapes differ a rank may have a single sample, and an expert_choice chooses among those of one anyway.
    if len(shapes) == 1 and model["mixture"] == "diffmoe":
        mine = inputs.batch_size // num_ranks
        together = max(1, inputs.max_tokens // fewest) if inputs.max_tokens else mine
        fewest *= mine if together >= mine else mine % together or together
    if model["num_experts"] > fewest:
        raise InputError(
            f"pretrain.train: num_experts must be at most {fewest}, the tokens of the smallest forward pass, got "
            f"{model['num_experts']}; lower it, or raise batch_size or max_tokens"
        )


def check_encoders(folders: Folders, digest: Callable[[Path], str]) -> None:
    """Raise :class:`InputError` unless a model that begins untrained gets the encoders that its dataset was made with.

    One that goes on has its own.
    """
    if folders.model and (folders.vae or folders.text_encoder):
        raise InputError("pretrain.train: model_uri has encoders of its own; leave out vae_uri and text_encoder_uri")
    for name in () if folders.model else ("vae", "text_encoder"):
        folder, made_by = getattr(folders, name), folders.cached_with.get(name, _BUILT_IN)
        if made_by != (digest(Path(folder)) if folder else _BUILT_IN):
            needs = "none, the built-in one" if made_by == _BUILT_IN else f"the folder with the digest {made_by[:12]}"
            raise InputError(f"pretrain.train: {name}_uri must be what dataset_uri was made with: {needs}")


def build(
    inputs: Inputs,
    folders: Folders,
    model: Architecture,
    samples: Sequence[Sample],
    locate: Callable[[str], Path],
) -> Subject:
    """Load or make the model; the same on every rank."""
    stored = StoredText(Path(folders.dataset), samples, locate) if any(each.latent_shape for each in samples) else None
    if model.is_wan:
        assert stored is not None and model.folder is not None
        denoiser = load_wan(model.folder)
        _align(denoiser)
        subject = Subject(model, denoiser, None, _padded(stored))
    else:
        # Without a LoRA that it holds: that is what is trained, beside the weights.
        begun_with = load_pipeline(Path(folders.model), lora_scale=0) if folders.model else None
        pipeline = begun_with or fresh(inputs, folders, model)
        module = _begin_dit(inputs, folders, model, pipeline, samples, locate)
        subject = Subject(model, module, pipeline, stored or CachedText(pipeline.text_encoder))
    subject.module.train()
    if inputs.lora_rank:
        _begin_lora(_core(subject.module), inputs, Path(folders.model) / lora.FOLDER)
    return subject


def _begin_dit(
    inputs: Inputs,
    folders: Folders,
    model: Architecture,
    pipeline: TelecinePipeline,
    samples: Sequence[Sample],
    locate: Callable[[str], Path],
) -> nn.Module:
    """What is trained of a pipeline, apart from a LoRA."""
    assert isinstance(model.config, VideoDiTConfig)
    if inputs.train_actions:
        if (held := Path(folders.model) / lora.FOLDER).is_dir():
            lora.load_lora(pipeline.transformer, held)
        return abilities.steered(pipeline, inputs, samples, locate)
    transformer = abilities.widened(pipeline.transformer, model.config, inputs.seed)
    abilities.freeze_others(transformer, inputs.conditions)
    return transformer


def fresh(inputs: Inputs, folders: Folders, model: Architecture) -> TelecinePipeline:
    """The untrained pipeline: a function of the model's sizes and the seed."""
    config = model.config
    assert isinstance(config, VideoDiTConfig)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(inputs.seed, _INIT_STREAM))
        transformer = VideoDiT(**dataclasses.asdict(config))
    text = _text_encoder(Path(folders.text_encoder)) if folders.text_encoder else HashTextEncoder(config.text_dim)
    vae = load_vae(folders.vae) if folders.vae else None
    return TelecinePipeline(
        transformer=transformer, text_encoder=text, vae=vae.model if isinstance(vae, CausalVAE) else None
    )


def _text_encoder(folder: Path) -> HashTextEncoder | TransformersTextEncoder:
    """As pretrain.cache loads it."""
    path = folder / "config.json"
    if path.is_file() and json.loads(path.read_text()).get("_class_name") == HashTextEncoder.__name__:
        saved: HashTextEncoder = HashTextEncoder.from_pretrained(folder)
        return saved
    return load_text_encoder(folder)


def _read_architecture(folder: Path) -> Architecture:
    """Of a pipeline's folder, or of a transformer's alone."""
    home = folder / "transformer" if (folder / "transformer").is_dir() else folder
    path = home / "config.json"
    try:
        config = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"pretrain.train: {path} of model_uri must be JSON: {error}; copy it again") from error
    kind = config.get("_class_name")
    if kind == _WAN:
        return Architecture(config, home)
    if kind == _DIT and home != folder:
        names = {field.name for field in dataclasses.fields(VideoDiTConfig)}
        sizes: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in config.items()}
        return Architecture(VideoDiTConfig(**{name: sizes[name] for name in names & set(sizes)}), home)
    got = f"a {kind}" if kind else "none"
    raise InputError(
        f"pretrain.train: model_uri must be a pipeline folder that pretrain.train wrote or a {_WAN} of diffusers, "
        f"got {got}"
    )


def _check_sizes(inputs: Inputs, model: Architecture) -> None:
    """A size that was given has to be the model's; one at its default says nothing."""
    experts = model["num_experts"] if isinstance(model.config, VideoDiTConfig) else 0
    own = dict(zip(_SIZES, (model["num_layers"], experts, *model.patch[:2]), strict=True))
    defaults = {field.name: field.default for field in dataclasses.fields(Inputs)}
    for name, value in own.items():
        if getattr(inputs, name) not in (defaults[name], value):
            raise InputError(
                f"pretrain.train: model_uri is of another architecture: {name} must be {value}, "
                f"got {getattr(inputs, name)}; leave it out"
            )
    if inputs.lora_rank and experts:
        raise InputError("pretrain.train: lora_rank must be 0 for a model with experts, whose thresholds move as well")


def _check_lora(inputs: Inputs, folder: Path) -> None:
    held = lora.read_config(folder / lora.FOLDER).rank if (folder / lora.FOLDER).is_dir() else 0
    if held and not inputs.train_actions and held != inputs.lora_rank:
        raise InputError(
            f"pretrain.train: model_uri holds a LoRA of rank {held}, and lora_rank is {inputs.lora_rank}; set it to "
            f"{held} to go on with it, or give the model that it was made from"
        )


def _begin_lora(core: nn.Module, inputs: Inputs, held: Path) -> None:
    """A LoRA that begins as nothing, or the one that the model's folder holds."""
    if not held.is_dir():
        lora.add_lora(core, inputs.lora_rank, inputs.seed)
        return
    lora.load_lora(core, held)


def _core(module: nn.Module) -> Any:
    """The model of diffusers in a denoiser."""
    return module.transformer if isinstance(module, WanDenoiser) else module


def _align(module: nn.Module) -> None:
    """Copy what is mapped from a file: unaligned operands round differently."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()


def _padded(encode_text: EncodeText) -> EncodeText:
    """Token vectors of the length that Wan was trained with, zeros behind those that are real."""

    def encode(captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings, mask = encode_text(captions)
        missing = max(0, flops.WAN_TEXT_TOKENS - mask.shape[1])
        return nn.functional.pad(embeddings, (0, 0, 0, missing)), nn.functional.pad(mask, (0, missing))

    return encode


def _forget_places(folder: Path) -> None:
    """Take out of configurations where a model was loaded from: what is committed names no place."""
    for path in [*folder.glob("*.json"), *folder.glob("*/config.json")]:
        document = json.loads(path.read_text())
        if document.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
