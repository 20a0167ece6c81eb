"""pretrain.train from a model that exists, whole or by a LoRA, ours or a Wan; images beside videos; films meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import diffusers
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors.torch import load_file

from telecine import settings, tracking
from telecine.errors import InputError, RetryLater
from telecine_components.training import lora
from telecine_models.pipeline import TelecinePipeline

Run = Callable[..., Any]
TRAIN = "pretrain.train"
SHORT = {"num_steps": 6, "checkpoint_every_steps": 2, "eval_every_steps": 3}
LORA = {"num_steps": 24, "lora_rank": 2, "learning_rate": 5e-3}


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commit_of(uri: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((local(uri).parents[2] / "commit.json").read_text())
    return document


@pytest.fixture(scope="module")
def on(trained: Any, tiny_training: dict[str, Any]) -> Run:
    """Train on the session's dataset, going on from the session's model."""
    base = {"dataset_uri": str(trained.dataset), "model_uri": trained.outputs.model_uri, **tiny_training}
    return lambda **inputs: trained.run(TRAIN, run="on", **(base | inputs))


@pytest.fixture(scope="module")
def with_lora(on: Run) -> Any:
    return on(**LORA)


def test_a_training_goes_on_with_the_weights_of_a_model(trained: Any, on: Run) -> None:
    outputs = on(num_steps=24, learning_rate=1e-3)
    assert outputs.eval_loss_untrained == trained.outputs.eval_loss, "it begins where the other ended"
    assert outputs.eval_loss < outputs.eval_loss_untrained
    for name, content in bytes_of(local(outputs.model_uri)).items():
        assert b"/store/work/" not in content, name


def test_a_lora_lies_beside_the_weights_that_it_was_learned_over(trained: Any, with_lora: Any) -> None:
    before, after = (bytes_of(local(each.model_uri)) for each in (trained.outputs, with_lora))
    assert {name for name in after if name not in before} == {"lora/config.json", "lora/lora.safetensors"}
    assert {name for name in before if after[name] != before[name]} == set(), "the base is what it was, to the bit"
    assert with_lora.eval_loss_untrained == trained.outputs.eval_loss
    assert with_lora.eval_loss < with_lora.eval_loss_untrained

    size: dict[str, Any] = {"num_frames": 2, "height_px": 8, "width_px": 8, "num_steps": 2}
    films = []
    for beside in (False, True):
        pipeline = TelecinePipeline.from_pretrained(local(with_lora.model_uri))
        pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
        if beside:
            lora.load_lora(pipeline.transformer, local(with_lora.model_uri) / lora.FOLDER)
        films.append(pipeline("a red square moves right", **size))
    assert (films[0] != films[1]).any()


def test_a_lora_goes_on_from_a_lora(on: Run, with_lora: Any) -> None:
    outputs = on(**SHORT, lora_rank=2, model_uri=with_lora.model_uri)
    assert outputs.eval_loss_untrained == pytest.approx(with_lora.eval_loss, rel=1e-6)
    with pytest.raises(InputError, match="model_uri holds a LoRA of rank 2, and lora_rank is 0; set it to 2"):
        on(**SHORT, model_uri=with_lora.model_uri)


def test_films_are_made_meanwhile_and_a_training_that_was_stopped_has_the_bytes_of_one_that_was_not(
    trained: Any, on: Run, with_lora: Any
) -> None:
    filmed = LORA | {"sample_every_steps": 9, "sample_prompts": ["a red square 走 →", ""]}
    work = trained.deployment.home / "store" / "work" / TRAIN
    known = set(work.iterdir())
    threading.Thread(target=_stop_after_checkpoint, args=(work, known), daemon=True).start()
    with pytest.raises(RetryLater):
        on(**filmed)
    outputs = on(**filmed)
    assert bytes_of(local(outputs.model_uri)) == bytes_of(local(with_lora.model_uri)), "nor do films change anything"

    client, run_id = tracking.connect(trained.deployment), commit_of(outputs.model_uri)["mlflow_run_id"]
    steps = [file.path for file in client.list_artifacts(run_id, "samples")]
    assert steps == [f"samples/step_{step}" for step in (18, 24, 9)]
    assert [file.path.rpartition("/")[2] for file in client.list_artifacts(run_id, steps[0])] == [
        "00.mp4",
        "01.mp4",
        "poster.png",
    ]
    with av.open(client.download_artifacts(run_id, f"{steps[0]}/00.mp4")) as film:
        assert len(list(film.decode(video=0))) == 2
    history = json.loads(local(outputs.training_uri).read_text())["history"]
    assert [step for step, _ in history["eval/loss"]] == [8, 16, 24], "films have intervals of their own"


def test_merged_the_weights_say_what_the_lora_beside_them_says(trained: Any, on: Run, with_lora: Any) -> None:
    merged = on(**LORA, merge_lora=True)
    assert merged.eval_loss == with_lora.eval_loss
    assert (merged.is_pipeline, with_lora.is_pipeline, trained.outputs.is_pipeline) == (True, True, True)
    assert not (local(merged.model_uri) / lora.FOLDER).exists()
    beside, inside = (TelecinePipeline.from_pretrained(local(each.model_uri)) for each in (with_lora, merged))
    lora.load_lora(beside.transformer, local(with_lora.model_uri) / lora.FOLDER)
    noisy = torch.randn(1, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    text, mask = inside.text_encoder.encode(["a red square moves right"])
    with torch.no_grad():
        said = [each.transformer(noisy, torch.tensor([0.5]), text, mask) for each in (beside, inside)]
    torch.testing.assert_close(said[0], said[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("sharded", [{"zero_stage": 3}, {"sequence_parallel": 2, "zero_stage": 1}])
def test_ranks_that_shard_learn_the_lora_that_one_process_learns(
    trained: Any, tiny_training: dict[str, Any], with_lora: Any, tmp_path: Path, sharded: dict[str, int]
) -> None:
    shared = {"num_processes": 2, "sample_every_steps": 12, "sample_prompts": ["a square"], **sharded}
    base = {"dataset_uri": str(trained.dataset), "model_uri": trained.outputs.model_uri}
    command = [sys.executable, "-P", "-m", "telecine.cli", "run", TRAIN, "--force"]
    command += ["--inputs", json.dumps(tiny_training | LORA | base | shared), "--result", str(tmp_path / "result.json")]
    done = subprocess.run(
        command, env=os.environ | trained.deployment.environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = json.loads((tmp_path / "result.json").read_text())["outputs"]
    assert "event=filmed step=12 films=1" in done.stderr and "event=filmed step=24 films=1" in done.stderr

    weights = f"{lora.FOLDER}/{lora.WEIGHTS}"
    ours, theirs = local(with_lora.model_uri), local(outputs["model_uri"])
    before, after = bytes_of(ours), bytes_of(theirs)
    assert {name for name in before if after[name] != before[name]} <= {weights}
    torch.testing.assert_close(load_file(theirs / weights), load_file(ours / weights), atol=1e-3, rtol=0)
    assert outputs["eval_loss"] == pytest.approx(with_lora.eval_loss, rel=1e-3)


def _stop_after_checkpoint(work: Path, known: set[Path]) -> None:
    """Ask this process to stop, as Kubernetes does, once a work that was not there before has a checkpoint."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(True for folder in set(work.iterdir()) - known for _ in folder.glob("checkpoints/*/commit.json")):
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.002)


# Latents, and Wan


def save_wan(folder: Path, **sizes: Any) -> Path:
    """A tiny Wan with random weights, as diffusers writes it."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "ffn_dim": 32, "freq_dim": 32}
    model = WanTransformer3DModel(**(heads | {"in_channels": 3, "out_channels": 3, "text_dim": 16} | sizes))
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def cached(run_component: Run, deployment: settings.Settings, make_dataset: Callable[..., Path]) -> str:
    """A dataset whose latents are its pixels."""
    dataset = make_dataset(deployment)
    uri: str = run_component("pretrain.cache", dataset_uri=dataset, text_dim=16, num_threads=1).dataset_uri
    return uri


@pytest.mark.parametrize(("rank", "merged"), [(0, False), (4, False), (4, True)])
def test_a_wan_is_tuned_on_cached_latents_and_diffusers_loads_what_comes_out(
    run_component: Run, cached: str, tmp_path: Path, tiny_training: dict[str, Any], rank: int, merged: bool
) -> None:
    base = save_wan(tmp_path / "wan")
    tuning: dict[str, Any] = {"num_steps": 24, "lora_rank": rank, "learning_rate": 1e-2, "patch_px": 8, "depth": 4}
    tuning |= {"merge_lora": merged, "recompute": merged, "precision": "bf16" if merged else "fp32"}
    outputs = run_component(TRAIN, dataset_uri=cached, model_uri=base, **(tiny_training | tuning))
    assert outputs.eval_loss < 0.9 * outputs.eval_loss_untrained
    assert outputs.gain_over_untrained_low > 0
    folder = local(outputs.model_uri)
    before, after = (WanTransformer3DModel.from_pretrained(each) for each in (base, folder))
    same = all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert outputs.is_pipeline is False
    beside = rank > 0 and not merged
    assert same == beside
    assert (folder / "lora").is_dir() == beside
    if beside:
        assert bytes_of(folder).items() >= bytes_of(base).items()
        after.load_lora_adapter(str(folder / "lora"), weight_name="lora.safetensors", prefix=None)
    assert b"_name_or_path" not in (folder / "config.json").read_bytes()


def test_our_model_is_trained_on_latents_and_its_pipeline_has_the_autoencoder(
    run_component: Run,
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    tiny_training: dict[str, Any],
) -> None:
    torch.manual_seed(0)
    blocks = {"dim_mult": [1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [True, True]}
    scale = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    vae: Any = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, **blocks, **scale)
    vae.save_pretrained(tmp_path / "vae")
    dataset = make_dataset(deployment, num_frames=5, height_px=16, width_px=16)
    cached = run_component("pretrain.cache", dataset_uri=dataset, vae_uri=tmp_path / "vae", num_threads=1).dataset_uri
    latents = tiny_training | SHORT | {"dataset_uri": cached, "patch_frames": 1, "patch_px": 2}
    with pytest.raises(InputError, match="vae_uri must be what dataset_uri was made with: the folder with the digest"):
        run_component(TRAIN, **latents)
    outputs = run_component(TRAIN, **latents, vae_uri=tmp_path / "vae", sample_every_steps=6)
    pipeline = TelecinePipeline.from_pretrained(local(outputs.model_uri))
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    film = pipeline("a red square", num_frames=5, height_px=16, width_px=16, num_steps=1)
    assert film.shape == (1, 5, 16, 16, 3)


# Images beside videos


def mixed_dataset(deployment: settings.Settings, make_dataset: Callable[..., Path], folder: Path) -> Path:
    """Videos of two frames in one shard, images in another, one index over both."""
    rows = []
    for name, num_frames in (("images", 1), ("videos", 2)):
        dataset = make_dataset(deployment, num_frames=num_frames)
        found = pq.read_table(dataset / "index.parquet").to_pylist()
        shard = deployment.home / "store" / found[0]["shard"]
        shutil.move(shard, shard.with_name(f"{name}.tar"))
        moved = {"shard": found[0]["shard"].replace(shard.name, f"{name}.tar")}
        rows += [row | moved | {key: f"{name}-{row[key]}" for key in ("sample_id", "clip_id")} for row in found]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "index.parquet")
    return folder


def test_images_and_videos_are_trained_on_together(
    run_component: Run,
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    tiny_training: dict[str, Any],
) -> None:
    joint = tiny_training | {"dataset_uri": mixed_dataset(deployment, make_dataset, tmp_path / "joint")}
    with pytest.raises(InputError, match="patch_frames must divide the samples' 1 frames, got 2"):
        run_component(TRAIN, **joint)
    outputs = run_component(TRAIN, **joint, patch_frames=1, max_tokens=16)
    assert outputs.gain_over_untrained_low > 0
    assert json.loads((local(outputs.model_uri) / "trained_on.json").read_text())["num_frames"] == 2
    document = json.loads(local(outputs.training_uri).read_text())
    assert document["num_samples_seen"] == pytest.approx(24 * 4, abs=4)
    assert {clip.partition("-")[0] for clip in document["held_out"]["loss_per_clip"]["trained"]} == {"images", "videos"}
    pipeline = TelecinePipeline.from_pretrained(local(outputs.model_uri))
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    assert pipeline("a red square", num_frames=1, height_px=8, width_px=8, num_steps=1).shape == (1, 1, 8, 8, 3)


# What cannot work


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"depth": 3}, "model_uri is of another architecture: depth must be 2, got 3; leave it out"),
        ({"num_experts": 2}, "model_uri is of another architecture: num_experts must be 0, got 2"),
        ({"model_uri": "", "lora_rank": 2}, "lora_rank needs model_uri, a model to go beside"),
        ({"sample_every_steps": 2, "sample_prompts": []}, "sample_prompts must name at least one film, got none"),
        ({"model_uri": "dataset"}, "model_uri must be a pipeline folder .* or a WanTransformer3DModel .*, got none"),
        (
            {"model_uri": "wan", "depth": 4, "patch_px": 8},
            "a Wan is trained on latents; give the dataset_uri that pretrain.cache wrote",
        ),
        ({"sequence_parallel": 2}, "sequence_parallel must divide the 1 ranks, got 2; set num_processes"),
        ({"num_processes": 3, "sequence_parallel": 3}, "sequence_parallel must divide the model's 2 heads, got 3"),
        ({"sequence_parallel": 2, "compile": True}, "sequence_parallel must be 1 with compile, .*, got 2"),
        (
            {"model_uri": "", "num_experts": 2, "num_processes": 2, "sequence_parallel": 2},
            "sequence_parallel must be 1 with experts, which choose among all tokens, got 2",
        ),
        (
            {"conditions": ["depth"], "num_processes": 2, "sequence_parallel": 2},
            "sequence_parallel must be 1 with conditions, got 2",
        ),
        (
            {"train_actions": True, "num_processes": 2, "sequence_parallel": 2},
            "sequence_parallel must be 1 with actions, got 2",
        ),
        ({"merge_lora": True}, "merge_lora needs a lora_rank of at least 1, got 0"),
        ({"vae_uri": "wan"}, "model_uri has encoders of its own; leave out vae_uri and text_encoder_uri"),
        ({"model_uri": "", "vae_uri": "wan"}, "vae_uri must be what dataset_uri was made with: none, the built-in one"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused_before_any_step(
    trained: Any, on: Run, tmp_path: Path, inputs: dict[str, Any], sentence: str
) -> None:
    places = {"dataset": str(trained.dataset), "wan": str(save_wan(tmp_path / "wan"))}
    given = {name: places.get(value, value) if name.endswith("_uri") else value for name, value in inputs.items()}
    with pytest.raises(InputError, match=f"pretrain.train: {sentence}"):
        on(**SHORT, **given)


@pytest.mark.parametrize(
    ("sizes", "inputs", "sentence"),
    [
        ({"in_channels": 4}, {}, "model_uri takes 4 channels and the dataset's latents have 3"),
        ({"text_dim": 32}, {}, "model_uri takes token vectors of width 32 and the dataset's have 16"),
        ({"patch_size": (1, 3, 3)}, {"patch_px": 8}, "patch_px must divide the samples' 8x8 latents, got 3"),
        ({}, {"sample_every_steps": 2}, "films of a Wan need its autoencoder too; set sample_every_steps=0"),
        ({"added_kv_proj_dim": 32, "image_dim": 8}, {}, "wan: added_kv_proj_dim must be None, got 32"),
    ],
)
def test_a_wan_that_does_not_fit_is_refused_before_any_step(
    run_component: Run,
    cached: str,
    tmp_path: Path,
    tiny_training: dict[str, Any],
    sizes: dict[str, Any],
    inputs: dict[str, Any],
    sentence: str,
) -> None:
    given = tiny_training | {"depth": 4, "patch_px": 8} | inputs
    with pytest.raises(InputError, match=sentence):
        run_component(TRAIN, dataset_uri=cached, model_uri=save_wan(tmp_path / "wan", **sizes), **given)
