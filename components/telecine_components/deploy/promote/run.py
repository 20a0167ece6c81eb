"""deploy.promote: move the alias or leave it, and record the decision on the version."""

import json
import logging
from typing import TYPE_CHECKING

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError
from telecine_components.deploy import versions
from telecine_components.deploy.promote.spec import Inputs, Outputs
from telecine_components.deploy.versions import CHAMPION, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_RUN_TAG = "telecine.promotion_run"
_PREVIOUS_TAG = "telecine.promotion_previous"


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Decide; see :class:`Inputs`."""
    approved = inputs.decision == "approved"
    if not inputs.model_version:
        raise InputError("deploy.promote: model_version must be a number such as 3, got ''; an alias may have moved")
    if approved and not inputs.decided_by:
        raise InputError("deploy.promote: decided_by must name who approved, got ''; nobody is promoted by nobody")
    client = ctx.tracker.client
    version = versions.find(client, inputs.model_name, version=inputs.model_version, owner="deploy.promote")
    if approved:
        _check_still_asked(versions.champion_of(client, version.name), version, inputs.asked_champion)
    previous = _previous(client, version, ctx.run)
    facts = {
        "decision": inputs.decision,
        "by": inputs.decided_by,
        "at": inputs.decided_at,
        "previous": previous,
        "run": ctx.run,
    }
    for name, value in facts.items():  # before the alias moves: whoever finds it moved finds the way back, too
        client.set_model_version_tag(version.name, version.version, f"telecine.promotion_{name}", value)
    if approved:
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
    champion = versions.champion_of(client, version.name)
    document = {"model_name": version.name, "model_version": version.version, "champion": champion, **facts}
    (ctx.dir / "promotion.json").write_text(json.dumps(document, indent=1, sort_keys=True))
    ctx.tracker.artifact(ctx.dir / "promotion.json")
    log.info(
        "event=decided name=%s version=%s decision=%s champion=%s previous=%s",
        version.name,
        version.version,
        inputs.decision,
        champion or "none",
        previous or "none",
    )
    return Outputs(
        promotion_uri=Artifact("promotion.json"),
        model_name=version.name,
        champion_version=champion,
        previous_version=previous,
    )


def _check_still_asked(champion: str, version: Version, asked: str) -> None:
    """Refuse an old answer that would undo a newer decision; that of an attempt before this one is no newer one."""
    if asked == "any" or champion in (asked, version.version):
        return
    raise InputError(
        f"deploy.promote: version {version.version} of {version.name!r} was approved beside champion "
        f"{asked or 'none'}, but the champion is {champion or 'none'} by now; run promote_model again on version "
        f"{version.version} to be asked anew"
    )


def _previous(client: "MlflowClient", version: Version, run: str) -> str:
    """The champion before this run's decision, also where an earlier attempt has already moved the alias."""
    if version.tags.get(_RUN_TAG) == run:
        return version.tags.get(_PREVIOUS_TAG, "")
    return versions.champion_of(client, version.name)
