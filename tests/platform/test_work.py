"""Work has an address: what makes two calls the same work, and what makes them different."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from telecine.storage import Store

Letters = Callable[..., dict[str, Any]]


def test_equal_work_meets_at_one_commit(letters: Letters) -> None:
    first, second = letters(text="ab"), letters(text="ab", times=2)
    assert (first["decision"], second["decision"]) == ("ran", "reused")
    assert first["key"] == second["key"] and first["attempt"] == second["attempt"]
    assert first["outputs"] == second["outputs"]


def test_another_value_is_other_work_and_the_reason_names_it(letters: Letters) -> None:
    first, second = letters(times=2), letters(times=3)
    assert second["decision"] == "ran" and second["key"] != first["key"]
    assert second["reason"] == "times was 2, now 3"
