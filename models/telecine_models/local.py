"""Models that are loaded by path: safetensors only, without a network, and exact to the bit."""

import os
from typing import Any, TypeVar

import torch

Model = TypeVar("Model", bound="FromFolder")


class FromFolder:
    """Stands before diffusers' ModelMixin, whose loader takes other formats too and rounds what is to stay exact."""

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name_or_path: str | os.PathLike[Any] | None,
        *,
        torch_dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> Model:
        """Load a folder that ``save_pretrained`` wrote; outputs equal the saved model's to the bit.

        Weights mapped from a file are not aligned in memory as allocated ones are, and matrix products of unaligned
        operands round differently on a CPU; so the weights are copied.

        Args:
            torch_dtype: taken on after loading, so that what a model keeps in float32 keeps what was saved.
        """
        strict = {"use_safetensors": True, "local_files_only": True}
        model: Any = super().from_pretrained(pretrained_model_name_or_path, **(kwargs | strict))  # type: ignore[misc]
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        if torch_dtype is not None:
            model.to(dtype=torch_dtype)
        loaded: Model = model
        return loaded
