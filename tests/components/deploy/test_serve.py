"""deploy.serve as a process of its own: asked, bounded, cancelled, killed and started again."""

import dataclasses
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import psutil
import pytest

from telecine.storage import Store
from telecine_components.deploy.serve.access import NONCE, Access
from telecine_components.deploy.serve.tasks import Film

REPOSITORY = Path(__file__).parents[3]
START_TIMEOUT_S = 120.0
LONG = 10**6
FILM = Film(prompt="a square", seed=0, num_steps=1, guidance_scale=1.0, num_frames=2, height_px=8, width_px=8)


@pytest.fixture(scope="module")
def service(launcher: Any) -> Iterator[Any]:
    """One service for every test that leaves it as it found it."""
    started = launcher.start(model_name="served", allowed_hosts=["films.example"])
    yield started
    started.stop()


def test_a_film_is_made_and_its_record_says_by_what(service: Any) -> None:
    asked = service.ask(seed=3)
    assert asked["status"] in ("queued", "running", "done")
    data = service.film(asked)
    done = service.status(asked)
    assert (done["steps_done"], done["num_steps"], done["seed"]) == (4, 4, 3)
    assert done["model"] == "served version 1"
    assert done["seconds"] > 0 and done["error"] is None and done["eta_s"] is None
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (256, 256)
        assert len(list(container.decode(stream))) == 2
    assert asked["id"] in [task["id"] for task in service.http.get("/v1/videos").json()["videos"]]


def test_equal_requests_give_equal_bytes_and_another_seed_gives_others(service: Any) -> None:
    first, second, other = (service.film(service.ask(seed=seed)) for seed in (5, 5, 6))
    assert first == second
    assert first != other


def test_a_lora_is_served_and_can_be_turned_off(trained: Any, with_lora: Any, service: Any, launcher: Any) -> None:
    uris = {"model_uri": with_lora.model_uri, "training_uri": with_lora.training_uri}
    trained.run("deploy.register", run="with-lora", **uris, model_name="with-lora-served", alias="champion")
    films = [service.film(service.ask(seed=3))]
    for scale in (0, 1):
        tuned = launcher.start(model_name="with-lora-served", lora_scale=scale)
        films.append(tuned.film(tuned.ask(seed=3)))
        tuned.stop()
    assert films[0] == films[1] != films[2]


def test_a_browser_may_read_any_part_of_a_film(service: Any) -> None:
    task = service.ask(seed=1)
    whole, url = service.film(task), f"/v1/videos/{task['id']}/video.mp4"
    head = service.http.head(url)
    assert (head.headers["accept-ranges"], head.headers["content-type"]) == ("bytes", "video/mp4")
    assert int(head.headers["content-length"]) == len(whole)
    middle = len(whole) // 2
    parts = [service.http.get(url, headers={"Range": r}) for r in (f"bytes=0-{middle - 1}", f"bytes={middle}-")]
    assert [part.status_code for part in parts] == [206, 206]
    assert parts[0].headers["content-range"] == f"bytes 0-{middle - 1}/{len(whole)}"
    assert parts[0].content + parts[1].content == whole
    assert service.http.get(url, headers={"Range": "bytes=-10"}).content == whole[-10:]
    assert service.http.get(url, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/videos"),
        ("POST", "/v1/videos"),
        ("GET", "/v1/videos/1"),
        ("DELETE", "/v1/videos/1"),
        ("GET", "/v1/videos/1/video.mp4"),
        ("GET", "/v1/service"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/anything"),
    ],
)
def test_nothing_is_told_without_the_token(service: Any, method: str, path: str) -> None:
    guesses = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {service.token[:-1]}"},
        {"Authorization": f"Basic {service.token}"},
        {"Cookie": "telecine_session="},
        {"Cookie": f"telecine_session={service.token}"},
    ]
    for headers in guesses:
        reply = httpx.request(method, service.url + path, headers=headers)
        assert reply.status_code == 401, headers
        assert "a token is needed" in reply.json()["error"]


def test_a_login_gives_a_cookie_that_no_script_reads_and_no_other_site_sends(service: Any) -> None:
    with httpx.Client(base_url=service.url) as browser:
        assert browser.post("/login", content="not the token").status_code == 401
        assert browser.get("/v1/videos").status_code == 401
        given = browser.post("/login", content=service.token).headers["set-cookie"]
        assert "httponly" in given.lower() and "samesite=strict" in given.lower()
        assert service.token not in given
        assert browser.get("/v1/videos").status_code == 200
        browser.post("/logout")
        assert browser.get("/v1/videos").status_code == 401


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 202),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:9"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Authorization": "Basic x"}, 401),
        ({"Authorization": "Basic x", "Content-Type": "text/plain"}, 401),
        ({"Authorization": "Basic x", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Authorization": "Bearer wrong", "Origin": "http://127.0.0.1:9"}, 403),
        ({"Host": "films.example"}, 202),
        ({"Host": "films.example", "Origin": "https://films.example"}, 202),
        ({"Host": "rebound.example"}, 421),
        ({"Host": "[::1"}, 421),
    ],
)
def test_a_cookie_counts_only_from_the_services_own_page(service: Any, headers: dict[str, str], code: int) -> None:
    with httpx.Client(base_url=service.url) as browser:
        browser.post("/login", content=service.token)
        cookie = {"Cookie": f"telecine_session={browser.cookies['telecine_session']}"}
        sent = {"Content-Type": "application/json", **cookie, **headers}
        reply = httpx.post(f"{service.url}/v1/videos", content=b'{"prompt": "x"}', headers=sent)
    assert reply.status_code == code, reply.text
    if code == 202:
        service.film(reply.json())
    else:
        assert reply.json()["error"]
        assert "content-security-policy" in reply.headers


def test_only_the_service_that_has_the_token_can_prove_itself(service: Any) -> None:
    told = httpx.get(f"{service.url}/readyz", headers={NONCE: "once"}).json()
    assert told == {"status": "ready", "proof": Access(service.token).proof("once")}
    assert told["proof"] not in (Access(service.token).proof("twice"), Access(service.token).session)
    assert httpx.get(f"{service.url}/readyz").json() == {"status": "ready"}


def test_the_page_needs_nothing_else_and_may_run_nothing_else(service: Any) -> None:
    reply = httpx.get(service.url)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"""(src|href)=["'](?!data:)""", reply.text)
    assert "http://" not in reply.text and "https://" not in reply.text


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "the body must be a JSON object"),
        (b"[1]", "the body must be a JSON object, got list"),
        (b"\xff", "the body must be a JSON object"),
        (b"[" * 60_000, "the body must be a JSON object"),
        (b'{"prompt": "x", "seed": ' + b"1" * 5000 + b"}", "the body must be a JSON object"),
        (b'{"prompt": "x", "\\ud800": 1}', "there is no"),
        (b"{}", "prompt must be given"),
        (b'{"prompt": "  "}', "prompt must say something, got '  '"),
        (b'{"prompt": 7}', "prompt must be of type str, got 7"),
        (b'{"prompt": "\\ud800"}', "prompt must be valid Unicode"),
        (json.dumps({"prompt": "x" * 501}).encode(), "prompt must be at most 500 characters, got 501"),
        (b'{"prompt": "x", "sed": 1}', "there is no 'sed'; did you mean 'seed'?"),
        (b'{"prompt": "x", "seed": -1}', "seed must be at least 0, got -1"),
        (b'{"prompt": "x", "seed": true}', "seed must be of type int, got True"),
        (b'{"prompt": "x", "seed": 9223372036854775808}', "seed must be less than"),
        (b'{"prompt": "x", "num_steps": 1000001}', "num_steps must be at most 1000000 here, got 1000001"),
        (b'{"prompt": "x", "num_frames": 65}', "num_frames must be at most 64 here, got 65"),
        (b'{"prompt": "x", "height_px": 132}', "height_px must be at most 128 here, got 132"),
        (b'{"prompt": "x", "width_px": 9}', "width_px must be a multiple of 4 (the model's patch), got 9"),
        (b'{"prompt": "x", "guidance_scale": NaN}', "guidance_scale must be a finite number"),
    ],
)
def test_a_request_that_cannot_work_is_refused_in_one_sentence(service: Any, body: bytes, complaint: str) -> None:
    reply = service.http.post("/v1/videos", content=body)
    assert reply.status_code == 422
    assert complaint in reply.json()["error"]


def test_a_flood_is_refused_before_it_fills_the_memory(service: Any) -> None:
    assert service.http.post("/v1/videos", content=b" " * 70_000).status_code == 413
    assert service.http.post("/login", content=b" " * 70_000).status_code == 413
    long_key = service.http.post("/v1/videos", json={"prompt": "x"}, headers={"Idempotency-Key": "k" * 201})
    assert long_key.status_code == 422


def test_what_is_not_there_is_404_and_what_is_not_done_has_no_film(service: Any) -> None:
    for path in ("/v1/videos/none", "/v1/videos/none/video.mp4", "/v1/videos/..%2f..%2fserver.json"):
        assert service.http.get(path).status_code == 404
    task = service.ask(num_steps=LONG)
    assert service.http.get(f"/v1/videos/{task['id']}/video.mp4").status_code == 409
    service.http.delete(f"/v1/videos/{task['id']}")


def test_a_film_that_somebody_removed_is_gone_and_no_defect(service: Any, launcher: Any) -> None:
    task = service.ask(seed=21)
    service.film(task)
    Store(launcher.here.store_uri).delete(f"services/served/tasks/{task['id']}/video.mp4")
    gone = service.http.get(f"/v1/videos/{task['id']}/video.mp4")
    assert (gone.status_code, "no longer in the store" in gone.json()["error"]) == (410, True)


def test_a_request_that_is_sent_again_is_the_same_task(service: Any) -> None:
    first = service.ask(key="once", seed=11)
    assert service.ask(key="once", seed=11)["id"] == first["id"]
    assert service.ask(seed=11)["id"] != first["id"]
    other = service.http.post("/v1/videos", json={"prompt": "something else"}, headers={"Idempotency-Key": "once"})
    assert other.status_code == 422
    assert first["id"] in other.json()["error"]
    service.film(first)


def test_the_queue_is_bounded_and_what_waits_or_runs_can_be_cancelled(service: Any) -> None:
    running = service.ask(num_steps=LONG)
    service.wait(running, "running")
    waiting = [service.ask(num_steps=LONG) for _ in range(2)]
    assert [service.status(task)["queue_position"] for task in waiting] == [1, 2]
    refused = service.http.post("/v1/videos", json={"prompt": "one too many"})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    slowest = max(_seconds(service, "/healthz") for _ in range(20))
    print(f"slowest of 20 health checks while a film is made: {1000 * slowest:.0f} ms")
    assert slowest < 2
    while not (steps := service.status(running)["steps_done"]):
        assert service.status(running)["status"] == "running"
    assert steps < LONG
    for task in (*waiting, running):
        assert service.http.delete(f"/v1/videos/{task['id']}").json()["status"] == "cancelled"
    service.film(service.ask(seed=12))
    assert [service.status(task)["status"] for task in (*waiting, running)] == ["cancelled"] * 3


def _seconds(service: Any, path: str) -> float:
    began = time.monotonic()
    assert service.http.get(path).status_code == 200
    return time.monotonic() - began


def test_prometheus_reads_counts_and_no_text_of_anybody(service: Any) -> None:
    service.film(service.ask("a secret prompt", seed=13))
    text = service.http.get("/metrics").text
    assert "telecine_serve_queue_length 0.0" in text
    assert re.search(r'telecine_serve_tasks_total\{state="done"\} [1-9]', text)
    assert re.search(r"telecine_serve_film_seconds_count [1-9]", text)
    assert 'route="/v1/videos/{name}"' in text
    assert "secret" not in text


def test_a_second_service_of_the_same_model_is_refused(service: Any, launcher: Any) -> None:
    process, log, _ = launcher.call(model_name="served")
    assert process.wait(60) == 78
    assert "services/served is served by process" in log.read_text()


def test_the_token_is_in_no_log_no_argument_no_file_and_no_child(service: Any, launcher: Any) -> None:
    assert service.token.encode() not in Path(f"/proc/{service.process.pid}/cmdline").read_bytes()
    assert service.token not in service.log.read_text()
    assert "a red square" not in service.log.read_text(), "nor is a prompt"
    held = [
        path for path in launcher.here.home.rglob("*") if path.is_file() and service.token.encode() in path.read_bytes()
    ]
    assert held == []


def test_after_a_kill_what_was_done_stays_and_what_was_running_runs_again(launcher: Any) -> None:
    register(launcher, "killed")
    first = launcher.start(model_name="killed")
    done = first.ask(key="kept", seed=1)
    film = first.film(done)
    running = first.ask(num_steps=3000, seed=2)
    first.wait(running, "running")
    waiting = first.ask(seed=3)
    first.stop(signal.SIGKILL)
    second = launcher.start(model_name="killed")
    assert second.film(done) == film
    assert second.ask(key="kept", seed=1)["id"] == done["id"]
    assert second.film(running) == second.film(second.ask(num_steps=3000, seed=2))
    second.film(waiting)
    assert second.stop() == 0


def test_a_stop_puts_the_running_film_back_and_is_a_commit(launcher: Any) -> None:
    register(launcher, "stopped")
    first = launcher.start(model_name="stopped")
    first.film(first.ask(seed=1))
    running = first.ask(num_steps=LONG)
    first.wait(running, "running")
    began = time.monotonic()
    assert first.stop() == 0, first.log.read_text()
    print(f"from SIGTERM to the end: {time.monotonic() - began:.1f} s")
    outputs = json.loads(first.result.read_text())["outputs"]
    assert (outputs["num_done"], outputs["num_failed"], outputs["num_waiting"]) == (1, 0, 1)
    assert Path(outputs["service_uri"].removeprefix("file://")).is_file()
    store = Store(launcher.here.store_uri)
    assert store.read_json(f"services/stopped/tasks/{running['id']}/task.json")["state"] == "queued"


@pytest.mark.parametrize(
    ("token", "inputs", "complaint"),
    [
        ("", {}, "TELECINE_SERVE_TOKEN must hold a token of at least 16 characters, got 0"),
        ("short", {}, "at least 16 characters, got 5"),
        (None, {"alias": "nobody"}, "MLflow has no version with the alias 'nobody' of 'served'"),
        (None, {"model_name": "nothing"}, "MLflow has no version with the alias 'champion' of 'nothing'"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(
    launcher: Any, token: str | None, inputs: dict[str, Any], complaint: str
) -> None:
    process, log, _ = launcher.call(token=token, **{"model_name": "served", **inputs})
    assert process.wait(60) == 78
    assert complaint in log.read_text().splitlines()[-1]


def test_a_port_that_is_taken_is_told_with_what_to_do(launcher: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process, log, _ = launcher.call(model_name="served", port=taken.getsockname()[1])
        assert process.wait(60) == 78
    assert "set port (make serve: TELECINE_SERVE_PORT) to a free one" in log.read_text()


def test_weights_and_films_may_lie_on_s3(launcher: Any, s3_store: str) -> None:
    store = Store(s3_store)
    folder = weights(launcher)
    for file in (path for path in folder.rglob("*") if path.is_file()):
        store.upload(file, f"models/far/{file.relative_to(folder)}")
    register(launcher, "far", source=store.uri_of("models/far"))
    remote = type(launcher)(dataclasses.replace(launcher.here, store_uri=s3_store), launcher.folder / "far")
    remote.folder.mkdir()
    try:
        far = remote.start(model_name="far")
        task = far.ask(seed=4)
        film = far.film(task)
        assert far.http.get(f"/v1/videos/{task['id']}/video.mp4", headers={"Range": "bytes=0-9"}).content == film[:10]
        assert store.read(f"services/far/tasks/{task['id']}/video.mp4") == film
        assert far.stop() == 0, far.log.read_text()
        assert json.loads(far.result.read_text())["outputs"]["service_uri"].startswith(f"{s3_store}/work/deploy.serve/")
    finally:
        remote.end()


def test_make_serve_tells_where_it_is_and_passes_a_stop_on(launcher: Any, tmp_path: Path) -> None:
    register(launcher, "made")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mine = {"TELECINE_SERVE_PORT": str(port), "TELECINE_SERVE_MODEL_NAME": "made", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(REPOSITORY / "infra" / "local" / "serve.py")]
    environment = {name: value for name, value in os.environ.items() if name != "TELECINE_SERVE_TOKEN"}
    log = tmp_path / "serve.log"
    with log.open("wb") as output:
        made = subprocess.Popen(
            command, env=environment | launcher.here.environment() | mine, stdout=output, stderr=output
        )
    launcher.started.append(made)
    deadline = time.monotonic() + START_TIMEOUT_S
    while (found := re.search(r"^Telecine  (http://127\.0\.0\.1:\d+)  token  (\S+)$", log.read_text(), re.M)) is None:
        assert made.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    assert found[1].endswith(f":{port}")
    told = httpx.get(f"{found[1]}/v1/service", headers={"Authorization": f"Bearer {found[2]}"})
    assert told.status_code == 200, told.text
    (child,) = psutil.Process(made.pid).children()
    assert found[2] not in " ".join(child.cmdline())
    made.send_signal(signal.SIGTERM)
    assert made.wait(60) == 0, log.read_text()
    assert not child.is_running()
    kept = launcher.here.home / "secrets.json"
    assert json.loads(kept.read_text())["serve_token"] == found[2], "the next start has the same token"
    assert kept.stat().st_mode & 0o077 == 0


def test_make_serve_gives_no_token_to_a_foreign_server(launcher: Any) -> None:
    command = [sys.executable, str(REPOSITORY / "infra" / "local" / "serve.py")]
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        port = str(foreign.getsockname()[1])
        environment = os.environ | launcher.here.environment() | {"TELECINE_SERVE_PORT": port}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (78, "")
    assert f"port {port} is in use; set TELECINE_SERVE_PORT to a free one" in done.stderr


def test_make_serve_refuses_a_port_that_is_none(launcher: Any) -> None:
    command = [sys.executable, str(REPOSITORY / "infra" / "local" / "serve.py")]
    environment = os.environ | launcher.here.environment() | {"TELECINE_SERVE_PORT": "eighty"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert done.stderr == "telecine: TELECINE_SERVE_PORT must be a port from 1 to 65535, got 'eighty'\n"


def weights(launcher: Any) -> Path:
    """Folder of the champion of the tests."""
    from telecine import tracking

    source = tracking.connect(launcher.here).get_model_version_by_alias("served", "champion").source
    return Path(str(source).removeprefix("file://"))


def register(launcher: Any, name: str, source: str = "") -> None:
    """Another name for the champion of the tests, so that a service of its own may serve it."""
    from telecine import tracking

    client = tracking.connect(launcher.here)
    served = client.get_model_version_by_alias("served", "champion")
    client.create_registered_model(name)
    made = client.create_model_version(name, source or served.source, run_id=served.run_id)
    client.set_registered_model_alias(name, "champion", made.version)
