"""The commands that only look: status, explain, logs, lineage, link, gpu, exporter, doctor. Imports stay in them."""

import argparse
import dataclasses
import json
import sys
import time
from typing import Any

from telecine import config, settings, slugs
from telecine.errors import InputError
from telecine.storage import PATIENCE_S, Store

WATCH_S = 1.0


def status(parsed: argparse.Namespace) -> None:
    """What a run is doing."""
    from telecine.work import status

    store, run = store_and_run(parsed)
    report = status.of(store, run)
    print_json(report) if parsed.json else print(status.render(report))


def explain(parsed: argparse.Namespace) -> None:
    """Why a run's work was reused or not."""
    from telecine.work import plan
    from telecine.work.digests import Digests

    store, run = store_and_run(parsed)
    changes = dict(config.parse_setting(text) for text in parsed.set)
    report = plan.of(store, Digests(settings.from_environment().home), run, changes)
    print_json(report) if parsed.json else print(plan.render(report))


def logs(parsed: argparse.Namespace) -> None:
    """What the attempts of a run said."""
    from telecine.work import logs

    store, run = store_and_run(parsed)
    if parsed.follow:
        for line in logs.follow(Store(store.uri), run, parsed.task):  # it may outlast an outage
            print(json.dumps(dataclasses.asdict(line)) if parsed.json else line, flush=True)
        return
    lines = logs.of(store, run, parsed.task)
    print_json([dataclasses.asdict(line) for line in lines]) if parsed.json else print(logs.render(lines))


def link(parsed: argparse.Namespace) -> None:
    """Where a browser opens a file of the store."""
    from telecine import buckets

    store = Store(settings.from_environment().store_uri, patience_s=PATIENCE_S)
    path = store.path_of(parsed.uri)
    if path is None or store.head(path) is None:
        raise InputError(f"link: there is no file {parsed.uri!r} in the store {store.uri}")
    if not 0 < parsed.hours <= buckets.MAX_LINK_S / 3600:
        raise InputError(
            f"link: --hours must be more than 0 and at most {buckets.MAX_LINK_S // 3600}, got {parsed.hours}"
        )
    uri = store.uri_of(path)
    found = uri if store.root is not None else buckets.signed_link(uri, seconds=round(parsed.hours * 3600))
    print_json({"uri": uri, "link": found}) if parsed.json else print(found)


def lineage(parsed: argparse.Namespace) -> None:
    """What something was made of, or who saw it."""
    from telecine import registry
    from telecine.work import exposure, lineage

    here = settings.from_environment()
    store = Store(here.store_uri, patience_s=PATIENCE_S)
    report = lineage.backward(store, parsed.what, lambda name, alias: registry.version_of(here, name, alias))
    render = lineage.render
    if report is None:
        report, render = exposure.forward(store, parsed.what), exposure.render
    print_json(report) if parsed.json else print(render(report))


def gpu(parsed: argparse.Namespace) -> None:
    """What the GPUs are doing; a machine without one is an answer, not an error."""
    from telecine.monitor import gpus, nvml

    reader = nvml.Reader()
    while True:
        sample = reader.sample()
        if parsed.watch and not parsed.json and sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        print_json(gpus.document(sample)) if parsed.json else print(gpus.render(sample), flush=True)
        if not parsed.watch:
            return
        time.sleep(WATCH_S)


def exporter(parsed: argparse.Namespace) -> None:
    """Serve metrics until interrupted."""
    from telecine.monitor import exporter

    if not 0 <= parsed.port < 65536:
        raise InputError(f"exporter: --port must be 0 (any free one) to 65535, got {parsed.port}")
    server = exporter.serve(Store(settings.from_environment().store_uri), port=parsed.port, host=parsed.host)
    url = f"http://{parsed.host}:{server.port}/metrics"
    print_json({"url": url}) if parsed.json else print(url)
    sys.stdout.flush()
    try:
        server.wait()
    finally:
        server.close()


def doctor(parsed: argparse.Namespace) -> int:
    """What a run needs on this machine."""
    from telecine import doctor

    checks = doctor.examine(settings.from_environment())
    print_json([dataclasses.asdict(check) for check in checks]) if parsed.json else print(doctor.render(checks))
    return 0 if all(check.state != "bad" for check in checks) else 78


def store_and_run(parsed: argparse.Namespace) -> tuple[Store, str]:
    """The store, and the run that is meant: the newest where none is named.

    Raises:
        InputError: there is no such run.
    """
    from telecine.work import runs

    store = Store(settings.from_environment().store_uri, patience_s=PATIENCE_S)
    if parsed.run and store.head(f"runs/{slugs.check_slug(parsed.run)}/run.json"):
        return store, parsed.run
    known = runs.names(store)
    if not known:
        raise InputError(f"there is no run in {store.uri} yet; start one with make demo or telecine run")
    if parsed.run:
        raise InputError(f"there is no run {parsed.run!r} in {store.uri}; the newest are {', '.join(known[:3])}")
    return store, known[0]


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True) + "\n")
