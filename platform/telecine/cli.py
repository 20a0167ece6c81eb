"""The ``telecine`` command: one command line for a shell, an Airflow task, a container and a pod.

Exit codes: 0 done; 75 try again; 78 inputs or credentials are wrong; 69 hardware fault; else failure.
"""

import argparse
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from telecine import component, config, settings
from telecine.errors import InputError, TelecineError
from telecine.storage import Store, to_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, dispatch, and turn every error of ours into one line and its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.captureWarnings(True)
    try:
        parsed = _parser().parse_args(arguments)
        return int(parsed.command(parsed) or 0)
    except TelecineError as error:
        print(f"telecine: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


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
    status = _add(commands, "status", _status, "what a run is doing, how far it is, and why something waits")
    status.add_argument("run", nargs="?", help="slug of a run; the newest by default")
    explain = _add(commands, "explain", _explain, "why a run's work was reused or not, and what would run again now")
    explain.add_argument("run", nargs="?", help="slug of a run; the newest by default")
    assume = "assume another value and say what would run again"
    explain.add_argument("--set", action="append", default=[], metavar="TASK.INPUT=VALUE", help=assume)
    gc = _add(commands, "gc", _gc, "remove what no run, model or living attempt needs")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    gc.add_argument(
        "--keep-days", type=float, default=30.0, help="keep the work of runs younger than this (default 30)"
    )
    _add(commands, "doctor", _doctor, "check what a run needs on this machine, and how to mend it")
    return parser


def _add(commands: Any, name: str, command: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(command=command)
    return parser


def _add_run(commands: Any) -> None:
    run = _add(commands, "run", _run, "run one component, or return the commit of the same work")
    run.add_argument("component")
    run.add_argument("--inputs", default="{}", help="a JSON object, or a .toml or .json file")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one input; wins over --inputs")
    run.add_argument("--result", metavar="FILE", help="write the result document here")
    run.add_argument("--run", help="slug of the run this belongs to; by default one of its own")
    run.add_argument("--task", help="task of the run; by default the component's name")
    run.add_argument("--dry-run", action="store_true", help="check the inputs and print them, run nothing")
    run.add_argument("--force", action="store_true", help="redo the work even if its commit stands")


def _run(parsed: argparse.Namespace) -> int:
    from telecine.execution import Call, close_run, execute
    from telecine.work import attempts, runs

    # Two threads that spin while they wait for a core cost three times the processor time of two that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    found = component.find(parsed.component)
    values = config.load(parsed.inputs) | dict(config.parse_setting(text, found.inputs) for text in parsed.set)
    inputs = found.parse(values)
    if parsed.dry_run:
        sys.stdout.write(to_json(dataclasses.asdict(inputs)).decode())
        return 0
    here = settings.from_environment()
    run = runs.check_slug(parsed.run or runs.slug(f"shell-{found.name}", attempts.new_id()))
    if parsed.result and not Path(parsed.result).absolute().parent.is_dir():
        raise InputError(f"--result: no folder {str(Path(parsed.result).absolute().parent)!r} to write to")
    print(f"event=settings home={here.home} store={here.store_uri} run={run}", file=sys.stderr)
    call = Call(
        component=found, inputs=inputs, run=run, task=parsed.task or found.name, settings=here, force=parsed.force
    )
    try:
        result = execute(call)
    finally:
        if parsed.run is None:
            close_run(here, run)
    document = to_json(result.document()).decode()
    if parsed.result:
        with open(parsed.result, "w") as file:
            file.write(document)
    else:
        sys.stdout.write(document)
    print(f"event=done component={found.name} decision={result.decision} reason={result.reason!r}", file=sys.stderr)
    return 0


def _list(parsed: argparse.Namespace) -> None:
    found = [component.find(name) for name in component.names()]
    if parsed.json:
        _print_json([{"name": c.name, "image": c.image, "effects": c.effects, "what": _what(c)} for c in found])
        return
    for each in found:
        print(f"{each.name:18} {each.image:8} {_what(each)}")


def _what(found: component.Component) -> str:
    return (sys.modules[found.inputs.__module__].__doc__ or "").strip().partition("\n")[0]


def _describe(parsed: argparse.Namespace) -> None:
    found = component.find(parsed.component)
    tables = {kind: [_row(cls, f) for f in dataclasses.fields(cls)] for kind, cls in _sides(found).items()}
    if parsed.json:
        _print_json({"name": found.name, "effects": found.effects, "entry": found.entry, **tables})
        return
    print(f"{found.name}: {_what(found)}")
    for kind, rows in tables.items():
        print(f"\n{kind}:")
        for row in rows:
            default = "" if "default" not in row else f" = {row['default']!r}"
            bounds = "".join(f", {rule} {row[rule]}" for rule in ("ge", "gt", "le", "lt", "choices") if rule in row)
            print(f"  {row['name']}: {row['type']}{default}{bounds}\n      {row['help']}")


def _sides(found: component.Component) -> dict[str, type]:
    return {"inputs": found.inputs, "outputs": found.outputs}


def _row(cls: type, field: dataclasses.Field[Any]) -> dict[str, Any]:
    default = {} if field.default is dataclasses.MISSING else {"default": field.default}
    kind = "artifact" if config.is_artifact(cls, field.name) else config.json_schema(cls, field.name)["type"]
    return {"name": field.name, "type": kind, **field.metadata, **default}


def _status(parsed: argparse.Namespace) -> None:
    from telecine.work import status

    store, run = _store_and_run(parsed)
    report = status.of(store, run)
    _print_json(report) if parsed.json else print(status.render(report))


def _explain(parsed: argparse.Namespace) -> None:
    from telecine.work import plan
    from telecine.work.digests import Digests

    store, run = _store_and_run(parsed)
    changes = dict(config.parse_setting(text) for text in parsed.set)
    report = plan.of(store, Digests(settings.from_environment().home), run, changes)
    _print_json(report) if parsed.json else print(plan.render(report))


def _gc(parsed: argparse.Namespace) -> None:
    from telecine.work import garbage

    if not parsed.keep_days >= 0:
        raise InputError(f"--keep-days must be at least 0, got {parsed.keep_days}")
    store = Store(settings.from_environment().store_uri)
    report = garbage.collect(store, keep_days=parsed.keep_days, dry_run=parsed.dry_run)
    _print_json(report) if parsed.json else print(garbage.render(report))


def _doctor(parsed: argparse.Namespace) -> int:
    from telecine import doctor

    checks = doctor.examine(settings.from_environment())
    _print_json([dataclasses.asdict(check) for check in checks]) if parsed.json else print(doctor.render(checks))
    return 0 if all(check.state != "bad" for check in checks) else 78


def _store_and_run(parsed: argparse.Namespace) -> tuple[Store, str]:
    from telecine.work import runs

    store = Store(settings.from_environment().store_uri)
    known = runs.names(store)
    if not known:
        raise InputError(f"there is no run in {store.uri} yet; start one with make demo or telecine run")
    if parsed.run and parsed.run not in known:
        raise InputError(f"there is no run {parsed.run!r} in {store.uri}; the newest are {', '.join(known[:3])}")
    return store, parsed.run or known[0]


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
