"""The HTTP surface: routes, who may use them, and one sentence for everything that is refused."""

import dataclasses
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from telecine.errors import InputError, RetryLater
from telecine.storage import Store
from telecine_components.deploy.serve import page
from telecine_components.deploy.serve.access import COOKIE, NONCE, Access
from telecine_components.deploy.serve.limits import Limits
from telecine_components.deploy.serve.metrics import Metrics
from telecine_components.deploy.serve.sampler import Sampler
from telecine_components.deploy.serve.tasks import (
    DONE,
    QUEUED,
    RUNNING,
    Disowned,
    Film,
    KeyReused,
    QueueFull,
    Task,
    Tasks,
)

MAX_BODY_BYTES = 64 * 1024
MAX_KEY_CHARS = 200
NUM_RECENT = 50
SESSION_S = 30 * 86400
RETRY_S = 5
Next = Callable[[Request], Awaitable[Response]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Service:
    """Everything that the routes need.

    Attributes:
        model, version: what is served. fetch: local path of a film by its path in the store.
        ready: whether the service goes on.
    """

    model: str
    version: str
    tasks: Tasks
    sampler: Sampler
    limits: Limits
    access: Access
    metrics: Metrics
    fetch: Callable[[str], Path]
    ready: Callable[[], bool]

    @property
    def makes_films(self) -> bool:
        """Whether a film that is asked for now would be made."""
        return self.ready() and not self.tasks.disowned


def build(service: Service) -> FastAPI:
    """The application; no route of FastAPI's own, because its pages load scripts from elsewhere."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_protection(app, service)
    _add_health(app, service)
    _add_login(app, service)
    _add_submission(app, service)
    _add_reading(app, service)
    return app


def _add_protection(app: FastAPI, service: Service) -> None:
    def sealed(request: Request, response: Response) -> Response:
        for name, value in page.HEADERS.items():
            response.headers.setdefault(name, value)
        route = request.scope.get("route")
        service.metrics.request(_method(request), getattr(route, "path", "other"), response.status_code)
        return response

    async def defect(request: Request, _: Exception) -> Response:
        """Told like every refusal; it comes past the middleware, and uvicorn logs where it happened."""
        return sealed(request, _error(500, "the service has a defect; its log says where"))

    async def refused(_: Request, error: Exception) -> Response:
        return _error(422, str(error))

    async def away(_: Request, error: Exception) -> Response:
        return _error(503, f"the store does not answer: {error}", {"Retry-After": str(RETRY_S)})

    async def disowned(_: Request, error: Exception) -> Response:
        return _error(503, str(error), {"Retry-After": str(RETRY_S)})

    async def plain(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, str(error.detail), dict(error.headers or {}))

    app.add_exception_handler(Exception, defect)
    app.add_exception_handler(InputError, refused)
    app.add_exception_handler(RetryLater, away)
    app.add_exception_handler(OSError, away)
    app.add_exception_handler(Disowned, disowned)
    app.add_exception_handler(HTTPException, plain)

    @app.middleware("http")
    async def protect(request: Request, go_on: Next) -> Response:
        return sealed(request, _turned_away(service.access, request) or await go_on(request))


def _turned_away(access: Access, request: Request) -> Response | None:
    """Why a request goes no further; None where it may."""
    if not access.serves(request):
        return _error(421, "this host is not served here; use the address that make serve printed")
    if access.is_foreign(request):
        return _error(403, "another site's page asked for this; use the service's own page, or the token as a bearer")
    if not access.allows(request):
        message = "a token is needed: send it as Authorization: Bearer <token>, or log in on the page at /"
        return _error(401, message, {"WWW-Authenticate": "Bearer"})
    return None


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "alive"})

    @app.get("/readyz")
    async def readyz(request: Request) -> Response:
        ready = service.makes_films
        document = {"status": "ready" if ready else "stopping"}
        nonce = request.headers.get(NONCE, "")
        if nonce:
            document["proof"] = service.access.proof(nonce)
        return JSONResponse(document, status_code=200 if ready else 503)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_login(app: FastAPI, service: Service) -> None:
    @app.get("/")
    async def index() -> Response:
        return HTMLResponse(page.HTML)

    @app.get("/v1/service")
    async def about() -> Response:
        limits = service.limits
        document = {"model": service.model, "version": service.version, "defaults": limits.defaults}
        return JSONResponse(document | {"most": limits.most, "max_prompt_chars": limits.max_prompt_chars})

    @app.post("/login")
    async def login(request: Request) -> Response:
        token = (await _body(request)).decode(errors="replace").strip()
        if not service.access.is_token(token):
            raise HTTPException(401, "this is not the token; make serve prints it")
        response = JSONResponse({"status": "in"})
        response.set_cookie(COOKIE, service.access.session, max_age=SESSION_S, httponly=True, samesite="strict")
        return response

    @app.post("/logout")
    async def logout() -> Response:
        response = JSONResponse({"status": "out"})
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def _add_submission(app: FastAPI, service: Service) -> None:
    @app.post("/v1/videos")
    async def submit(request: Request) -> Response:
        key = request.headers.get("idempotency-key", "")
        if len(key) > MAX_KEY_CHARS:
            raise InputError(f"Idempotency-Key must be at most {MAX_KEY_CHARS} characters, got {len(key)}")
        if "authorization" not in request.headers and _media_type(request) != "application/json":
            raise HTTPException(415, f"Content-Type must be application/json, got {_media_type(request)[:60]!r}")
        film = service.limits.film(await _body(request))
        if not service.makes_films:
            raise HTTPException(503, "the service is stopping; ask again", {"Retry-After": str(RETRY_S)})
        return await run_in_threadpool(_submitted, service, film, key)


def _submitted(service: Service, film: Film, key: str) -> Response:
    """Submit and say so. Both wait for the tasks, which a store that is away holds up: no work for the event loop."""
    try:
        task, _ = service.tasks.submit(film, key)
    except QueueFull:
        message = f"{len(service.tasks.waiting())} tasks wait, as many as may; ask again later"
        raise HTTPException(429, message, {"Retry-After": _retry_after(service)}) from None
    except KeyReused as reused:
        raise HTTPException(422, f"this Idempotency-Key stands for another request, task {reused}") from None
    return JSONResponse(_shown(service, task), status_code=202, headers={"Location": f"/v1/videos/{task.id}"})


def _add_reading(app: FastAPI, service: Service) -> None:
    tasks = service.tasks

    @app.get("/v1/videos")
    def recent() -> Response:
        return JSONResponse({"videos": [_shown(service, task) for task in tasks.recent(NUM_RECENT)]})

    @app.get("/v1/videos/{name}")
    def status(name: str) -> Response:
        return JSONResponse(_shown(service, _found(tasks, name)))

    @app.delete("/v1/videos/{name}")
    def cancel(name: str) -> Response:
        return JSONResponse(_shown(service, tasks.cancel(_found(tasks, name))))

    @app.api_route("/v1/videos/{name}/video.mp4", methods=["GET", "HEAD"])
    def video(name: str) -> Response:
        task = _found(tasks, name)
        if task.state != DONE:
            raise HTTPException(409, f"task {name} has no film: it is {task.state}")
        try:
            path = service.fetch(tasks.video_path(name))
        except FileNotFoundError:
            raise HTTPException(410, f"the film of task {name} is no longer in the store; ask for it anew") from None
        return FileResponse(path, media_type="video/mp4", headers={"Cache-Control": "private"})


def cached(store: Store, folder: Path) -> Callable[[str], Path]:
    """A function from a film's path in the store to a local file: the object itself, or a copy made once."""

    def fetch(path: str) -> Path:
        local = store.local(path)
        if local is not None and not local.is_file():
            raise FileNotFoundError(local)
        if local is not None:
            return local
        copy = folder / path
        if not copy.exists():
            fresh = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
            store.download(path, fresh)
            fresh.replace(copy)  # whole or not at all: two readers may ask at once
        return copy

    return fetch


def _shown(service: Service, task: Task) -> dict[str, Any]:
    """A task as its owner sees it."""
    film, progress = dataclasses.asdict(task.film), service.sampler.progress
    done = progress.done if progress.task_id == task.id else film["num_steps"] if task.state == DONE else 0
    waits = [other.id for other in service.tasks.waiting()]
    eta_s = service.sampler.eta_s(task) if task.state in (QUEUED, RUNNING) else None
    return {
        "id": task.id,
        "status": task.state,
        **film,
        "steps_done": min(done, film["num_steps"]),
        "eta_s": None if eta_s is None else round(eta_s, 1),
        "queue_position": waits.index(task.id) + 1 if task.id in waits else None,
        "created": task.created,
        "seconds": task.seconds,
        "model": task.model or f"{service.model} version {service.version}",
        "error": task.error,
        "video_url": f"/v1/videos/{task.id}/video.mp4" if task.state == DONE else None,
    }


def _found(tasks: Tasks, name: str) -> Task:
    task = tasks.get(name)
    if task is None:
        raise HTTPException(404, f"there is no task {name[:60]!r}; GET /v1/videos lists those that there are")
    return task


async def _body(request: Request) -> bytes:
    """The body, refused before it fills the memory."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body must be at most {MAX_BODY_BYTES} bytes")
    return bytes(data)


def _retry_after(service: Service) -> str:
    """Seconds until the queue has a free place, as far as that is known."""
    waits = service.tasks.waiting()
    eta_s = service.sampler.eta_s(waits[0]) if waits else None
    return str(max(1, round(eta_s)) if eta_s is not None else RETRY_S)


def _method(request: Request) -> str:
    return request.method if request.method in ("GET", "HEAD", "POST", "DELETE") else "other"


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _error(code: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    speakable = message.encode(errors="backslashreplace").decode()  # a name that was sent may be no Unicode
    return JSONResponse({"error": speakable}, status_code=code, headers=headers)
