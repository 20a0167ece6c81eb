"""The MLflow registry: one version per model digest, whatever is retried."""

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException

from telecine.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIGEST_TAG = "telecine.model_digest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registered:
    """A registered version; ``created`` says whether this very call made it."""

    name: str
    version: str
    created: bool


def publish(client: "MlflowClient", run_id: str, folder: Path, model_uri: str, model_digest: str) -> str:
    """Where the registry may point for the weights: a source that MLflow accepts, with no byte through a server.

    On a local store the folder enters the run's artifacts by hardlink, because an MLflow server refuses a
    ``file://`` source outside them; on an object store the committed folder is the source itself.
    """
    if urlsplit(model_uri).scheme == "s3":
        return model_uri
    artifacts = urlsplit(client.get_run(run_id).info.artifact_uri)
    if artifacts.scheme not in ("", "file"):
        raise InputError(
            f"deploy.register: a local model cannot enter the artifacts at {artifacts.scheme}://; "
            "use TELECINE_STORE=s3://… with a tracking server"
        )
    target = Path(unquote(artifacts.path)) / f"model-{model_digest[:12]}"
    link_tree(folder, target)
    return f"file://{target}"


def link_tree(folder: Path, target: Path) -> None:
    """Make ``target`` a folder of hardlinks to the files of ``folder``; copies where links cannot reach."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        link = target / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.exists() and link.samefile(file):
            continue
        link.unlink(missing_ok=True)
        try:
            os.link(file, link)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, link)


def register(
    client: "MlflowClient",
    *,
    name: str,
    alias: str,
    source: str,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
) -> Registered:
    """The version of ``name`` with the model digest in ``tags``, made unless it exists; ``alias`` then points to it."""
    try:
        client.create_registered_model(name, description="Text-to-video models trained by Telecine.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    digest = tags[DIGEST_TAG]
    made = None
    if not versions_of(client, name, digest):
        version = client.create_model_version(name, source, run_id=run_id, tags=dict(tags), description=description)
        made = int(version.version)
    # The registry has no conditional create. Of racers, who all see the first version by now, the later ones withdraw.
    first = versions_of(client, name, digest)[0]
    if made is not None and made != first:
        client.delete_model_version(name, str(made))
    _point_alias(client, name, alias, str(first))
    return Registered(name=name, version=str(first), created=made == first)


def _point_alias(client: "MlflowClient", name: str, alias: str, version: str) -> None:
    try:
        client.set_registered_model_alias(name, alias, version)
    except MlflowException:  # on a database, two who make an alias at once meet its uniqueness
        client.set_registered_model_alias(name, alias, version)


def versions_of(client: "MlflowClient", name: str, digest: str) -> list[int]:
    """Numbers of the versions with these weights, ascending."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{DIGEST_TAG}` = '{digest}'")
    return sorted(int(version.version) for version in found)
