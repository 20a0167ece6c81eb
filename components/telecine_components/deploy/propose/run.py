"""deploy.propose: read the registry, render the card."""

import logging
from collections.abc import Iterator
from urllib.parse import quote

from telecine import links
from telecine.config import Artifact
from telecine.context import Context
from telecine_components.deploy import versions
from telecine_components.deploy.propose.spec import Inputs, Outputs
from telecine_components.deploy.versions import Version

log = logging.getLogger(__name__)

_LINEAGE = ("licences", "consents", "num_sources", "dataset_digest", "model_digest")


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Propose; see :class:`Inputs`."""
    client = ctx.tracker.client
    proposed = versions.find(
        client, inputs.model_name, version=inputs.model_version, alias=inputs.alias, owner="deploy.propose"
    )
    number = versions.champion_of(client, inputs.model_name)
    champion = versions.find(client, inputs.model_name, version=number, owner="deploy.propose") if number else None
    text = card(proposed, champion, links.page(ctx.tracker.client.tracking_uri))
    (ctx.dir / "card.md").write_text(text)
    log.info("event=proposed name=%s version=%s champion=%s", proposed.name, proposed.version, number or "none")
    return Outputs(
        card_uri=Artifact("card.md"),
        card=text,
        model_name=proposed.name,
        model_version=proposed.version,
        model_source=proposed.source,
        settled=settled(proposed, number),
        champion_version=number,
    )


def card(proposed: Version, champion: Version | None, page: str) -> str:
    """Markdown: the proposed version beside the champion, and where MLflow shows it, if a page is known."""
    sections = [*_sections(proposed, champion)]
    if page:
        sections.append(f"[This version in MLflow]({page}/#/models/{quote(proposed.name)}/versions/{proposed.version})")
    return "\n\n".join(sections) + "\n"


def settled(proposed: Version, champion: str) -> str:
    """Why a person need not be asked about a version: it is the champion, or was decided about; else empty."""
    if proposed.version == champion:
        return f"version {proposed.version} is the champion already"
    decision = proposed.tags.get(versions.DECISION_TAG, "")
    return f"version {proposed.version} was decided about: {decision}" if decision else ""


def _sections(proposed: Version, champion: Version | None) -> Iterator[str]:
    yield f"**{links.plain(proposed.name)} version {proposed.version}**: {links.plain(proposed.description)}"
    if champion is None:
        yield "There is no champion yet."
    elif champion.version == proposed.version:
        yield "This version is the champion already."
    else:
        yield f"The champion is version {champion.version}: {links.plain(champion.description)}"
    rows = [("weights from", f"{proposed.tags.get('telecine.component', '')} {proposed.tags.get('telecine.key', '')}")]
    rows += [(name.replace("_", " "), proposed.tags.get(f"telecine.{name}", "unknown")) for name in _LINEAGE]
    yield "\n".join(f"* {name}: {links.plain(value) or 'unknown'}" for name, value in rows)
