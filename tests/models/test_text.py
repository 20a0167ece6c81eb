"""The hashing text encoder: what it tells apart, what it ignores, and that it never changes."""

from typing import Any

import pytest
import torch

from telecine_models.backlot import film
from telecine_models.text import HashTextEncoder

ENCODER = HashTextEncoder(text_dim=32, max_tokens=12)


def test_shapes_and_mask_follow_the_words() -> None:
    tokens, mask = ENCODER.encode(["a red circle", "one two three four"])
    assert tokens.shape == (2, 12, 32)
    assert tokens.dtype == torch.float32
    assert mask.sum(1).tolist() == [3, 4]
    assert tokens[~mask].abs().max() == 0


def test_empty_caption_has_no_token() -> None:
    assert not ENCODER.encode(["", " ,.!"])[1].any()


def test_case_and_punctuation_do_not_matter_but_words_and_their_order_do() -> None:
    tokens, _ = ENCODER.encode(["a red circle", "A red, circle!", "a red square", "a circle red"])
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.allclose(tokens[0], tokens[2])
    assert not torch.allclose(tokens[0], tokens[3])


def test_words_beyond_the_limit_are_dropped() -> None:
    tokens, mask = ENCODER.encode([" ".join("abcdefghijklmnop"), " ".join("abcdefghijkl")])
    assert mask.all()
    assert torch.equal(tokens[0], tokens[1])


def test_a_caption_is_encoded_alike_in_any_batch() -> None:
    alone, _ = ENCODER.encode(["two blue squares"])
    together, _ = ENCODER.encode(["something else entirely", "two blue squares", ""])
    assert torch.equal(alone[0], together[1])


def test_all_words_of_backlot_have_vectors_of_their_own() -> None:
    captions = [shot["caption"] for seed in range(40) for shot in film_of(seed)["shots"]]
    words = sorted({word for caption in captions for word in caption.split()})
    assert len(words) > 30
    vectors = HashTextEncoder().encode(words)[0][:, 0]
    distances = torch.cdist(vectors, vectors) + 1e9 * torch.eye(len(words))
    assert distances.min() > 4


def test_the_table_depends_on_nothing_but_the_seed() -> None:
    torch.manual_seed(1)
    assert torch.equal(HashTextEncoder(seed=3).table, HashTextEncoder(seed=3).table)
    assert not torch.equal(HashTextEncoder(seed=3).table, HashTextEncoder(seed=4).table)
    assert not list(ENCODER.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_dim": 7}, "text_dim must be even"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"num_buckets": 0}, "num_buckets"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HashTextEncoder(**settings)


def film_of(seed: int) -> dict[str, Any]:
    return film(seed, num_frames=30, fps=5, width_px=16, height_px=16).truth
