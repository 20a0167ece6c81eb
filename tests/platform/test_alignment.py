"""What a loop of alignment ends with, and what its question shows, by themselves."""

import pytest

from telecine.alignment import PICTURE, _body, judged


def figures(reward: float, win_rate: float, low: float, high: float) -> dict[str, float]:
    rates = {"win_rate": win_rate, "win_rate_low": low, "win_rate_high": high}
    return {"reward_reference": 0.3, "reward": reward, **rates}


BETTER, EVEN, WORSE = figures(0.5, 0.7, 0.55, 0.8), figures(0.4, 0.55, 0.45, 0.6), figures(0.2, 0.3, 0.2, 0.4)


@pytest.mark.parametrize(
    ("rounds", "kept", "words"),
    [
        ([], 0, ""),
        ([BETTER], 1, "better: win rate 0.70 [0.55, 0.80] over the base; the model of round 1 is kept"),
        ([BETTER, WORSE], 1, "round 1, the best by reward, is better"),
        ([EVEN, BETTER, WORSE], 2, "the model of round 2 is kept"),
        ([EVEN], 0, "not better: win rate 0.55 [0.45, 0.60] over the base; the base model stays"),
        ([WORSE], 0, "round 1, the best by reward, is worse"),
    ],
)
def test_a_model_is_kept_only_where_it_beats_the_base(rounds: list[dict[str, float]], kept: int, words: str) -> None:
    number, said = judged(rounds)
    assert number == kept
    assert words in "; ".join(said)


def test_a_caption_writes_no_markdown_into_the_question() -> None:
    pairs = {"pair_01": {"prompt": "a | b\n[click](https://elsewhere) <img src=x>"}}
    text = _body(pairs, {PICTURE: "`pairs.png`", "pair-01.mp4": "`pair-01.mp4`"}, "file:///films")
    assert r"| pair_01 | a \| b \[click\]\(https://elsewhere\) \<img src=x\> | `pair-01.mp4` |" in text.splitlines()
    assert "signed" not in text
    signed = _body(pairs, {PICTURE: "[p](http://s/p?X-Amz-Signature=0)", "pair-01.mp4": "[f](f)"}, "s3://b/films")
    assert "The films lie in `s3://b/films`; a signed link into it lives at most 60 minutes." in signed
