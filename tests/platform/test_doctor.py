"""``telecine doctor`` on an ``s3://`` store and a cluster: what it takes from the environment, never the secret."""

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from telecine import doctor, settings


def checks(deployment: settings.Settings, store_uri: str) -> dict[str, doctor.Check]:
    here = dataclasses.replace(deployment, store_uri=store_uri)
    return {check.what: check for check in doctor.examine(here)}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELECINE_STORE_RETRY_S", "1")


def test_a_store_that_answers_is_fit_and_its_keys_are_not_shown(
    deployment: settings.Settings, s3_store: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    found = checks(deployment, s3_store)
    assert {found[what].state for what in ("s3 endpoint", "s3 keys", "store")} == {"ok"}
    assert found["s3 endpoint"].found == f"{s3_server}, region eu-central-1"
    assert found["store"].found == f"{s3_store} creates conditionally"
    assert "not-a-real-secret" not in doctor.render(list(found.values()))


def test_a_local_store_is_not_asked_for_what_it_does_not_need(deployment: settings.Settings) -> None:
    assert [what for what in checks(deployment, deployment.store_uri) if what.startswith("s3")] == []


def test_keys_that_are_missing_are_named(
    deployment: settings.Settings, s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = checks(deployment, s3_store)
    keys = found["s3 keys"]
    assert (keys.state, keys.found, keys.cure) == ("bad", "not set", "set AWS_SECRET_ACCESS_KEY")
    assert found["store"].state == "bad" and "Missing SecretAccessKey; check AWS_ACCESS_KEY_ID" in found["store"].found


@pytest.mark.usefixtures("impatient")
def test_a_bucket_that_is_not_there_and_an_endpoint_that_is_away_are_bad(
    deployment: settings.Settings, s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = checks(deployment, "s3://no-such-bucket-here/store")["store"]
    assert missing.state == "bad" and "no-such-bucket-here" in missing.found and missing.cure
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://somebody:hidden-word@127.0.0.1:9")
    away = checks(deployment, s3_store)
    assert away["store"].state == "bad"
    assert "hidden-word" not in doctor.render(list(away.values()))


# A cluster


PODS = "/api/v1/namespaces/video/pods"
QUEUES = "/apis/kueue.x-k8s.io/v1beta2/namespaces/video/localqueues"
RAY = "/apis/ray.io/v1/namespaces/video/rayjobs"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/video/trainjobs"


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The lists of an API server that KUBECONFIG names, by path; what is not here is not installed there."""
    answers: dict[str, Any] = {path: {"items": []} for path in (PODS, QUEUES, RAY, TRAINER)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode() if found else b"404 page not found")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, f"http://127.0.0.1:{server.server_port}")))
        yield answers
        server.shutdown()


def kubeconfig(folder: Path, url: str) -> Path:
    """A kubeconfig of one cluster."""
    named: dict[str, Any] = {"clusters": [{"name": "test", "cluster": {"server": url}}]}
    named["users"] = [{"name": "test", "user": {}}]
    named["contexts"] = [{"name": "test", "context": {"cluster": "test", "user": "test"}}]
    file = folder / "kubeconfig"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "test", **named}))
    return file


@pytest.fixture
def seen(
    deployment: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, doctor.Check]]:
    """``seen(profile)``: what is found of the cluster with a profile of this text."""

    def look(profile: str = 'namespace = "video"\nqueue = "video-a"\n') -> dict[str, doctor.Check]:
        file = tmp_path / "cluster.toml"
        file.write_text(profile)
        monkeypatch.setenv("TELECINE_CLUSTER", str(file))
        here = dataclasses.replace(deployment, runner="cluster")
        names = ("profile", "cluster", "kueue", "kuberay", "trainer")
        return {check.what: check for check in doctor.examine(here) if check.what in names}

    return look


def test_a_cluster_with_everything_is_fit(lists: dict[str, Any], seen: Callable[..., dict[str, doctor.Check]]) -> None:
    lists[QUEUES] = {"items": [{"metadata": {"name": "video-a"}}]}
    found = seen()
    assert {what: check.state for what, check in found.items()} == dict.fromkeys(
        ("profile", "cluster", "kueue", "kuberay", "trainer"), "ok"
    )
    assert found["profile"].found == "namespace video, queue video-a"
    assert found["cluster"].found.startswith("http://127.0.0.1:")


def test_an_operator_that_is_absent_is_a_note_and_an_absent_queue_is_bad(
    lists: dict[str, Any], seen: Callable[..., dict[str, doctor.Check]]
) -> None:
    del lists[RAY], lists[TRAINER]
    found = seen()
    assert (found["kuberay"].state, found["trainer"].state) == ("note", "note")
    assert found["kuberay"].found.startswith("KubeRay's rayjobs (ray.io) are not installed")
    assert (found["kueue"].state, found["kueue"].found) == ("bad", "queues of video: none")
    assert "make the LocalQueue video-a" in found["kueue"].cure
    del lists[QUEUES]
    assert seen()["kueue"].state == "bad" and "name no queue" in seen()["kueue"].cure
    assert seen('namespace = "video"')["kueue"].state == "note"


def test_a_cluster_that_is_away_and_a_profile_that_is_wrong_are_bad(
    seen: Callable[..., dict[str, doctor.Check]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "http://127.0.0.1:9")))
    away = seen()
    assert set(away) == {"profile", "cluster"}
    assert away["cluster"].state == "bad" and "cannot be reached" in away["cluster"].found and away["cluster"].cure
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    assert "KUBECONFIG must name the kubeconfig" in seen()["cluster"].found
    wrong = seen("queues = 1")
    assert set(wrong) == {"profile"}
    assert wrong["profile"].state == "bad" and "did you mean 'queue'" in wrong["profile"].found


def test_a_machine_whose_tasks_run_elsewhere_needs_no_cluster(deployment: settings.Settings) -> None:
    assert {"profile", "cluster", "kueue"} & set(checks(deployment, deployment.store_uri)) == set()
