"""Rotary positions: they keep lengths, and only distances between tokens count."""

import torch

from telecine_models.video_dit.rope import grid_angles, rotate, turn_of

CPU = torch.device("cpu")
GRID = (3, 4, 5)
ANGLES = grid_angles(GRID, 32, CPU)


def place(frame: int, row: int, column: int) -> int:
    return (frame * GRID[1] + row) * GRID[2] + column


def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Attention scores [query, key] if every token had the same query and key content."""
    num_tokens = len(ANGLES)
    turned_q, turned_k = (rotate(x.expand(1, 1, num_tokens, -1), turn_of(ANGLES))[0, 0] for x in (q, k))
    return turned_q @ turned_k.T


def test_a_score_depends_on_the_distance_in_time_height_and_width_only() -> None:
    q, k = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    score = scores(q, k)
    for step in ((1, 0, 0), (0, 2, 0), (0, 0, 3), (1, 2, 1)):
        here = [score[place(0, 0, 0), place(*step)], score[place(0, 0, 1), place(step[0], step[1], step[2] + 1)]]
        later = score[place(1, 1, 1), place(1 + step[0], 1 + step[1], 1 + step[2])]
        torch.testing.assert_close(torch.stack(here), later.expand(2), rtol=1e-4, atol=1e-4)
    assert len(set(score[0].tolist())) == len(ANGLES)


def test_the_first_token_is_not_turned_and_no_token_changes_its_length() -> None:
    x = torch.randn(2, 3, len(ANGLES), 32, generator=torch.Generator().manual_seed(1))
    turned = rotate(x, turn_of(ANGLES))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_each_axis_turns_its_own_share_of_the_channel_pairs() -> None:
    moved = [(ANGLES[place(*step)] != 0).nonzero().flatten().tolist() for step in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert moved == [list(range(4)), list(range(4, 10)), list(range(10, 16))]
