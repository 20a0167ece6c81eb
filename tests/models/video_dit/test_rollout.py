"""Long videos: windows meet without a gap, the history stays clean, and nothing is learnt from it."""

import pytest
import torch
from torch import Tensor

from telecine_models.flow import flow_matching_loss, interpolate
from telecine_models.video_dit.action import Actions
from telecine_models.video_dit.rollout import (
    Rollout,
    actions_between,
    frame_times,
    keep_history,
    new_frames_loss,
    roll_out,
)

ROLLOUT = Rollout(window_frames=6, history_frames=2)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X0, NOISE = random(2, 3, 6, 4, 4), random(2, 3, 6, 4, 4, seed=1)


def continue_film(frames: range, history: Tensor) -> Tensor:
    """Stands for a model: what it makes depends on its history and on a seed of each latent frame."""
    last = ROLLOUT.history_frames + frames.start
    new = [history.mean(2) + random(2, 3, 1, 1, seed=seed) for seed in range(last, frames.stop)]
    return torch.stack(new, dim=2)


def test_windows_overlap_by_their_history_and_the_last_ends_with_the_video() -> None:
    assert ROLLOUT.windows(2, 14) == [range(0, 6), range(4, 10), range(8, 14)]
    assert ROLLOUT.windows(3, 12) == [range(1, 7), range(5, 11), range(9, 12)]
    assert ROLLOUT.windows(1, 6) == [range(0, 6)]
    assert ROLLOUT.windows(6, 6) == ROLLOUT.windows(7, 6) == []


@pytest.mark.parametrize("history", [1, 2, 5])
@pytest.mark.parametrize("window", [6, 9])
def test_the_length_is_one_history_and_the_new_frames_of_each_window(window: int, history: int) -> None:
    rollout = Rollout(window_frames=window, history_frames=history)
    for num_windows in range(1, 6):
        num_frames = history + num_windows * (window - history)
        windows = rollout.windows(history, num_frames)
        assert len(windows) == num_windows
        assert [frame for frames in windows for frame in frames[history:]] == list(range(history, num_frames))
        assert len(rollout.windows(history, num_frames + 1)) == num_windows + 1


def test_three_windows_at_once_are_three_windows_one_after_another() -> None:
    start = random(2, 3, 2, 4, 4, seed=2)
    film = roll_out(continue_film, start, ROLLOUT, 14)
    assert film.shape == (2, 3, 14, 4, 4)
    assert torch.equal(film[:, :, :2], start)
    latents = start
    for frames in (range(0, 6), range(4, 10), range(8, 14)):
        latents = torch.cat((latents, continue_film(frames, latents[:, :, -2:])), dim=2)
    assert torch.equal(film, latents)
    assert torch.equal(roll_out(continue_film, start, ROLLOUT, 2), start)


def test_each_window_gets_the_actions_that_lead_through_it() -> None:
    numbers = torch.arange(3.0 * 13).view(1, 39, 1).expand(1, 39, 2)
    actions = Actions(keys=torch.zeros(1, 39, 7, dtype=torch.bool), mouse=numbers, known=numbers[..., 0] > 15)
    seen = [actions_between(actions, frames, compression=3) for frames in ROLLOUT.windows(2, 14)]
    assert [part.mouse[0, :, 0].tolist() for part in seen] == [
        list(map(float, range(start, start + 15))) for start in (0, 12, 24)
    ]
    assert seen[1].keys.shape == (1, 15, 7)
    assert seen[1].known.tolist() == [[False] * 4 + [True] * 11]
    assert actions_between(Actions(keys=actions.keys, mouse=actions.mouse), range(0, 2), 3).known is None


def test_history_has_flow_time_zero_and_so_it_is_data() -> None:
    t = torch.tensor([0.25, 1.0])
    times = frame_times(t, num_frames=6, history_frames=2)
    assert times.tolist() == [[0, 0, 0.25, 0.25, 0.25, 0.25], [0, 0, 1, 1, 1, 1]]
    by_frame = torch.stack(
        [interpolate(X0[:, :, frame], NOISE[:, :, frame], times[:, frame]) for frame in range(6)], dim=2
    )
    assert torch.equal(keep_history(interpolate(X0, NOISE, t), X0[:, :, :2]), by_frame)


def test_noise_in_the_place_of_history_never_shows() -> None:
    other = NOISE.clone()
    other[:, :, :2] = 7
    history = X0[:, :, :2]
    assert torch.equal(keep_history(NOISE, history), keep_history(other, history))
    assert torch.equal(keep_history(NOISE, history)[:, :, 2:], NOISE[:, :, 2:])


def test_nothing_is_learnt_from_history() -> None:
    output = random(2, 3, 6, 4, 4, seed=3).requires_grad_()
    new_frames_loss(output, X0, NOISE, 2).sum().backward()
    assert output.grad[:, :, :2].abs().max() == 0
    assert (output.grad[:, :, 2:] != 0).all()


def test_the_loss_is_the_mean_over_new_frames_alone() -> None:
    output = (NOISE - X0).clone()
    output[:, :, 0] += 100
    output[:, :, 2:] += 3
    torch.testing.assert_close(new_frames_loss(output, X0, NOISE, 2), torch.full((2,), 9.0))
    torch.testing.assert_close(new_frames_loss(output, X0, NOISE, 0), flow_matching_loss(output, X0, NOISE))


@pytest.mark.parametrize("history", [0, 6, 7])
def test_a_window_needs_history_and_a_new_frame(history: int) -> None:
    with pytest.raises(ValueError, match=rf"history_frames must lie in \[1, window_frames\), got {history} with .* 6"):
        Rollout(window_frames=6, history_frames=history)
