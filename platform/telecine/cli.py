"""The ``telecine`` command: one command line for a shell, an Airflow task, a container and a pod.

Exit codes: 0 done; 75 try again; 78 inputs or credentials are wrong; 69 hardware fault; else failure.
"""

import argparse
import atexit
import contextlib
import dataclasses
import gc
import logging
import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from telecine import component, config, questions, settings, slugs
from telecine.errors import InputError, RetryLater, TelecineError
from telecine.launch import Launch
from telecine.redaction import mask, protect_terminal
from telecine.storage import PATIENCE_S, Store, to_json

if TYPE_CHECKING:
    from telecine.execution import Result


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, dispatch, and turn every error of ours into one line and its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.captureWarnings(True)
    protect_terminal()
    try:
        parsed = _parser().parse_args(arguments)
        return int(parsed.command(parsed) or 0)
    except TelecineError as error:
        print(mask(f"telecine: {error}"), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


def console() -> int:
    """:func:`main` as a process of its own, which neither starts nor ends with a search for what is garbage."""
    if os.getpid() == 1:  # the kernel lets a container's first process ignore what it does not handle
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(RetryLater.exit_code))
    if sys.argv[1:2] == ["run"]:
        gc.disable()  # until the component's own code is imported: see telecine.execution
    code = main()
    if sys.argv[1:2] == ["run"]:
        _leave(code)
    gc.freeze()
    return code


def _leave(code: int) -> None:
    """End the process without taking apart every module first, which takes torch and MLflow most of a second.

    Whatever asked to be called at the end is called. Returns where a thread is still to be waited for.
    """
    if any(not each.daemon for each in threading.enumerate() if each is not threading.main_thread()):
        return
    atexit._run_exitfuncs()  # log handlers, MLflow's queues, temporary folders
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)


class Parser(argparse.ArgumentParser):
    """A wrong call is a wrong input like any other."""

    def error(self, message: str) -> NoReturn:
        """Raise :class:`InputError`."""
        raise InputError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="telecine", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "list", _list, "every component and what it does")
    describe = _add(commands, "describe", _describe, "a component's inputs, bounds, defaults and outputs")
    describe.add_argument("component")
    _add_run(commands)
    _add_questions(commands)
    gc = _add(commands, "gc", _gc, "remove what no run, model or living attempt needs")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    gc.add_argument(
        "--keep-days",
        type=float,
        default=30.0,
        help="keep the work of runs younger than this (default 30); 0 takes also what a run between two tasks needs",
    )
    return parser


def _add_questions(commands: Any) -> None:
    newest = "slug of a run; the newest by default"
    status = _add(commands, "status", questions.status, "what a run is doing, how far it is, and why something waits")
    status.add_argument("run", nargs="?", help=newest)
    explain = _add(
        commands, "explain", questions.explain, "why a run's work was reused or not, and what would run again now"
    )
    explain.add_argument("run", nargs="?", help=newest)
    assume = "assume another value and say what would run again"
    explain.add_argument("--set", action="append", default=[], metavar="TASK.INPUT=VALUE", help=assume)
    logs = _add(commands, "logs", questions.logs, "what the attempts of a run said, in the order of time")
    logs.add_argument("run", nargs="?", help=newest)
    logs.add_argument("task", nargs="?", help="one task of the run; all by default")
    logs.add_argument("--follow", action="store_true", help="go on with each new line; --json prints one object a line")
    lineage = _add(commands, "lineage", questions.lineage, "what something was made of, or which models saw it")
    meant = "back: name@alias, name:version, run, artifact URI; forward: clip id, file name, beginning of a digest"
    lineage.add_argument("what", help=meant)
    link = _add(
        commands, "link", questions.link, "where a browser opens a file of the store; on s3:// a link that expires"
    )
    link.add_argument("uri", help="a file's URI, as status, make demo and MLflow print it")
    link.add_argument("--hours", type=float, default=1.0, help="life of the link on s3:// (default 1, at most 168)")
    gpu = _add(commands, "gpu", questions.gpu, "what the GPUs of this machine are doing, and for which run")
    gpu.add_argument("--watch", action="store_true", help="look again every second until interrupted")
    exporter = _add(commands, "exporter", questions.exporter, "serve GPUs and living attempts to Prometheus")
    exporter.add_argument("--port", type=int, default=9834, help="port to listen on (default 9834)")
    exporter.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    _add(commands, "doctor", questions.doctor, "check what a run needs on this machine, and how to mend it")


def _add(commands: Any, name: str, command: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(command=command)
    return parser


def _add_run(commands: Any) -> None:
    run = _add(commands, "run", _run, "run one component, or return the commit of the same work")
    run.add_argument("component")
    recipe = "name of a recipe (telecine describe lists them) or a .toml file; --inputs and --set win over it"
    run.add_argument("--recipe", metavar="NAME", help=recipe)
    run.add_argument("--inputs", default="{}", help="a JSON object, env:VARIABLE, or a .toml or .json file")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one input; wins over --inputs")
    run.add_argument("--result", metavar="FILE", help="write the result document here")
    run.add_argument("--run", help="slug of the run this belongs to; by default one of its own")
    run.add_argument("--task", help="task of the run; by default the component's name")
    run.add_argument("--key", help="refuse to run where the work's content key is another one")
    elsewhere = "where it runs: here by default, in a container, or as a job of the cluster"
    run.add_argument("--runner", choices=settings.RUNNERS, default="process", help=elsewhere)
    dry = "run nothing: print the checked inputs, the container's command line, or the cluster's manifest"
    run.add_argument("--dry-run", action="store_true", help=dry)
    run.add_argument("--force", action="store_true", help="redo the work even if its commit stands")


def _run(parsed: argparse.Namespace) -> int:
    # Two threads that spin while they wait for a core cost three times the processor time of two that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    found = component.find(parsed.component)
    recipe = {} if parsed.recipe is None else found.recipe(parsed.recipe)
    settings_given = dict(config.parse_setting(text, found.inputs) for text in parsed.set)
    inputs = found.parse(recipe | config.load(parsed.inputs) | settings_given)
    if parsed.runner == "process" and parsed.dry_run:
        sys.stdout.write(to_json(dataclasses.asdict(inputs)).decode())
        return 0
    if parsed.result and not Path(parsed.result).absolute().parent.is_dir():
        raise InputError(f"--result: no folder {str(Path(parsed.result).absolute().parent)!r} to write to")
    if parsed.runner != "process" and parsed.force:
        raise InputError(
            f"--force redoes work where it is called, and --runner is {parsed.runner}; leave one of them out"
        )
    launch = _launch(parsed, found, inputs)
    if parsed.dry_run:
        sys.stdout.write(_handed_over(launch))
        return 0
    print(
        mask(f"event=settings home={launch.settings.home} store={launch.settings.store_uri} run={launch.run}"),
        file=sys.stderr,
    )
    result = _result(parsed, launch)
    if result is None:
        print(f"event=followed component={found.name}", file=sys.stderr)
        return 0
    document = to_json(result.document()).decode()
    if parsed.result:
        with open(parsed.result, "w") as file:
            file.write(document)
    else:
        sys.stdout.write(document)
    print(f"event=done component={found.name} decision={result.decision} reason={result.reason!r}", file=sys.stderr)
    return 0


def _launch(parsed: argparse.Namespace, found: component.Component, inputs: Any) -> Launch:
    """The call as any runner takes it; elsewhere than here its key has to be known beforehand."""
    from telecine.work import address, attempts, runs
    from telecine.work.digests import Digests

    here = settings.from_environment(os.environ | {"TELECINE_RUNNER": parsed.runner})
    run = slugs.check_slug(parsed.run or slugs.slug(f"shell-{found.name}", attempts.new_id()))
    task = runs.check_task(parsed.task or found.name)
    key = parsed.key or ""
    if not key and parsed.runner != "process":
        store, digests = Store(here.store_uri), Digests(here.home)
        key = address.resolve(found, inputs, store=store, digests=digests, run=run).key
    return Launch(component=found, inputs=inputs, run=run, task=task, key=key, settings=here)


def _result(parsed: argparse.Namespace, launch: Launch) -> "Result | None":
    """Do the work, here or elsewhere; ends the MLflow run of a call that belongs to no run of a DAG.

    None on a node that only follows another one.
    """
    from telecine.execution import Call, closing_run, execute, follow
    from telecine.nodes import Nodes

    call = Call(
        component=launch.component,
        inputs=launch.inputs,
        run=launch.run,
        task=launch.task,
        settings=launch.settings,
        force=parsed.force,
        key=parsed.key,
    )
    if parsed.runner == "process" and Nodes.from_environment().follows:
        follow(call)
        return None
    with closing_run(launch.settings, launch.run) if parsed.run is None else contextlib.nullcontext():
        if parsed.runner != "process":
            from telecine import elsewhere

            return elsewhere.run(launch)
        return execute(call)


def _handed_over(launch: Launch) -> str:
    """The container's command line, or the manifest of the first attempt, in YAML."""
    if launch.settings.runner == "container":
        from telecine.runners import container

        return shlex.join(container.command(launch)) + "\n"
    import yaml

    from telecine import cluster_profile, kube

    text: str = yaml.safe_dump(
        kube.manifest(launch, cluster_profile.load(), number=1), sort_keys=False, allow_unicode=True
    )
    return text


def _list(parsed: argparse.Namespace) -> None:
    found = [component.find(name) for name in component.names()]
    if parsed.json:
        questions.print_json(
            [{"name": c.name, "image": c.image, "effects": c.effects, "what": _what(c)} for c in found]
        )
        return
    for each in found:
        print(f"{each.name:18} {each.image:8} {_what(each)}")


def _what(found: component.Component) -> str:
    """The first line of its spec, without the name that it begins with."""
    return (
        (sys.modules[found.inputs.__module__].__doc__ or "").strip().partition("\n")[0].removeprefix(f"{found.name}: ")
    )


def _describe(parsed: argparse.Namespace) -> None:
    found = component.find(parsed.component)
    tables = {kind: [_row(cls, f) for f in dataclasses.fields(cls)] for kind, cls in _sides(found).items()}
    recipes = {name: _what_recipe(path) for name, path in found.recipes.items()}
    if parsed.json:
        about = {"name": found.name, "effects": found.effects, "entry": found.entry, "recipes": recipes}
        questions.print_json(about | tables)
        return
    print(f"{found.name}: {_what(found)}")
    if recipes:
        print("\nrecipes:", *(f"  {name}: {what}" for name, what in recipes.items()), sep="\n")
    for kind, rows in tables.items():
        print(f"\n{kind}:")
        for row in rows:
            default = "" if "default" not in row else f" = {row['default']!r}"
            bounds = "".join(f", {rule} {row[rule]}" for rule in ("ge", "gt", "le", "lt", "choices") if rule in row)
            print(f"  {row['name']}: {row['type']}{default}{bounds}\n      {row['help']}")


def _what_recipe(path: Path) -> str:
    """The first line of a recipe, which is a comment."""
    return path.read_text().partition("\n")[0].removeprefix("#").strip()


def _sides(found: component.Component) -> dict[str, type]:
    return {"inputs": found.inputs, "outputs": found.outputs}


def _row(cls: type, field: dataclasses.Field[Any]) -> dict[str, Any]:
    default = {} if field.default is dataclasses.MISSING else {"default": field.default}
    kind = "artifact" if config.is_artifact(cls, field.name) else config.json_schema(cls, field.name)["type"]
    return {"name": field.name, "type": kind, **field.metadata, **default}


def _gc(parsed: argparse.Namespace) -> None:
    from telecine.work import garbage

    if not parsed.keep_days >= 0:
        raise InputError(f"--keep-days must be at least 0, got {parsed.keep_days}")
    patience_s = PATIENCE_S if parsed.dry_run else math.inf
    store = Store(settings.from_environment().store_uri, patience_s=patience_s)
    report = garbage.collect(store, keep_days=parsed.keep_days, dry_run=parsed.dry_run)
    questions.print_json(report) if parsed.json else print(garbage.render(report))


if __name__ == "__main__":
    sys.exit(console())
