"""Where a component's image is found: one for each dependency set that a component can name.

TELECINE_IMAGE_PREFIX   registry and folder before the name, ending in / (default: localhost/)
TELECINE_IMAGE_TAG      tag                                            (default: Telecine's version)
"""

import os
from collections.abc import Mapping

import telecine
from telecine.errors import InputError

SETS = ("airflow", "curate", "train", "serve", "monitor")


def name(image_set: str, environment: Mapping[str, str] = os.environ) -> str:
    """The full name of an image, such as ``localhost/telecine-train:0.1.0``.

    Args:
        image_set: one of :data:`SETS`; a component's ``image``.

    Raises:
        InputError: there is no such set.
    """
    if image_set not in SETS:
        raise InputError(f"there is no image {image_set!r}; known: {', '.join(SETS)}")
    prefix = environment.get("TELECINE_IMAGE_PREFIX") or "localhost/"
    tag = environment.get("TELECINE_IMAGE_TAG") or telecine.__version__
    return f"{prefix.rstrip('/')}/telecine-{image_set}:{tag}"
