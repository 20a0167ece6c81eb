"""Embeddings of a tiny vision model with random weights, which still tells pictures apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from telecine.errors import InputError
from telecine_components.curate.embed.encoder import Encoder
from telecine_components.curate.embed.frames import frames_of
from telecine_components.media import clips

Run = Callable[..., Any]
Rows = Callable[[str], list[dict[str, Any]]]

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig(**TINY, image_size=32, patch_size=8)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


@pytest.fixture
def filtered(run_component: Run, footage: Path) -> Any:
    split = run_component("curate.split", videos_uri=footage)
    return run_component("curate.filter", clips_uri=split.clips_uri, min_duration_s=0.5, min_motion=0.0)


def test_every_kept_clip_gets_a_vector_that_two_steps_can_use(
    run_component: Run, rows_of: Rows, footage: Path, filtered: Any, vision_model: Path
) -> None:
    given = {"videos_uri": footage, "encoder_uri": vision_model, "num_threads": 1}
    outputs = run_component("curate.embed", clips_uri=filtered.clips_uri, **given)
    found = {row["clip_id"]: np.array(row["embedding"]) for row in rows_of(outputs.embeddings_uri)}
    kept = {row["clip_id"] for row in rows_of(filtered.clips_uri) if row["reason"] is None}
    assert found.keys() == kept
    assert (outputs.num_clips, outputs.embedding_dim) == (len(kept), 16)
    assert all(np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in found.values())
    vectors = np.stack(list(found.values()))
    assert (vectors @ vectors.T)[np.triu_indices(len(vectors), k=1)].max() < 0.99999
    balanced = run_component(
        "curate.balance", clips_uri=filtered.clips_uri, embeddings_uri=outputs.embeddings_uri, keep_ratio=0.5
    )
    assert balanced.num_clips == -(-len(kept) // 2)


def test_a_file_is_embedded_once_ever(run_component: Run, footage: Path, filtered: Any, vision_model: Path) -> None:
    given = {"videos_uri": footage, "encoder_uri": vision_model, "num_threads": 1}
    once = run_component("curate.embed", clips_uri=filtered.clips_uri, **given)
    rows = clips.read(Path(filtered.clips_uri.removeprefix("file://")), owner="test")
    fewer = [row | ({"reason": "unwanted"} if row["source"] == "one.mp4" else {}) for row in rows]
    clips.write(footage.parent / "fewer.parquet", fewer)
    again = run_component("curate.embed", run="again", clips_uri=footage.parent / "fewer.parquet", **given)
    items = Path(once.embeddings_uri.removeprefix("file://")).parents[3] / "items"
    assert len(list(items.rglob("commit.json"))) == 2
    assert 0 < again.num_clips < once.num_clips


def test_a_clip_of_one_frame_that_stands_for_seconds_is_not_taken_for_the_next(
    write_video: Callable[..., Path],
) -> None:
    pictures = np.stack([np.full((32, 48, 3), level, np.uint8) for level in (40, *range(100, 220, 10))])
    path = write_video("slides.mp4", pictures, stamps=[0, *range(120, 132)])
    spans = {"slide": (0.0, 10.0), "rest": (10.0, 10.95)}
    rows = [{"clip_id": clip_id, "start_s": start, "end_s": end} for clip_id, (start, end) in spans.items()]
    found = [(clip_id, picture.mean()) for clip_id, picture in frames_of(path, rows, 3)]
    assert [clip_id for clip_id, _ in found] == ["slide"] * 3 + ["rest"] * 3
    assert [level for _, level in found] == pytest.approx([40, 40, 40, 110, 150, 190], abs=4)


def test_models_of_images_and_text_give_their_image_features(tmp_path: Path) -> None:
    text = {**TINY, "vocab_size": 50, "max_position_embeddings": 8}
    config = CLIPConfig(text_config=text, vision_config={**TINY, "image_size": 32, "patch_size": 8}, projection_dim=12)
    CLIPModel(config).save_pretrained(tmp_path)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)
    vectors = Encoder(tmp_path).encode(list(pictures))
    assert vectors.shape == (3, 12)
    assert np.allclose(vectors[1], Encoder(tmp_path).encode([pictures[1]])[0], atol=1e-5)


def test_what_is_no_image_model_is_refused_in_one_line(
    run_component: Run, footage: Path, filtered: Any, vision_model: Path, tmp_path: Path
) -> None:
    def refusal(folder: Path) -> str:
        with pytest.raises(InputError) as refused:
            run_component("curate.embed", clips_uri=filtered.clips_uri, videos_uri=footage, encoder_uri=folder)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    words = tmp_path / "words"
    BertModel(BertConfig(**TINY, vocab_size=50)).save_pretrained(words)
    assert "must be a folder that holds preprocessor_config.json" in refusal(words)
    (words / "preprocessor_config.json").write_bytes((vision_model / "preprocessor_config.json").read_bytes())
    assert "must hold an image model, got BertModel" in refusal(words)

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (pickled / name).write_bytes((vision_model / name).read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"never read")
    assert "must be a folder that holds *.safetensors" in refusal(pickled)

    deeper = tmp_path / "deeper"
    deeper.mkdir()
    for path in vision_model.iterdir():
        (deeper / path.name).write_bytes(path.read_bytes())
    config = json.loads((deeper / "config.json").read_text())
    (deeper / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert "must hold all weights" in refusal(deeper)
