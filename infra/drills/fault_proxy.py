"""A proxy between a client and an S3 server that does, with a seed, what networks and object stores do.

Headers go through unchanged, Host included, because they are signed. Each request draws one of the plan's faults or
none; what was done is counted.
"""

import collections
import contextlib
import dataclasses
import http.client
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape, unescape

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
STALE_S = 3.0
LATE_S = (0.2, 1.5)
SLOW_S = (0.3, 1.5)
ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message></Error>'


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to do to requests.

    Attributes:
        rates: share of the requests that meet each fault, by the fault's name; see :data:`FAULTS`.
        skew: added to every date that the server tells.
    """

    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    skew: timedelta = timedelta()


@dataclasses.dataclass(frozen=True)
class Request:
    """One request, read to its end."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def key(self) -> str:
        """Bucket and key."""
        return unquote(self.target.partition("?")[0]).lstrip("/")

    @property
    def is_listing(self) -> bool:
        """Whether it asks which objects there are."""
        return self.method == "GET" and "list-type=2" in self.target


@dataclasses.dataclass
class Reply:
    """What the server answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FaultProxy(ThreadingHTTPServer):
    """The proxy, served by threads of this process.

    Args:
        upstream: port of the server on this machine.
        port: its own port, or 0 for any free one; :attr:`server_port` says which.
        meet: called with every request before anything is done with it; a drill may kill its sender here.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, upstream: int, seed: int, *, port: int = 0, meet: Callable[[Request], str | None] = lambda _: None
    ) -> None:
        self.upstream, self.meet = upstream, meet
        self.plan = Plan()
        self.injected: collections.Counter[str] = collections.Counter()
        self.num_requests = 0
        self._random, self._lock = random.Random(seed), threading.Lock()  # noqa: S311 - faults, no secrets
        self._written: dict[str, float] = {}
        self._removed: dict[str, float] = {}
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop answering: open connections are reset and new ones refused from now on."""
        self.shutdown()
        self.server_close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Remember the connection."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """Forget the connection."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: connections that break are what this is for."""

    def draw(self, request: Request) -> str | None:
        """The fault that this request meets."""
        with self._lock:
            self.num_requests += 1
            point = self._random.random()
            for fault, rate in self.plan.rates.items():
                if point < rate and APPLIES[fault](request):
                    return fault
                point -= rate
        return None

    def between(self, low_s: float, high_s: float) -> float:
        """A seeded number of seconds."""
        with self._lock:
            return self._random.uniform(low_s, high_s)

    def count(self, fault: str) -> None:
        """Note that a fault was done."""
        with self._lock:
            self.injected[fault] += 1

    def remember(self, request: Request) -> None:
        """Note what a stale listing will not know yet."""
        if request.method in ("PUT", "DELETE") and "?" not in request.target:
            times, other = self._written, self._removed
            if request.method == "DELETE":
                times, other = other, times
            with self._lock:
                times[request.key] = time.monotonic()
                other.pop(request.key, None)

    def make_stale(self, request: Request, reply: Reply) -> Reply:
        """The listing as it stood :data:`STALE_S` ago: without what is young, with what was just removed."""
        bucket, query = request.key.partition("/")[0], dict(parse_qsl(request.target.partition("?")[2]))
        since = time.monotonic() - STALE_S
        with self._lock:
            young = {key.partition("/")[2] for key, at in self._written.items() if at > since}
            gone = {key.partition("/")[2] for key, at in self._removed.items() if at > since and key.startswith(bucket)}

        def keep(found: re.Match[str]) -> str:
            key = re.search("<Key>(.*?)</Key>", found.group())
            return "" if key and unquote(unescape(key[1])) in young else found.group()

        text = re.sub("<Contents>.*?</Contents>", keep, reply.body.decode(), flags=re.DOTALL)
        if not query.get("delimiter"):
            text = text.replace("</ListBucketResult>", _rows(gone, query.get("prefix", "")) + "</ListBucketResult>")
        return Reply(reply.status, reply.headers, text.encode())

    def forward(self, request: Request, *, share: float = 1.0) -> Reply | None:
        """Send a request on. With ``share`` below 1 the connection breaks in the middle of its body: no reply."""
        self.remember(request)
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers:
                connection.putheader(name, value)
            connection.endheaders()
            connection.send(request.body[: int(len(request.body) * share)])
            if share < 1:
                return None
            answer = connection.getresponse()
            return Reply(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultProxy

    def parse_request(self) -> bool:
        done = super().parse_request()
        if done:
            setattr(self, f"do_{self.command}", self._serve)
        return done

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        request = Request(self.command, self.path, list(self.headers.items()), body)
        if len(body) < length:
            return self.cut()
        fault = self.server.meet(request) or self.server.draw(request)
        try:
            if fault is None:
                return self.answer(self.server.forward(request))
            self.server.count(fault)
            FAULTS[fault](self, request)
        except OSError:
            self.cut()

    def answer(self, reply: Reply | None, *, share: float = 1.0) -> None:
        """Send a reply, or only the first part of its body with the length of all of it."""
        if reply is None:
            return self.cut()
        reply = _shifted(reply, self.server.plan.skew)
        self.send_response_only(reply.status)
        for name, value in reply.headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if reply.status != 204:
            length = dict((name.lower(), value) for name, value in reply.headers).get("content-length")
            told = length if self.command == "HEAD" else None
            self.send_header("Content-Length", told or str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: int(len(reply.body) * share)])
        if share < 1:
            self.wfile.flush()
            self.cut()

    def cut(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wfile.flush()
        self.connection.close()


def _error(status: int, code: str) -> Callable[[_Handler, Request], None]:
    def fault(handler: _Handler, request: Request) -> None:
        handler.answer(Reply(status, [("Content-Type", "application/xml")], ERROR.format(code=code).encode()))

    return fault


def _cut_reply(handler: _Handler, request: Request) -> None:
    reply = handler.server.forward(request)
    assert reply is not None
    handler.answer(reply, share=0.5) if reply.body else handler.cut()


def _cut_request(handler: _Handler, request: Request) -> None:
    handler.server.forward(request, share=0.5)
    handler.cut()


def _reply_lost(handler: _Handler, request: Request) -> None:
    handler.server.forward(request)
    handler.cut()


def _doubled_now(handler: _Handler, request: Request) -> None:
    handler.server.forward(request)
    handler.answer(handler.server.forward(request))


def _doubled_late(handler: _Handler, request: Request) -> None:
    reply = handler.server.forward(request)
    timer = threading.Timer(handler.server.between(*LATE_S), _again, (handler.server, request))
    timer.daemon = True
    timer.start()
    handler.answer(reply)


def _again(proxy: FaultProxy, request: Request) -> None:
    try:
        proxy.forward(request)
    except OSError:
        proxy.count("late_copy_found_no_server")


def _dropped(handler: _Handler, request: Request) -> None:
    handler.cut()


def _slow(handler: _Handler, request: Request) -> None:
    time.sleep(handler.server.between(*SLOW_S))
    handler.answer(handler.server.forward(request))


def _stale(handler: _Handler, request: Request) -> None:
    reply = handler.server.forward(request)
    assert reply is not None
    handler.answer(handler.server.make_stale(request, reply) if reply.status == 200 else reply)


FAULTS: dict[str, Callable[[_Handler, Request], None]] = {
    "500": _error(500, "InternalError"),
    "503": _error(503, "SlowDown"),
    "dropped": _dropped,
    "cut_reply": _cut_reply,
    "cut_request": _cut_request,
    "reply_lost": _reply_lost,
    "doubled_now": _doubled_now,
    "doubled_late": _doubled_late,
    "slow": _slow,
    "stale": _stale,
}
"""What can be done to a request, by name."""


def _is_plain_put(request: Request) -> bool:
    return request.method == "PUT" and "?" not in request.target


def _always(request: Request) -> bool:
    return True


APPLIES: dict[str, Callable[[Request], bool]] = dict.fromkeys(FAULTS, _always) | {
    "cut_request": lambda request: bool(request.body),
    "doubled_now": _is_plain_put,
    "doubled_late": _is_plain_put,
    "stale": lambda request: request.is_listing,
}


def _rows(keys: set[str], prefix: str) -> str:
    row = "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>"
    return "".join(row.format(escape(key)) for key in sorted(keys) if key.startswith(prefix))


def _shifted(reply: Reply, skew: timedelta) -> Reply:
    """The same reply from a server whose clock is wrong."""
    if not skew:
        return reply

    def header(name: str, value: str) -> tuple[str, str]:
        if name.lower() in ("date", "last-modified"):
            return name, format_datetime(parsedate_to_datetime(value) + skew, usegmt=True)
        return name, value

    def element(found: re.Match[bytes]) -> bytes:
        then = datetime.strptime(found[1].decode(), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC) + skew
        return f"<LastModified>{then.strftime('%Y-%m-%dT%H:%M:%S.%f')[:-3]}Z</LastModified>".encode()

    body = reply.body
    if b"<ListBucketResult" in body:
        body = re.sub(rb"<LastModified>(.*?)</LastModified>", element, body)
    return Reply(reply.status, [header(*pair) for pair in reply.headers], body)
