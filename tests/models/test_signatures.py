"""The suite checks every annotated shape; this proves that it does."""

import jaxtyping
import pytest
import torch

from telecine_models.flow import velocity


def test_a_shape_that_breaks_an_annotation_is_caught() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        velocity(torch.zeros(2, 3), torch.zeros(2, 4))
