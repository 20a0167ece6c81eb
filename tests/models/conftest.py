"""Every signature of telecine_models is checked while these tests run: shapes by jaxtyping, types by beartype."""

from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("telecine_models", "beartype.beartype")

from telecine_models.video_dit.model import VideoDiT  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums depend on the number of threads, and tiny tensors gain nothing from a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def awake_model() -> Callable[..., VideoDiT]:
    """A tiny model whose zero-initialised parts are filled, so that every path through it shows in the output."""

    def build(**sizes: Any) -> VideoDiT:
        torch.manual_seed(0)
        model = VideoDiT(**({"num_layers": 2, "num_heads": 2, "head_dim": 16, "text_dim": 8} | sizes))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.eval()
        return model

    return build


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As in production, where nobody checks annotations before the model sees its arguments."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
