"""MLflow asked over HTTP without importing it: answers of a real server, and of servers that refuse or fail."""

import base64
import dataclasses
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telecine import registry, settings, tracking
from telecine.errors import InputError, RetryLater

START_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def registered(empty_tracker: Path, tmp_path_factory: pytest.TempPathFactory) -> settings.Settings:
    """A local tracker with version 1 of ``m`` as champion."""
    here = settings.from_environment({"TELECINE_HOME": str(tmp_path_factory.mktemp("registered"))})
    (here.home / "mlflow").mkdir()
    (here.home / "mlflow" / "mlflow.db").write_bytes(empty_tracker.read_bytes())
    client = tracking.connect(here)
    client.create_registered_model("m")
    version = client.create_model_version("m", "file:///somewhere")
    client.set_registered_model_alias("m", "champion", version.version)
    return here


@pytest.fixture(scope="module")
def served(registered: settings.Settings) -> Iterator[settings.Settings]:
    """The same tracker behind MLflow's own server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(
        [*command, "--backend-store-uri", registered.tracking_uri],
        env=environment,
        cwd=registered.home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    here = dataclasses.replace(registered, tracking_uri=f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _answers(here):
        assert server.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    yield here
    server.terminate()
    server.wait()


def _answers(here: settings.Settings) -> bool:
    try:
        registry.check(here)
    except RetryLater:
        return False
    return True


@pytest.mark.parametrize("place", ["registered", "served"])
def test_a_file_and_a_server_give_the_same_answers(request: pytest.FixtureRequest, place: str) -> None:
    here: settings.Settings = request.getfixturevalue(place)
    assert here.tracking_uri in registry.check(here)
    assert registry.version_of(here, "m", "champion") == "1"
    assert registry.version_of(here, "m", "candidate") is None
    assert registry.version_of(here, "nothing", "champion") is None


# What a server may answer that MLflow's own does not on demand

Reply = tuple[int, bytes]


@pytest.fixture
def answering(deployment: settings.Settings) -> Iterator[Callable[[Reply], tuple[settings.Settings, list[str]]]]:
    """A server that gives every request one reply: where it is, and the Authorization of each request it got."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(reply: Reply) -> tuple[settings.Settings, list[str]]:
        seen: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.headers.get("Authorization", ""))
                self.send_response(reply[0])
                self.end_headers()
                self.wfile.write(reply[1])

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return dataclasses.replace(deployment, tracking_uri=f"http://127.0.0.1:{server.server_port}"), seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_a_person_s_to_mend(answering: Callable, status: int) -> None:
    here, _ = answering((status, b""))
    with pytest.raises(InputError, match="refuses the credentials; check MLFLOW_TRACKING_USERNAME and its password"):
        registry.check(here)


def test_a_server_that_fails_or_is_away_may_be_asked_again(answering: Callable) -> None:
    here, _ = answering((503, b"try later"))
    with pytest.raises(RetryLater, match="answers 503"):
        registry.version_of(here, "m", "champion")
    away = dataclasses.replace(here, tracking_uri="http://127.0.0.1:9")
    with pytest.raises(RetryLater, match="MLflow at http://127.0.0.1:9 does not answer"):
        registry.check(away)


def test_the_credentials_of_the_environment_are_sent_and_never_shown(
    answering: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, seen = answering((200, json.dumps({"model_version": {"version": "7"}}).encode()))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden-word")
    assert registry.version_of(here, "m", "champion") == "7"
    assert base64.b64decode(seen[-1].removeprefix("Basic ")) == b"ada:hidden-word"
    within = dataclasses.replace(here, tracking_uri=here.tracking_uri.replace("//", "//bob:hidden-word@"))
    assert "hidden-word" not in registry.check(within)
    assert base64.b64decode(seen[-1].removeprefix("Basic ")) == b"bob:hidden-word"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    registry.check(here)
    assert seen[-1] == "Bearer a-token"
