import base64
import contextlib
import dataclasses
import functools
import http.server
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from telecine.errors import InputError, RetryLater
from telecine.settings import Settings
from telecine_components.caption.write.asking import Asker, Window
from telecine_components.caption.write.prompt import MAX_CHARS, MAX_WORDS, BadAnswer, parse
from telecine_components.caption.write.spec import COMPONENT, Inputs
from telecine_components.caption.write.told import Meter, Told
from telecine_components.media.clips import PARTS

Pixels = npt.NDArray[np.uint8]
Film = Callable[..., Pixels]
Run = Callable[..., Any]
Manifest = Callable[..., Path]
Rows = Callable[[str], dict[str, dict[str, Any]]]
KEY = "sk-not-a-real-key-0123456789"
GOOD = {part: f"A {part.replace('_', ' ')}." for part in PARTS}
NUM_TOKENS = 42


@dataclasses.dataclass
class Reply:
    """What goes back: a completion with ``content``, or ``body`` as it is, in ten parts ``trickle_s`` apart."""

    content: str = json.dumps(GOOD)
    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: str | None = None
    message: dict[str, Any] = dataclasses.field(default_factory=dict)
    finish_reason: str = "stop"
    after_s: float = 0.0
    trickle_s: float = 0.0

    def encoded(self) -> bytes:
        """The body."""
        if self.body is not None:
            return self.body.encode()
        if self.status != 200:
            return json.dumps({"error": {"message": f"status {self.status}", "type": "error", "code": None}}).encode()
        message = {"role": "assistant", "content": self.content} | self.message
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        usage = {"prompt_tokens": 900, "completion_tokens": NUM_TOKENS, "total_tokens": 900 + NUM_TOKENS}
        frame = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "tiny-vl"}
        return json.dumps(frame | {"choices": [choice], "usage": usage}).encode()


class ModelServer:
    """Speaks OpenAI's chat protocol over real HTTP; a question without frames is a probe.

    Attributes:
        script: what it answers to the request of a number, from 1 on.
        requests: bodies of those about frames, in the order in which they came.
        keys: what their Authorization header said.
        most_at_once: how many were being answered at the same time, at most.
    """

    def __init__(self) -> None:
        self.script: Callable[[int, dict[str, Any]], Reply] = lambda number, request: Reply()
        self.probe = Reply("yes")
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def reply(self, request: dict[str, Any], key: str | None) -> Reply:
        """The answer to one request."""
        if not isinstance(request["messages"][0]["content"], list):
            return self.probe
        with self._lock:
            self.requests.append(request)
            self.keys.add(key)
            number = len(self.requests)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        found = self.script(number, request)
        time.sleep(found.after_s)
        with self._lock:
            self._at_once -= 1
        return found

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/chat/completions"
                reply = server.reply(request, self.headers["Authorization"])
                body = reply.encoded()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who waited may have gone
                    self.send_response(reply.status)
                    for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    for part in range(10):
                        self.wfile.write(body[part * len(body) // 10 : (part + 1) * len(body) // 10])
                        time.sleep(reply.trickle_s)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A model server, and its key in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = ModelServer()
    yield made
    made.close()


@pytest.fixture
def ask(run_component: Run, tmp_path: Path, manifest: Manifest, film: Film, server: ModelServer) -> Run:
    """``ask(num_clips, **inputs)``: caption clips a.mp4, b.mp4, … by the server."""

    def run(num_clips: int = 1, *, num_frames: int = 8, **inputs: Any) -> Any:
        manifest({f"{chr(97 + index)}.mp4": film(num_frames, right=index + 1) for index in range(num_clips)})
        here = {"clips_uri": tmp_path / "clips.parquet", "videos_uri": tmp_path / "videos"}
        there = {
            "captioner": "openai",
            "endpoint_url": server.url,
            "model": "tiny-vl",
            "max_tries": 2,
            "timeout_s": 20.0,
        }
        return run_component("caption.write", **(here | there | inputs))

    return run


@pytest.fixture
def ask_one(server: ModelServer) -> Callable[..., Told]:
    """``ask_one(*windows, **inputs)``: what is said of one clip by the server."""

    def ask(*shown: Window, **inputs: Any) -> Told:
        there = {"endpoint_url": server.url, "model": "tiny-vl", "max_tries": 2, "timeout_s": 20.0}
        made = Inputs(clips_uri="-", videos_uri="-", captioner="openai", **(there | inputs))
        return Asker(made).caption(shown or [Window(1.0, [b"jpeg"])], Meter())

    return ask


def _faults(outputs: Any) -> list[str]:
    return list(json.loads(Path(outputs.faults_uri.removeprefix("file://")).read_text()).values())


def _pictures(request: dict[str, Any]) -> list[Image.Image]:
    urls = [part["image_url"]["url"] for part in request["messages"][0]["content"] if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,")))) for url in urls]


def _is_about(request: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(request["messages"] == other["messages"])


def test_a_model_captions_every_clip_from_its_frames(
    ask: Run, server: ModelServer, rows_of: Rows, deployment: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    def script(number: int, request: dict[str, Any]) -> Reply:
        return Reply(f"your key is {KEY}") if _is_about(request, server.requests[0]) else Reply(after_s=0.3)

    server.script = script
    outputs = ask(5, num_frames=24, frame_side_px=96, max_in_flight=3, window_frames=12, min_window_frames=12)
    rows = rows_of(outputs.clips_uri)
    told = [row for row in rows.values() if row["captioner"] == "tiny-vl"]
    for row in told:
        assert (row["caption"], row["captions"]) == (GOOD["dense"], GOOD)
        assert json.loads(row["stages"][-1]["settings"])["model"] == "tiny-vl"
    assert len(server.requests) == 2 * 4 + 2, "two windows of each, and two tries of one"
    assert {len(_pictures(request)) for request in server.requests} == {8}
    assert {picture.size for request in server.requests for picture in _pictures(request)} == {(96, 54)}
    assert all(request["response_format"]["type"] == "json_schema" for request in server.requests)
    assert 2 <= server.most_at_once <= 3
    # The one without an answer keeps a caption of signals, and the batch goes on.
    other = next(row for row in rows.values() if row["captioner"] == "signals")
    assert len(told) == 4 and "The camera" in other["caption"] and other["reason"] is None
    assert (outputs.num_captioned, outputs.num_faults, outputs.num_output_tokens) == (5, 1, 10 * NUM_TOKENS)
    assert _faults(outputs) == ["not a JSON object: 'your key is [OPENAI_API_KEY]'"]
    # The key goes to the server and nowhere else.
    assert server.keys == {f"Bearer {KEY}"}
    assert [path for path in deployment.home.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []
    assert KEY not in "".join(capfd.readouterr())


def test_windows_are_merged(ask_one: Callable[..., Told], server: ModelServer) -> None:
    server.script = lambda number, request: Reply(json.dumps(GOOD | {"action": f"Step {number}."}))
    told = ask_one(Window(8.5, [b"one"]), Window(5.0, [b"two"]))
    assert told.parts == GOOD | {"action": "Step 1. Step 2."}
    assert told.num_output_tokens == 2 * NUM_TOKENS


def test_a_busy_or_broken_server_is_asked_again_when_it_says(ask_one: Callable[..., Told], server: ModelServer) -> None:
    replies = [Reply(status=429, headers={"Retry-After": "1"}), Reply(), Reply(status=500), Reply()]
    server.script = lambda number, request: replies[number - 1]
    started = time.monotonic()
    assert ask_one().captioner == "tiny-vl"
    assert time.monotonic() - started > 1.0
    assert ask_one().captioner == "tiny-vl"
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("I see a lake."), "not a JSON object: 'I see a lake.'"),
        (Reply('{"dense": "A lake."'), "not a JSON object"),
        (Reply('{"dense": "A lake.",}'), "not JSON"),
        (Reply(json.dumps(GOOD | {"camera": " "})), "without camera"),
        (Reply(message={"content": None, "refusal": "I must not."}), "refused: I must not."),
        (Reply(finish_reason="length"), f"cut off after {NUM_TOKENS} tokens"),
        (Reply(body="<html>hello</html>", headers={"Content-Type": "text/html"}), "no chat completion"),
        (Reply(body="{not json"), "no chat completion"),
        (Reply(body='{"choices": []}'), "no chat completion"),
        (Reply(body='{"choices": [{}]}'), "no chat completion"),
        (Reply(body="[]"), "no chat completion"),
        (Reply(body='{"choices": 5}'), "no chat completion"),
        (Reply(body='{"choices": ' + "1" * 5000 + "}"), "no chat completion"),
        (Reply(message={"content": [{"type": "text", "text": "A lake."}]}), "no chat completion"),
        (Reply('{"dense": ' + "1" * 5000 + "}"), "not JSON"),
        (Reply('{"dense":' * 2000 + "1" + "}" * 2000), "not JSON"),
        (Reply(json.dumps(GOOD | {"style": "Half a smile \ud83d."})), "half a character in style"),
        (Reply("\ud83d"), "not a JSON object: '?'"),
        (Reply(message={"content": None, "refusal": "No \ud83d."}), "refused: No ?."),
    ],
)
def test_an_answer_that_is_no_caption_is_asked_for_again_and_then_given_up(
    ask_one: Callable[..., Told], server: ModelServer, reply: Reply, reason: str
) -> None:
    server.script = lambda number, request: reply
    told = ask_one()
    assert len(server.requests) == 2
    assert told.fault.startswith(reason)
    assert told.parts == {}
    server.script = lambda number, request: reply if number == 3 else Reply()
    told = ask_one()
    assert (told.parts, told.fault, len(server.requests)) == (GOOD, "", 4)


def test_a_clip_on_which_a_working_server_fails_is_given_up(ask_one: Callable[..., Told], server: ModelServer) -> None:
    server.script = lambda number, request: Reply(status=500)
    told = ask_one()
    assert len(server.requests) == 2
    assert told.fault.startswith("the server fails on it: ")


@pytest.mark.parametrize("reply", [Reply(after_s=1.2), Reply(trickle_s=0.25)])
def test_a_server_that_is_slow_is_asked_again_and_then_tried_later(
    ask_one: Callable[..., Told], server: ModelServer, reply: Reply
) -> None:
    """Also one that is never silent for long: gateways keep a connection alive by blanks while a model thinks."""
    server.script = lambda number, request: reply
    with pytest.raises(RetryLater, match=r"/v1 gave no whole answer within timeout_s=0\.5, 2 times in turn; "):
        ask_one(timeout_s=0.5)
    assert len(server.requests) == 2
    server.script = lambda number, request: reply if number == 3 else Reply(trickle_s=0.02)
    assert ask_one(timeout_s=0.5).fault == ""
    assert len(server.requests) == 4


def test_a_clip_that_a_slow_server_gave_no_caption_of_is_asked_about_again_and_no_other(
    ask: Run, server: ModelServer, rows_of: Rows
) -> None:
    server.script = lambda number, request: Reply(after_s=1.0 if number == 2 else 0.0)
    with pytest.raises(RetryLater, match="no whole answer within timeout_s"):
        ask(3, max_in_flight=1, max_tries=1, timeout_s=0.4)
    assert len(server.requests) == 2
    rows = rows_of(ask(3, max_in_flight=1, max_tries=1, timeout_s=5.0).clips_uri)
    assert {row["captioner"] for row in rows.values()} == {"tiny-vl"}
    assert len(server.requests) == 4, "the one that is there is not asked for again"


def test_a_server_that_breaks_is_tried_later_and_asked_for_no_caption_twice(
    ask: Run, server: ModelServer, rows_of: Rows
) -> None:
    server.script = lambda number, request: Reply() if number <= 2 else Reply(status=500)
    server.probe = Reply(status=500)
    with pytest.raises(RetryLater, match="is broken: "):
        ask(4, max_in_flight=1, max_tries=1)
    asked = len(server.requests)
    assert asked == 3
    server.probe = Reply(body="<html>Bad gateway</html>", headers={"Content-Type": "application/json"})
    with pytest.raises(RetryLater, match="is broken: "):
        ask(4, max_in_flight=1, max_tries=1)
    asked = len(server.requests)
    server.script, server.probe = (lambda number, request: Reply()), Reply("yes")
    outputs = ask(4, max_in_flight=4, max_tries=1, timeout_s=5.0)
    assert {row["captioner"] for row in rows_of(outputs.clips_uri).values()} == {"tiny-vl"}
    assert len(server.requests) - asked == 2
    # Where it is and how fast it is asked is no other work; another model is.
    ask(4, max_tries=1, endpoint_url="http://127.0.0.1:9/v1")
    assert len(server.requests) - asked == 2
    ask(4, max_tries=1, model="other")
    assert len(server.requests) - asked == 6


def test_a_server_that_is_away_or_stays_busy_is_tried_later(ask_one: Callable[..., Told], server: ModelServer) -> None:
    """502 to 504 say that by the mouth of a gateway, which may answer a plain question all the same."""
    with pytest.raises(RetryLater, match="cannot be reached: "):
        ask_one(endpoint_url="http://127.0.0.1:9/v1", max_tries=1)
    for status in (408, 409, 429, 502, 503, 504):
        server.script = functools.partial(_refusing, status)
        with pytest.raises(RetryLater, match=f"is busy or away: .*{status}"):
            ask_one(max_tries=1)


def _refusing(status: int, number: int, request: dict[str, Any]) -> Reply:
    return Reply(status=status)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(status=401), r"refuses the key in OPENAI_API_KEY \(401\); set the right one"),
        (Reply(status=403), r"refuses the key in OPENAI_API_KEY \(403\)"),
        (Reply(status=404), r"has no model 'tiny-vl', or is no base URL"),
        (
            Reply(status=429, body='{"error": {"message": "no money", "code": "insufficient_quota"}}'),
            r"the quota of the key in OPENAI_API_KEY is used up",
        ),
    ],
)
def test_what_a_person_has_to_mend_is_told(
    ask_one: Callable[..., Told], server: ModelServer, reply: Reply, message: str
) -> None:
    server.script = lambda number, request: reply
    with pytest.raises(InputError, match=message):
        ask_one(max_tries=1)


def test_a_wrong_key_ends_the_batch_at_once(ask: Run, server: ModelServer) -> None:
    server.script = lambda number, request: Reply(status=401)
    with pytest.raises(InputError):
        ask(6, max_in_flight=2)
    assert len(server.requests) <= 2


def test_a_server_without_schemas_is_asked_plainly_from_then_on(
    ask_one: Callable[..., Told], server: ModelServer
) -> None:
    server.script = lambda number, request: Reply(status=400) if "response_format" in request else Reply()
    assert ask_one(Window(1.0, [b"one"]), Window(1.0, [b"two"])).fault == ""
    assert ["response_format" in request for request in server.requests] == [True, False, False]


@pytest.mark.parametrize("status", [400, 402, 405])
def test_a_server_that_refuses_everything_is_told_from_one_that_refuses_a_clip(
    ask_one: Callable[..., Told], server: ModelServer, status: int
) -> None:
    """402: no money left, by some servers; 405: no base URL, by others."""
    server.script = lambda number, request: Reply(status=status)
    server.probe = Reply(status=status)
    with pytest.raises(InputError, match="refuses every request: "):
        ask_one()
    server.probe = Reply("yes")
    assert ask_one().fault.startswith(f"the server {'refuses' if status == 400 else 'fails on'} it: ")


def test_clips_too_short_to_be_asked_about_are_items_of_their_own(
    ask: Run, server: ModelServer, deployment: Settings
) -> None:
    outputs = ask(4, num_frames=3, max_in_flight=4)
    assert _faults(outputs) == ["too few frames to ask about"] * 4
    items = outputs.clips_uri.removeprefix("file://").partition("/work/")[0]
    commits = list(Path(items).glob("work/caption.write/items/*/commit.json"))
    assert len(commits) == 4 + 4, "a look and an answer each: threads would make one item at the same time"
    assert server.requests == []


def test_a_clip_without_a_window_is_not_asked_about(ask_one: Callable[..., Told], server: ModelServer) -> None:
    made = Inputs(clips_uri="-", videos_uri="-", captioner="openai", endpoint_url=server.url, model="tiny-vl")
    told = Asker(made).caption([], Meter())
    assert (told.parts, told.fault, server.requests) == ({}, "too few frames to ask about", [])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"endpoint_url": "localhost:8000"}, r"endpoint_url must be http\(s\)://host/v1 for captioner openai, got 'lo"),
        ({"endpoint_url": "http://[::1/v1"}, "endpoint_url must be http"),
        ({"endpoint_url": "http://localhost:80000/v1"}, "endpoint_url must be http"),
        ({"endpoint_url": "http://me:pass@localhost/v1"}, "endpoint_url must not hold credentials; set OPENAI_API_KEY"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused_before_anything_is_sent(
    ask_one: Callable[..., Told], inputs: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ask_one(**inputs)


@pytest.mark.parametrize("name", ["endpoint_url", "model"])
def test_a_model_without_its_name_or_place_is_refused_when_inputs_are_made(name: str) -> None:
    there = {"captioner": "openai", "endpoint_url": "http://127.0.0.1:8000/v1", "model": "tiny-vl"}
    values = {"clips_uri": "-", "videos_uri": "-"} | there
    assert COMPONENT.parse(values) and COMPONENT.parse(values | {"captioner": "signals", name: ""})
    with pytest.raises(InputError, match=f"caption.write: {name} must be given where captioner is 'openai'"):
        COMPONENT.parse(values | {name: ""})


def test_answers_in_a_fence_are_read_and_essays_are_not() -> None:
    assert parse(f"Here it is:\n```json\n{json.dumps(GOOD)}\n```") == GOOD
    assert parse(json.dumps(GOOD | {"dense": " A  lake.\n"}))["dense"] == "A lake."
    with pytest.raises(BadAnswer, match=f"style has more than {MAX_WORDS} words"):
        parse(json.dumps(GOOD | {"style": "a " * (MAX_WORDS + 1), "dense": "lake" * 200}))
    with pytest.raises(BadAnswer, match=f"action has more than {MAX_WORDS} words, or {MAX_CHARS} characters"):
        parse(json.dumps(GOOD | {"action": "ha" * MAX_CHARS}))
