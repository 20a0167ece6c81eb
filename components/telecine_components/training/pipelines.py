"""The one way to load the folder of a trained model: its pipeline, and the LoRA that lies beside the weights."""

from pathlib import Path

from telecine.errors import InputError
from telecine_components.training import lora
from telecine_models.pipeline import TelecinePipeline

_INDEX = "model_index.json"


def load_pipeline(folder: Path, *, lora_scale: float) -> TelecinePipeline:
    """Load what pretrain.train or align.tune wrote; the pipeline's bar is off.

    A LoRA in the folder is added to the weights, so that what is loaded films, is tuned and is saved like any other
    model. The sum is a function of the number of threads; load where that is fixed.

    Args:
        lora_scale: what the LoRA is multiplied with: 1 as it was learned, 0 to be without it, to the bit.

    Raises:
        InputError: no pipeline in the folder, one of which a part is missing or broken, or a LoRA that is not of it.
    """
    if not (folder / _INDEX).is_file():
        raise InputError(
            f"{folder}: no {_INDEX} in it; pass a pipeline folder as pretrain.train or align.tune writes it, "
            "not the transformer of a Wan"
        )
    try:
        pipeline = TelecinePipeline.from_pretrained(folder)
    except (OSError, ValueError) as error:
        # What diffusers says of files that lack or do not fit has no number; what the disk says has one.
        if getattr(error, "errno", None) is not None:
            raise
        line = str(error).partition("\n")[0][:200].strip(" .")
        raise InputError(f"{folder}: its parts do not load as one pipeline: {line}; copy the whole folder") from error
    # It leaves what its files lack without a value.
    if empty := [name for name, parameter in pipeline.transformer.named_parameters() if parameter.is_meta]:
        raise InputError(f"{folder}: its transformer has no weights for {empty[0]}; copy the whole folder")
    pipeline.set_progress_bar_config(disable=True)
    if lora_scale and (folder / lora.FOLDER).is_dir():
        lora.load_lora(pipeline.transformer, folder / lora.FOLDER)
        lora.merge_lora(pipeline.transformer, lora_scale)
    return pipeline
