"""The pipeline with more than a prompt: what is given stays, what is asked changes, what does not fit is named."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from telecine_models.pipeline import TelecinePipeline
from telecine_models.pipeline_inputs import Inputs, shrink_mask
from telecine_models.text import HashTextEncoder
from telecine_models.vae import Compression, IdentityVAE
from telecine_models.video_dit.action import ActionControl, Actions
from telecine_models.video_dit.config import KINDS, METRICS
from telecine_models.video_dit.model import VideoDiT

Build = Callable[..., VideoDiT]
FRAMES, HEIGHT, WIDTH = 4, 8, 12
SIZE: dict[str, Any] = {"num_frames": FRAMES, "height_px": HEIGHT, "width_px": WIDTH, "num_steps": 2}
PROMPT = "a red circle moves left"
RNG = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)


PICTURE, VIDEO = pixels(HEIGHT, WIDTH), pixels(FRAMES, HEIGHT, WIDTH)
MASK = np.zeros((FRAMES, HEIGHT, WIDTH), dtype=bool)
MASK[:, 2:6, 4:9] = True
POSES = np.tile(np.eye(3, 4), (FRAMES, 1, 1))
GIVEN: dict[str, dict[str, Any]] = {
    "first_frame": {"first_frame": PICTURE},
    "last_frame": {"last_frame": PICTURE},
    "source": {"source": VIDEO, "source_mask": MASK},
    "depth": {"depth": RNG.random((FRAMES, HEIGHT, WIDTH))},
    "sketch": {"sketch": RNG.random((FRAMES, HEIGHT, WIDTH))},
    "camera": {"camera": POSES + 0.3 * np.arange(FRAMES)[:, None, None]},
    "elements": {"elements": [pixels(8, 4), pixels(8, 4)]},
    "style": {"style": pixels(4, 8)},
}


def actions(num: int, pressed: int = 0) -> Actions:
    keys = torch.zeros(1, num, 7, dtype=torch.bool)
    keys[:, :, pressed] = True
    return Actions(keys=keys, mouse=torch.full((1, num, 2), 5.0))


def quiet(pipeline: TelecinePipeline) -> TelecinePipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline(awake_model: Build) -> TelecinePipeline:
    """Knows everything, and is steered; half the strength of a trained model's weights keeps pixels unclamped."""
    model = awake_model(text_dim=16, conditions=KINDS, metrics=METRICS)
    control = ActionControl(width=model.size.width, num_layers=2, head_dim=16, compression=1)
    for parameter in [*model.parameters(), *control.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    return quiet(TelecinePipeline(model, HashTextEncoder(text_dim=16, max_tokens=8), action_control=control.eval()))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_changes_the_video_for_every_prompt(pipeline: TelecinePipeline, kind: str) -> None:
    plain = pipeline([PROMPT, "a blue square"], **SIZE)
    seen = pipeline([PROMPT, "a blue square"], **SIZE, inputs=Inputs(**GIVEN[kind]))
    inside = seen[:, 1:-1, 3:5, 5:8]
    assert all((inside[i] != plain[i, 1:-1, 3:5, 5:8]).any() for i in (0, 1))


def test_an_image_is_a_video_of_one_frame(pipeline: TelecinePipeline) -> None:
    image = pipeline(PROMPT, **(SIZE | {"num_frames": 1}), inputs=Inputs(**GIVEN["elements"]))
    assert image.shape == (1, 1, HEIGHT, WIDTH, 3)


def test_a_video_begins_and_ends_with_the_given_frames(pipeline: TelecinePipeline) -> None:
    video = pipeline(PROMPT, **SIZE, inputs=Inputs(first_frame=PICTURE, last_frame=PICTURE[::-1].copy()))[0]
    assert np.array_equal(video[0], PICTURE)
    assert np.array_equal(video[-1], PICTURE[::-1])


def test_an_edit_touches_nothing_outside_of_its_mask(pipeline: TelecinePipeline) -> None:
    video = pipeline(PROMPT, **SIZE, inputs=Inputs(**GIVEN["source"]))[0]
    assert np.array_equal(video[~MASK], VIDEO[~MASK])
    assert (video[MASK] != VIDEO[MASK]).mean() > 0.9
    nothing = Inputs(source=VIDEO, source_mask=np.zeros_like(MASK))
    assert np.array_equal(pipeline(PROMPT, **SIZE, inputs=nothing)[0], VIDEO)


def test_a_longer_video_begins_with_the_given_one(pipeline: TelecinePipeline) -> None:
    longer = pipeline(PROMPT, **(SIZE | {"num_frames": 9}), extend=VIDEO, window_frames=4)[0]
    assert longer.shape == (9, HEIGHT, WIDTH, 3)
    assert np.array_equal(longer[:FRAMES], VIDEO)
    other = pipeline(PROMPT, **(SIZE | {"num_frames": 9}), extend=VIDEO[::-1].copy(), window_frames=4)[0]
    assert (longer[FRAMES:] != other[FRAMES:]).any()


def test_windows_one_call_after_another_are_the_windows_of_one_call(pipeline: TelecinePipeline) -> None:
    """With a window of two frames each frame follows from the one before, and the noise of a frame is its own."""
    longer = pipeline(PROMPT, **(SIZE | {"num_frames": 5, "guidance_scale": 1.0}), extend=VIDEO[:3], window_frames=2)
    again = pipeline(PROMPT, **(SIZE | {"num_frames": 5, "guidance_scale": 1.0}), extend=longer[0, :4], window_frames=2)
    # The second call sees the fourth frame as it was rounded to pixels.
    assert np.abs(longer[0].astype(int) - again[0]).max() <= 4


def test_a_player_steers_also_a_video_that_goes_on(pipeline: TelecinePipeline) -> None:
    left, right = (pipeline(PROMPT, **SIZE, actions=actions(FRAMES - 1, pressed)) for pressed in (1, 2))
    assert (left != right).any()
    played = [
        pipeline(PROMPT, **(SIZE | {"num_frames": 8}), extend=VIDEO, window_frames=4, actions=actions(7, pressed))
        for pressed in (1, 2)
    ]
    assert np.array_equal(played[0][0, :FRAMES], VIDEO)
    assert (played[0][0, FRAMES:] != played[1][0, FRAMES:]).any()


def test_the_best_of_every_metric_is_the_default(pipeline: TelecinePipeline) -> None:
    best = pipeline(PROMPT, **SIZE, metrics=dict.fromkeys(METRICS, 1.0))
    assert np.array_equal(pipeline(PROMPT, **SIZE), best)
    assert (pipeline(PROMPT, **SIZE, metrics={"motion": 0.1}) != best).any()


def test_every_evaluation_is_told_and_what_is_raised_ends_the_call(pipeline: TelecinePipeline) -> None:
    told: list[tuple[int, int]] = []
    pipeline(PROMPT, **SIZE, method="heun", on_evaluation=lambda done, total: told.append((done, total)))
    assert told == [(done, 4) for done in range(4)]

    def stop(done: int, total: int) -> None:
        if done == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        pipeline(PROMPT, **SIZE, on_evaluation=stop)


# In the latent space of a causal autoencoder


@pytest.fixture
def latent(awake_model: Build) -> TelecinePipeline:
    """Four frames in one but for the first, an eighth of each side."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4
    )
    model = awake_model(text_dim=16, in_channels=4, patch_size=(1, 2, 2), conditions=KINDS)
    control = ActionControl(width=model.size.width, num_layers=1, head_dim=16, compression=4)
    return quiet(TelecinePipeline(model, HashTextEncoder(text_dim=16, max_tokens=8), vae, control))


LATENT_SIZE: dict[str, Any] = {"num_frames": 9, "height_px": 16, "width_px": 32, "num_steps": 1}


def test_in_latent_space_all_inputs_find_their_frames(latent: TelecinePipeline) -> None:
    video, mask = pixels(9, 16, 32), np.zeros((9, 16, 32), dtype=bool)
    mask[5:] = True
    given = Inputs(
        first_frame=video[0],
        source=video,
        source_mask=mask,
        depth=RNG.random((9, 16, 32)),
        camera=np.tile(np.eye(3, 4), (9, 1, 1)),
        elements=[pixels(16, 16)],
        style=pixels(16, 16),
    )
    made = latent(PROMPT, **LATENT_SIZE, inputs=given, actions=actions(8))[0]
    assert np.array_equal(made[:5], video[:5])
    longer = latent(PROMPT, **LATENT_SIZE, extend=video[:5], window_frames=5)[0]
    assert np.array_equal(longer[:5], video[:5])


def test_a_mask_is_one_where_any_of_its_pixels_is() -> None:
    mask = np.zeros((5, 4, 4), dtype=bool)
    mask[0, 0, 0] = mask[3, 3, 1] = True
    small = shrink_mask(mask, Compression(frames=4, height=2, width=2))
    assert small.tolist() == [[[[1, 0], [0, 0]], [[0, 0], [1, 0]]]]


def test_a_saved_pipeline_keeps_its_autoencoder_and_its_controls(latent: TelecinePipeline, tmp_path: Path) -> None:
    latent.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    again = quiet(TelecinePipeline.from_pretrained(tmp_path))
    asked = LATENT_SIZE | {"actions": actions(8)}
    assert np.array_equal(again(PROMPT, **asked), latent(PROMPT, **asked))


# What does not fit is named


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_frame": pixels(4, WIDTH)}, r"first_frame must be uint8 \[8, 12, 3\], got uint8 \[4, 12, 3\]"),
        ({"first_frame": PICTURE / 255}, r"first_frame must be uint8 \[8, 12, 3\], got float64"),
        ({"source": VIDEO}, "source and source_mask must be given together, got source alone"),
        ({"source_mask": MASK}, "source and source_mask must be given together, got source_mask alone"),
        ({"source": VIDEO, "source_mask": np.ones((FRAMES, HEIGHT, 16), bool)}, r"must be a mask inside the video"),
        ({"depth": np.full((FRAMES, HEIGHT, WIDTH), np.nan)}, "depth must be finite, got nan"),
        ({"depth": np.full((FRAMES, HEIGHT, WIDTH), 1.5)}, r"depth must lie in \[0, 1\], got 1.5 to 1.5"),
        ({"camera": POSES[:2]}, r"camera must be floats \[4, 3, 4\], got float64 \[2, 3, 4\]"),
        ({"camera": np.where(POSES == 1, np.inf, POSES)}, "camera must be finite, got inf"),
        ({"elements": [PICTURE] * 5}, "elements must be 1 to 4 pictures, got 5"),
        ({"elements": []}, "elements must be 1 to 4 pictures, got 0"),
        ({"elements": [pixels(8, 4), pixels(4, 4)]}, r"elements must be pictures of one size, got \[\(4, 4, 3\), "),
        ({"elements": [pixels(8, 4)[..., 0]]}, r"elements\[0\] must be uint8 \['any', 'any', 3\], got uint8 \[8, 4\]"),
    ],
)
def test_an_input_that_does_not_fit_is_named(
    unchecked: None, pipeline: TelecinePipeline, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(PROMPT, **SIZE, inputs=Inputs(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extend": VIDEO}, "extend must be shorter than num_frames 4, got 4"),
        ({"extend": VIDEO[:0]}, "the length of extend must be a positive multiple of 1 .*, got 0"),
        ({"extend": VIDEO[:, :4]}, r"extend must be uint8 \[f, 8, 12, 3\], got uint8 \[4, 4, 12, 3\]"),
        ({"extend": VIDEO[:2], "window_frames": 1}, "window_frames must hold known frames and new ones, got 1"),
        (
            {"extend": VIDEO[:2], "inputs": Inputs(**GIVEN["depth"])},
            r"in windows, inputs may hold elements and style, got \['depth'\]",
        ),
        (
            {"window_frames": 2, "inputs": Inputs(**GIVEN["first_frame"])},
            r"in windows, inputs may hold elements and style, got \['first_frame'\]",
        ),
        ({"inputs": Inputs(style=pixels(6, 8))}, r"style must be of sides that are positive multiples of 4 .*\[6, 8\]"),
        ({"metrics": {"motion": float("nan")}}, r"metrics must be of \['motion'.* and in \[0, 1\], got motion=nan"),
        ({"metrics": {"motion": 7.0}}, "got motion=7.0"),
        ({"actions": actions(2)}, r"actions must be shaped \[1, 3, K\], one action .*, got \[1, 2, 7\]"),
        ({"metrics": {"beauty": 1.0}}, "metrics must be of .*, got beauty=1.0"),
    ],
)
def test_a_wish_that_does_not_fit_is_named(pipeline: TelecinePipeline, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(PROMPT, **(SIZE | change))


def test_a_model_that_never_learned_a_condition_says_so(awake_model: Build) -> None:
    plain = quiet(TelecinePipeline(awake_model(text_dim=16), HashTextEncoder(text_dim=16)))
    with pytest.raises(ValueError, match=r"this model knows \[\], got \['depth'\]"):
        plain(PROMPT, **SIZE, inputs=Inputs(**GIVEN["depth"]))
    with pytest.raises(ValueError, match="actions need a pipeline with action_control, this one has none"):
        plain(PROMPT, **SIZE, actions=actions(3))
    control = ActionControl(width=32, num_layers=1, compression=1)
    coarse = TelecinePipeline(awake_model(text_dim=16, patch_size=(2, 4, 4)), HashTextEncoder(16), None, control)
    with pytest.raises(ValueError, match="actions need a model whose patch has 1 frame, got 2"):
        coarse(PROMPT, **SIZE, actions=actions(3))


def test_every_condition_has_an_input_of_its_name() -> None:
    assert {field.name for field in dataclasses.fields(Inputs)} == {*KINDS, "source_mask"}


# What a pipeline is made of


def test_with_experts_a_video_does_not_change_with_the_others_of_its_batch(awake_model: Build) -> None:
    model = awake_model(text_dim=16, num_layers=4, num_experts=4).train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    for layer in model.mixtures:
        layer.thresholds.fill_(0.5)
    made = quiet(TelecinePipeline(model, HashTextEncoder(text_dim=16, max_tokens=8)))
    together, alone = made([PROMPT, "a blue square"], **SIZE), made(PROMPT, **SIZE)
    assert np.abs(together[0].astype(int) - alone[0]).max() <= 1
    assert model.training, "a model that is in the middle of its training goes on with it"


def test_a_coarse_model_goes_on_in_whole_patches(awake_model: Build) -> None:
    made = quiet(TelecinePipeline(awake_model(text_dim=16, patch_size=(2, 4, 4)), HashTextEncoder(text_dim=16)))
    longer = made(PROMPT, **(SIZE | {"num_frames": 8}), extend=VIDEO, window_frames=6)[0]
    assert np.array_equal(longer[:FRAMES], VIDEO)
    with pytest.raises(ValueError, match="the length of extend must be a positive multiple of 2 .*, got 3"):
        made(PROMPT, **(SIZE | {"num_frames": 8}), extend=VIDEO[:3])
    with pytest.raises(ValueError, match="window_frames must be a positive multiple of 2 .*, got 3"):
        made(PROMPT, **(SIZE | {"num_frames": 8}), extend=VIDEO, window_frames=3)


def test_a_video_to_go_on_from_has_as_many_frames_as_latents_stand_for(latent: TelecinePipeline) -> None:
    with pytest.raises(ValueError, match=r"the length of extend must be 1 \+ 4 n, .*, got 6"):
        latent(PROMPT, **LATENT_SIZE, extend=pixels(6, 16, 32))
    with pytest.raises(ValueError, match=r"window_frames must be 1 \+ 4 n, .*, got 6"):
        latent(PROMPT, **LATENT_SIZE, window_frames=6)
    with pytest.raises(ValueError, match=r"num_frames must be 1 \+ 4 n, .*, got 8"):
        latent(PROMPT, **(LATENT_SIZE | {"num_frames": 8}))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"text_encoder": HashTextEncoder(text_dim=8)}, "text_dim of transformer must be 8, as .* gives, got 16"),
        ({"vae": IdentityVAE(in_channels=4)}, "in_channels of transformer must be 4, as .* have, got 3"),
        ({"action_control": ActionControl(width=64, num_layers=1)}, "width of action_control must be 32, .*, got 64"),
        (
            {"action_control": ActionControl(width=32, num_layers=1)},
            "compression of action_control must be 1, .* 4",
        ),
    ],
)
def test_parts_that_do_not_fit_each_other_are_named(awake_model: Build, part: dict[str, Any], message: str) -> None:
    parts = {"transformer": awake_model(text_dim=16), "text_encoder": HashTextEncoder(text_dim=16)} | part
    with pytest.raises(ValueError, match=f"TelecinePipeline: {message}"):
        TelecinePipeline(**parts)
