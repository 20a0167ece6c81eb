"""Any image model of transformers by path: safetensors only, no network, none of the folder's code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoImageProcessor, AutoModel

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

NEEDED = ("config.json", "preprocessor_config.json", "*.safetensors")


class Encoder:
    """Pictures to vectors of length 1, with the preparation that the model was trained with."""

    def __init__(self, folder: Path) -> None:
        """Load the model.

        Raises:
            ValueError: no such folder, no safetensors, weights missing from them, or no model of images.
        """
        for pattern in NEEDED:
            if not list(folder.glob(pattern)):
                raise ValueError(f"encoder_uri must be a folder that holds {pattern}, and {folder} does not")
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._prepare = AutoImageProcessor.from_pretrained(folder, **local)
            self._model, loading = AutoModel.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **local
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"encoder_uri must hold an image model; {folder}: {str(error).splitlines()[0]}") from error
        if loading["missing_keys"]:
            raise ValueError(f"encoder_uri must hold all weights; {folder} lacks {sorted(loading['missing_keys'])[0]}")
        if not hasattr(self._model, "get_image_features") and self._model.main_input_name != "pixel_values":
            raise ValueError(f"encoder_uri must hold an image model, got {type(self._model).__name__} in {folder}")
        self._model.eval()
        for parameter in self._model.parameters():
            # Mapped from a file they are not aligned as allocated ones are, and unaligned products round differently.
            parameter.data = parameter.data.clone()

    def encode(self, pictures: Sequence[Pixels]) -> Vectors:
        """Vectors [P, D] of length 1 of P pictures (uint8 [h, w, 3], RGB, of any size)."""
        prepared = self._prepare(images=list(pictures), return_tensors="pt")
        look = getattr(self._model, "get_image_features", self._model)
        with torch.inference_mode():
            seen = look(pixel_values=prepared["pixel_values"])
        pooled = getattr(seen, "pooler_output", None)
        vectors = seen.last_hidden_state.mean(dim=1) if pooled is None else pooled
        unit: Vectors = torch.nn.functional.normalize(vectors.flatten(1).float(), dim=1).numpy()
        return unit
