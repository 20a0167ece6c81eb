"""The report as text: facts in, one HTML document out. It names no other file and runs no script."""

import base64
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from telecine_components.deploy.report.figures import bars, line_chart
from telecine_components.deploy.report.style import CSS

Json = dict[str, Any]

_FEW = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything the page tells.

    Attributes:
        run: slug of the run. parent_run_id: its MLflow run.
        funnel: funnel.json. bad_files: (file, reason). sources: lineage rows of the training samples.
        training: training.json. registration: registration.json.
        samples: samples.json. media: bytes of the files in the samples folder by name.
        tasks: what each task of the run met (``ctx.run_report()``).
    """

    run: str
    parent_run_id: str
    funnel: Json
    bad_files: Sequence[tuple[str, str]]
    sources: Sequence[Json]
    training: Json
    registration: Json
    samples: Json
    media: Mapping[str, bytes]
    tasks: Sequence[Json]


def render(facts: Facts) -> str:
    """The whole page."""
    sections: Sequence[Callable[[Facts], str]] = (
        _header,
        _samples,
        _held_out,
        _training,
        _funnel,
        _model,
        _lineage,
        _tasks,
    )
    body = "\n".join(section(facts) for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Telecine {escape(facts.run)}</title><style>{CSS}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def verdict(held_out: Json) -> str:
    """The held-out comparison in a sentence that claims no more than the intervals do."""
    loss, gains = held_out["loss"], held_out["gain_over"]
    clips = f"{held_out['num_clips']} held-out clip{'s' if held_out['num_clips'] != 1 else ''}"
    beaten = [name for name in ("untrained", "mean_predictor") if gains[name]["low"] > 0]
    names = {"untrained": "the untrained model", "mean_predictor": "the mean predictor"}
    if len(beaten) == 2:
        text = f"On {clips} the trained model ({loss['trained']:.3f}) beats both {names['untrained']} "
        text += f"({loss['untrained']:.3f}) and {names['mean_predictor']} ({loss['mean_predictor']:.3f})"
        text += "; both 95 % intervals lie above zero."
    elif beaten:
        other = next(name for name in names if name not in beaten)
        text = f"On {clips} the trained model beats {names[beaten[0]]}, but not {names[other]}."
    else:
        text = f"On {clips} the trained model beats neither {names['untrained']} nor {names['mean_predictor']}."
    return text + (" One clip says little: the interval has no width." if held_out["num_clips"] == 1 else "")


def _header(facts: Facts) -> str:
    training, registration = facts.training, facts.registration
    tiles = (
        ("clips kept", f"{facts.funnel['kept']} of {facts.funnel['clips_in']}"),
        ("training samples", f"{training['data']['num_train']}"),
        ("held-out loss", f"{training['held_out']['loss']['trained']:.4f}"),
        ("parameters", f"{training['num_parameters']:,}"),
        ("registered as", f"{registration['model_name']} v{registration['model_version']}"),
    )
    boxes = "".join(
        f'<div class="tile"><span class="quiet">{label}</span><b>{escape(value)}</b></div>' for label, value in tiles
    )
    return (
        f"<h1>From footage to a registered model</h1><p class=quiet>Run <code>{escape(facts.run)}</code></p>"
        f'<p>{escape(verdict(training["held_out"]))}</p><div class="tiles">{boxes}</div>'
    )


def _funnel(facts: Facts) -> str:
    funnel = facts.funnel
    rows = [("clips found", funnel["clips_in"], "all"), ("kept", funnel["kept"], "kept")]
    rows += [(reason.replace("_", " "), count, "rejected") for reason, count in funnel["rejected"].items()]
    text = f"<p>{funnel['files']} files gave {funnel['clips_in']} clips; each rejected clip has one reason.</p>"
    bad = "<p>Every file could be used.</p>"
    if facts.bad_files:
        bad = f"<p>{len(facts.bad_files)} of the files could not be used:</p>" + _table(
            ("file", "reason"), facts.bad_files
        )
    return f"<h2>Footage</h2>{text}{bars(rows, funnel['clips_in'])}{bad}"


def _training(facts: Facts) -> str:
    training = facts.training
    size = "{num_frames} frames of {width_px}x{height_px}".format_map(training["data"])
    history, data = training["history"], training["data"]
    curves = {"training": history["train/loss"], "held out, a few clips": history.get("eval/loss", [])}
    levels = {"mean predictor, held out": training["held_out"]["loss"]["mean_predictor"]}
    chart = line_chart(curves, levels, x_label="step", y_label="loss")
    return (
        f"<h2>Training</h2><p>{training['num_steps']} steps, {training['num_samples_seen']:,} samples seen of "
        f"{data['num_train']} different ones, each {size}. "
        f"The mean flow-matching loss of the last tenth of the steps is {training['final_loss']:.4f}.</p>{chart}"
    )


def _held_out(facts: Facts) -> str:
    held_out = facts.training["held_out"]
    names = {"trained": "trained", "untrained": "untrained", "mean_predictor": "mean predictor (best constant)"}
    rows = []
    for name, label in names.items():
        gain = held_out["gain_over"].get(name)
        interval = f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]" if gain else ""
        rows.append((label, f"{held_out['loss'][name]:.4f}", interval))
    table = _table(("model", "held-out loss", "what training gained [95 % interval]"), rows, numbers=(1, 2))
    return (
        f"<h2>Held-out clips</h2>{table}<p class=quiet>{held_out['num_samples']} samples of {held_out['num_clips']} "
        f"clips that training never saw, {held_out['num_draws']} fixed (time, noise) draws each, the same for every "
        "model; paired bootstrap over clips.</p>"
    )


def _samples(facts: Facts) -> str:
    films = "".join(_film(film, facts.media[film["file"]]) for film in facts.samples["films"])
    sheet = _data_uri("image/png", facts.media["contact_sheet.png"])
    return (
        f'<h2>Samples</h2><div class="films">{films}</div>'
        f"<details><summary>All frames</summary>"
        f'<img class="sheet" alt="Contact sheet: one row per film" src="{sheet}"></details>'
    )


def _film(film: Json, data: bytes) -> str:
    caption = f"{escape(film['prompt'])} (seed {film['seed']})"
    video = f'<video controls loop muted autoplay playsinline src="{_data_uri("video/mp4", data)}"></video>'
    return f"<figure>{video}<figcaption>{caption}</figcaption></figure>"


def _model(facts: Facts) -> str:
    registration = facts.registration
    rows = [
        ("name", registration["model_name"]),
        ("version", registration["model_version"]),
        ("alias", registration["alias"]),
        ("load it", f"models:/{registration['model_name']}@{registration['alias']}"),
        ("weights digest", registration["model_digest"]),
        ("dataset digest", registration["dataset_digest"]),
        ("made by", f"{registration['component']} {registration['key']}".strip() or "outside this store"),
        ("MLflow run of the training", registration["train_run_id"]),
    ]
    return f"<h2>Registered model</h2>{_table(('what', 'value'), rows, code=(1,))}"


def _lineage(facts: Facts) -> str:
    rows = [
        (
            source["source"],
            source["licence"],
            source["consent"],
            source["num_train"],
            source["num_val"],
            source["digest"][:12],
        )
        for source in facts.sources
    ]
    head = ("source", "licence", "consent", "training samples", "held out", "SHA-256")
    licences = ", ".join(f"{count} samples {name}" for name, count in facts.registration["licences"].items())
    return (
        f"<h2>Where the data comes from</h2><p>{len(rows)} source files; trained on {escape(licences)}.</p>"
        f"<details{' open' if len(rows) <= _FEW else ''}><summary>Every source</summary>"
        f"{_table(head, rows, numbers=(3, 4), code=(5,))}</details>"
    )


def _tasks(facts: Facts) -> str:
    rows = [
        (task["task"], task["decision"], task["reason"], f"{task['seconds']:.1f}", task.get("mlflow_run_id") or "")
        for task in facts.tasks
    ]
    table = _table(("task", "decision", "why", "seconds", "MLflow run"), rows, numbers=(3,), code=(4,))
    return (
        f"<h2>What ran, what was reused, and why</h2>{table}<p>Look next: "
        f"<code>telecine status {escape(facts.run)}</code> for the state of the run, <code>telecine explain</code> for "
        "a decision, <code>make up</code> for the pages of Airflow and MLflow, where this run is "
        f"<code>{escape(facts.parent_run_id)}</code>.</p>"
    )


def _table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[int] = (), code: Sequence[int] = ()
) -> str:
    def cell(tag: str, index: int, value: Any) -> str:
        kind = ' class="number"' if index in numbers else ""
        text = escape(str(value))
        return f"<{tag}{kind}>{f'<code>{text}</code>' if index in code and tag == 'td' else text}</{tag}>"

    top = "".join(cell("th", index, label) for index, label in enumerate(head))
    body = "".join(f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
