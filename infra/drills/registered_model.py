"""Load a registered version as anybody would, and film with it: ``registered_model.py NAME ALIAS FOLDER``.

MLflow's registry says where the weights lie; they are downloaded from the store into FOLDER, loaded and sampled. What
was found is printed as one line of JSON. The deployment is that of the environment.
"""

import json
import sys
from pathlib import Path

from telecine import settings, tracking
from telecine.storage import Store
from telecine.work.digests import Digests

DIGEST_TAG = "telecine.model_digest"
PROMPT = "a red circle moves left on a blue background"


def main(name: str, alias: str, folder: Path) -> int:
    """See the module."""
    here = settings.from_environment()
    version = tracking.connect(here).get_model_version_by_alias(name, alias)
    files = _download(Store(here.store_uri), str(version.source), folder / "model")
    digest = Digests(folder / "digests").tree(folder / "model")
    film = _film(folder / "model")
    found = {"version": str(version.version), "source": version.source, "num_files": files, "film": film}
    print(json.dumps(found | {"digest": digest, "registered_digest": version.tags[DIGEST_TAG]}))
    return 0


def _download(store: Store, source: str, folder: Path) -> int:
    """Every file below ``source`` into ``folder``; how many there were."""
    path = store.path_of(source)
    if path is None:
        raise FileNotFoundError(f"the registered source {source} does not lie in the store {store.uri}")
    entries = list(store.entries(path))
    for entry in entries:
        store.download(entry.path, folder / entry.path.removeprefix(f"{path}/"))
    return len(entries)


def _film(folder: Path) -> list[int]:
    """Shape of one film of the loaded pipeline; a film of one colour is none."""
    from telecine_models.pipeline import TelecinePipeline

    trained_on = json.loads((folder / "trained_on.json").read_text())
    size = {name: trained_on[name] for name in ("num_frames", "height_px", "width_px")}
    pipeline = TelecinePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    film = pipeline([PROMPT], num_steps=2, guidance_scale=1.0, seed=0, **size)[0]
    if film.min() == film.max():
        raise ValueError("the loaded model films one colour only")
    return list(film.shape)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
