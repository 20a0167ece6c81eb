"""align.collect: films in the layout that the loader reads, equal noise for each prompt and seed, pairs to look at."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from telecine.errors import InputError
from telecine_components.align import films
from telecine_components.training.loader import Loader, read_index
from telecine_models.backlot.caption import is_held_out
from telecine_models.pipeline import TelecinePipeline


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def store(round_: Any) -> Path:
    return Path(round_.trained.deployment.home / "store")


def test_the_loader_reads_the_films_that_the_model_makes(first_round: Any) -> None:
    samples = read_index(local(first_round.films.films_uri) / "index.parquet")
    assert len(samples) == first_round.films.num_films == 3 * 4
    loader = Loader(samples, lambda shard: store(first_round) / shard, seed=0)
    pipeline = TelecinePipeline.from_pretrained(local(first_round.trained.outputs.model_uri))
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    prompts = [sample.caption for sample in samples[:3]]
    again = pipeline(prompts, num_frames=2, height_px=8, width_px=8, num_steps=3, guidance_scale=2.0, seed=0)
    for place in range(3):
        assert np.abs(loader.frames(place).astype(int) - again[place].astype(int)).max() <= 1


def test_with_one_checkpoint_a_pair_is_two_seeds_of_one_prompt(first_round: Any) -> None:
    folder = local(first_round.films.films_uri)
    rows = {row["sample_id"]: row for row in films.read_rows(folder, owner="test")}
    pairs = films.read_pairs(folder)
    assert len(pairs) == first_round.films.num_pairs == 4
    assert {pair.prompt for pair in pairs} == {row["caption"] for row in rows.values()}, "spread over the prompts"
    for pair in pairs:
        assert rows[pair.a]["caption"] == rows[pair.b]["caption"] == pair.prompt
        assert abs(rows[pair.a]["seed"] - rows[pair.b]["seed"]) == 1
    assert len({name for pair in pairs for name in (pair.a, pair.b)}) == 2 * len(pairs)


def test_two_checkpoints_film_every_prompt_from_equal_noise(first_round: Any, collect_inputs: dict[str, Any]) -> None:
    uris = {"model_uri": first_round.tuned.model_uri, "reference_uri": first_round.trained.outputs.model_uri}
    outputs = first_round.trained.run("align.collect", **uris, **collect_inputs | {"max_pairs": 16})
    rows = {row["sample_id"]: row for row in films.read_rows(local(outputs.films_uri), owner="test")}
    assert len(rows) == 2 * first_round.films.num_films
    pairs = films.read_pairs(local(outputs.films_uri))
    for pair in pairs:
        a, b = rows[pair.a], rows[pair.b]
        assert (a["caption"], a["seed"]) == (b["caption"], b["seed"])
        assert {a["maker"], b["maker"]} == {"model", "reference"}
    assert len({rows[pair.a]["maker"] for pair in pairs}) == 2, "A is not always the same model"


def test_a_lora_films_beside_its_base_and_another_scale_is_filmed_again(
    first_round: Any, with_lora: Any, collect_inputs: dict[str, Any]
) -> None:
    uris = {"model_uri": with_lora.model_uri, "reference_uri": first_round.trained.outputs.model_uri}
    seen = []
    for scale in (1, 0):
        outputs = first_round.trained.run("align.collect", **uris, **collect_inputs, lora_scale=scale)
        samples = read_index(local(outputs.films_uri) / "index.parquet")
        loader = Loader(samples, lambda shard: store(first_round) / shard, seed=0)
        rows = films.read_rows(local(outputs.films_uri), owner="test")
        made = {(row["caption"], row["seed"], row["maker"]): loader.frames(at) for at, row in enumerate(rows)}
        seen.append([made[each] - made[*each[:2], "reference"] for each in made if each[2] == "model"])
    assert any(difference.any() for difference in seen[0])
    assert not any(difference.any() for difference in seen[1])


def test_a_seed_is_an_item_so_more_seeds_film_only_what_is_new(
    first_round: Any, collect_inputs: dict[str, Any]
) -> None:
    uri = first_round.trained.outputs.model_uri
    items = store(first_round) / "work/align.collect/items"
    before = {path.parent.name: path.stat().st_mtime_ns for path in items.glob("*/commit.json")}
    values = collect_inputs | {"num_seeds": 5}
    outputs = first_round.trained.run("align.collect", model_uri=uri, reference_uri=uri, **values)
    after = {path.parent.name: path.stat().st_mtime_ns for path in items.glob("*/commit.json")}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()
    rows = pq.read_table(local(outputs.films_uri) / "index.parquet").to_pylist()
    first = pq.read_table(local(first_round.films.films_uri) / "index.parquet").to_pylist()
    assert rows[: len(first)] == first


def test_each_pair_is_a_film_to_watch_and_a_row_of_the_picture(first_round: Any) -> None:
    preview = local(first_round.films.preview_uri)
    assert sorted(path.name for path in preview.iterdir()) == [f"pair-0{n}.mp4" for n in (1, 2, 3, 4)] + ["pairs.png"]
    with av.open(str(preview / "pair-01.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (2 * 8 * 4 + 14, 8 * 4)


def test_prompts_that_are_drawn_are_never_held_out_and_change_with_the_round(
    first_round: Any, collect_inputs: dict[str, Any]
) -> None:
    uri = first_round.trained.outputs.model_uri
    drawn = []
    for number in (1, 2):
        values = collect_inputs | {"prompts": [], "num_prompts": 3, "num_seeds": 1, "num_steps": 1, "round": number}
        outputs = first_round.trained.run("align.collect", model_uri=uri, reference_uri=uri, **values)
        rows = films.read_rows(local(outputs.films_uri), owner="test")
        drawn.append({row["caption"] for row in rows})
        assert {row["seed"] for row in rows} == {number - 1}
    assert not any(is_held_out(caption) for caption in drawn[0] | drawn[1])
    assert drawn[0] != drawn[1]


def test_nothing_committed_names_a_place(first_round: Any) -> None:
    folder = local(first_round.films.films_uri)
    home = str(first_round.trained.deployment.home)
    assert home not in (folder / "pairs.json").read_text()
    assert home not in json.dumps(pq.read_table(folder / "index.parquet").to_pylist())


def test_repeated_prompts_are_refused(first_round: Any, collect_inputs: dict[str, Any]) -> None:
    uri = first_round.trained.outputs.model_uri
    values = collect_inputs | {"prompts": [collect_inputs["prompts"][0]] * 2}
    with pytest.raises(InputError, match="prompts must all differ, got 1 repeated"):
        first_round.trained.run("align.collect", model_uri=uri, reference_uri=uri, **values)
