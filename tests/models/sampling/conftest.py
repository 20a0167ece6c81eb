"""A person's values arrive as they are typed: outside the suite no signature is checked."""

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def unchecked_signatures() -> Iterator[None]:
    """Let wrong types through to the checks of the code itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
