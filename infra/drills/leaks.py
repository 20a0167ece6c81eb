"""Credentials: what a wrong one leads to, and that none is ever written down or shown in the process list."""

import base64
import contextlib
import functools
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

from deployments import CODE_RETRY, Deployment, Ended, ended, make_site
from mlflow_server import MlflowServer
from places import ACCESS_KEY, BUCKET, SECRET_KEY, SESSION_TOKEN, ObjectServer, free_port, s3_environment
from record import Count, Trial

MLFLOW_USER = "drill"
MLFLOW_PASSWORD = "drill/mlflow+password-71c5"  # noqa: S105 - of nobody
SECRETS = {
    "access key": ACCESS_KEY,
    "secret key": SECRET_KEY,
    "session token": SESSION_TOKEN,
    "MLflow password": MLFLOW_PASSWORD,
}
SECRETS |= {f"wrong {name}": secret[::-1] for name, secret in SECRETS.items()}
CODE_INPUT = 78
Call = tuple[str, int, dict[str, str]]
"""What a call is made with, the exit code that it has to end with, and the variables that make it so."""


def credentials(trial: Trial) -> Count:
    """Calls with right and wrong credentials; then every byte that they left anywhere is searched."""
    site, server = make_site(trial.folder / "site"), ObjectServer(trial.folder / "objects")
    right = s3_environment(server.port) | {
        "MLFLOW_TRACKING_USERNAME": MLFLOW_USER,
        "MLFLOW_TRACKING_PASSWORD": MLFLOW_PASSWORD,
        "TELECINE_STORE_RETRY_S": "1",
    }
    place = Deployment(trial.folder / "home", site, store_uri=f"s3://{BUCKET}/keys", environment=right)
    place.prepare_tracker()
    chosen = _store_calls()
    chosen = [chosen[0], chosen[1], chosen[4]] if trial.size == "short" else chosen + _address_calls()
    with _watched() as shown:
        try:
            said, problems = _call_all(place, chosen, trial.seed, lambda done: trial.progress(done, len(chosen)))
            if trial.size == "full":
                chosen_too, more, wrong = _behind_a_login(trial, place)
                chosen, said, problems = chosen + chosen_too, said + more, problems + wrong
        finally:
            server.kill()
    problems += [f"lost: the {name} is in the process list: {command}" for name, command in sorted(shown)]
    folders = {"store": server.folder, "home": place.home, "tracker": trial.folder / "tracker"}
    problems += [f"lost: {where}" for name, folder in folders.items() for where in leaks(name, folder, SECRETS)]
    printed = "".join(text for done in said for text in (done.out, done.err)).encode()
    problems += [f"lost: the {name} was printed" for name, secret in SECRETS.items() if _holds(printed, secret)]
    return Count(
        what=f"{len(chosen)} calls with right and wrong credentials; everything searched for {len(SECRETS)} secrets",
        injected=len(chosen),
        lost=len(problems),
        recovered=0 if problems else len(chosen),
        findings=tuple(problems),
    )


def _store_calls() -> list[Call]:
    return [
        ("right credentials", 0, {}),
        ("a wrong secret key", CODE_INPUT, {"AWS_SECRET_ACCESS_KEY": SECRET_KEY[::-1]}),
        ("a wrong access key", CODE_INPUT, {"AWS_ACCESS_KEY_ID": ACCESS_KEY[::-1]}),
        ("a wrong session token", CODE_INPUT, {"AWS_SESSION_TOKEN": SESSION_TOKEN[::-1]}),
        ("no store at the endpoint", CODE_RETRY, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}),
    ]


def _address_calls() -> list[Call]:
    nobody = f"http://127.0.0.1:{free_port()}"
    tracker = nobody.replace("//", f"//{MLFLOW_USER}:{quote(MLFLOW_PASSWORD, safe='')}@")
    return [
        ("no MLflow at its address", CODE_RETRY, {"TELECINE_TRACKING_URI": nobody}),
        ("a password in MLflow's address", CODE_INPUT, {"TELECINE_TRACKING_URI": tracker}),
    ]


def _behind_a_login(trial: Trial, place: Deployment) -> tuple[list[Call], list[Ended], list[str]]:
    """Calls to a real MLflow server behind a login; its password is looked for where it keeps its data, too."""
    folder, data = trial.folder / "tracker-login", trial.folder / "tracker"
    for path in (folder, data):
        path.mkdir()
    server = MlflowServer(folder, data, user=MLFLOW_USER, password=MLFLOW_PASSWORD)
    right = server.environment
    calls: list[Call] = [
        ("MLflow's right password", 0, right),
        ("a wrong MLflow password", CODE_INPUT, right | {"MLFLOW_TRACKING_PASSWORD": MLFLOW_PASSWORD[::-1]}),
        ("no MLflow login", CODE_INPUT, right | {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": ""}),
    ]
    with server.running(place.environment):
        said, problems = _call_all(place, calls, trial.seed + 100, lambda _: None)
    shutil.copy(folder / "mlflow.log", data)  # beside it lies the server's configuration, which is a secret itself
    if not _runs_in(data / "mlflow.db"):
        problems.append("lost: the call with MLflow's right password left no run there")
    return calls, said, problems


def _runs_in(database: Path) -> int:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)
    with contextlib.closing(connection):
        return int(connection.execute("select count(*) from runs").fetchone()[0])


def _call_all(
    place: Deployment, calls: list[Call], seed: int, progress: Callable[[int], None]
) -> tuple[list[Ended], list[str]]:
    """Make the calls; how each ended, and what was wrong with that."""
    said: list[Ended] = []
    problems: list[str] = []
    for index, (what, code, environment) in enumerate(calls):
        said.append(_called(place, seed + index, environment))
        problems += _judge(what, code, said[-1])
        progress(index + 1)
    return said, problems


def _called(place: Deployment, seed: int, environment: dict[str, str]) -> Ended:
    inputs = {"num_steps": 4, "seed": seed}
    process: subprocess.Popen[str] = place.start_run("toy.train", inputs, TOY_STEP_S="0.1", **environment)
    return ended(process)


def _judge(what: str, code: int, done: Ended) -> list[str]:
    problems = [] if done.code == code else [f"lost: {what}: exit {done.code}, expected {code}: {done.last_line}"]
    complaints = [line for line in done.err.splitlines() if not line.startswith("event=")]
    if code == CODE_INPUT and len(complaints) != 1:
        problems.append(f"lost: {what}: {len(complaints)} lines instead of one: {complaints[:3]}")
    if code and not done.last_line.startswith("telecine: "):
        problems.append(f"lost: {what}: the last line is no sentence of ours: {done.last_line}")
    return problems


def leaks(where: str, folder: Path, secrets: Mapping[str, str], *, meant: Container[str] = ()) -> list[str]:
    """Files below a folder that hold a secret in any form, databases and their logs included.

    Args:
        meant: names of files that are there to hold one.
    """
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in meant):
        data = path.read_bytes()
        found += [f"the {what} is in the {where}: {path}" for what, secret in secrets.items() if _holds(data, secret)]
    return found


def _holds(data: bytes, secret: str) -> bool:
    return any(form in data for form in forms(secret))


@functools.cache
def forms(secret: str) -> frozenset[bytes]:
    """A secret as it is, as URLs quote it, and as base64 writes it wherever it begins, in ``user:password`` too."""
    found = {form.encode() for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))}
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + secret.encode())
        # Of the first and the last character only some bits are the secret's.
        kept = coded[-(-shift * 8 // 6) : (shift + len(secret.encode())) * 8 // 6]
        found |= {kept, kept.translate(bytes.maketrans(b"+/", b"-_"))}
    return frozenset(found)


@contextlib.contextmanager
def _watched() -> Iterator[set[tuple[str, str]]]:
    """Command lines that showed a secret, looked at fifty times a second as long as this lasts."""
    shown: set[tuple[str, str]] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    data = path.read_bytes().replace(b"\0", b" ")
                    text = data[:80].decode(errors="replace")
                    shown.update((name, text) for name, secret in SECRETS.items() if _holds(data, secret))
            time.sleep(0.02)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield shown
    finally:
        ended.set()
        watcher.join()
