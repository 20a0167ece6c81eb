"""deploy.serve: load the version behind the alias, listen, sample until SIGTERM."""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError
from telecine_components.deploy import versions
from telecine_components.deploy.serve import app, tasks
from telecine_components.deploy.serve.access import MIN_TOKEN_CHARS, Access
from telecine_components.deploy.serve.claim import Claim
from telecine_components.deploy.serve.limits import SIZES, Limits
from telecine_components.deploy.serve.metrics import Metrics
from telecine_components.deploy.serve.sampler import Sampler
from telecine_components.deploy.serve.spec import Inputs, Outputs
from telecine_components.deploy.serve.tasks import Tasks
from telecine_components.deploy.versions import Version

log = logging.getLogger(__name__)

TOKEN = "TELECINE_SERVE_TOKEN"  # noqa: S105 - the name of the variable
LOOK_S = 0.2
CLOSE_S = 3


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Serve until asked to stop; see :class:`Inputs`."""
    access = Access(_token(), host=inputs.host, allowed_hosts=inputs.allowed_hosts)
    version = versions.find(ctx.tracker.client, inputs.model_name, alias=inputs.alias, owner="deploy.serve")
    root = f"services/{version.name}"
    with _listener(inputs) as listener:
        claim = Claim(ctx, root)
        folder = ctx.fetch(version.source)
        films = Tasks(ctx.store, root, max_queue=inputs.max_queue, keep=inputs.keep_tasks)
        service = _service(inputs, ctx, version, folder, films, access)
        url = f"http://{inputs.host}:{listener.getsockname()[1]}"
        log.info("event=serving url=%s model=%s version=%s alias=%s", url, version.name, version.version, inputs.alias)
        _serve(ctx, listener, service, claim)
    return _outputs(ctx, version, films)


def _token() -> str:
    """The token, taken out of the environment so that no child process gets it."""
    token = os.environ.pop(TOKEN, "")
    if len(token) < MIN_TOKEN_CHARS:
        raise InputError(
            f"deploy.serve: {TOKEN} must hold a token of at least {MIN_TOKEN_CHARS} characters, got {len(token)}; "
            "make serve makes one"
        )
    return token


@contextmanager
def _listener(inputs: Inputs) -> Iterator[socket.socket]:
    """A listening socket, before the model is loaded: a port that is taken, also a moment later, is told at once."""
    family = socket.AF_INET6 if ":" in inputs.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((inputs.host, inputs.port))
            listener.listen()
        except OSError as error:
            raise InputError(
                f"deploy.serve: cannot listen on {inputs.host} port {inputs.port} ({error.strerror}); set port (make "
                "serve: TELECINE_SERVE_PORT) to a free one"
            ) from None
        yield listener


def _service(inputs: Inputs, ctx: Context, version: Version, folder: Path, films: Tasks, access: Access) -> app.Service:
    trained_on = _trained_on(folder)
    metrics = Metrics(films, model=version.name, version=version.version)
    films.on_end = metrics.task
    sampler = Sampler(
        films,
        folder,
        ctx.scratch,
        lora_scale=inputs.lora_scale,
        fps=float(trained_on["fps"]),
        model=f"{version.name} version {version.version}",
        num_threads=inputs.num_threads,
        shown_height_px=inputs.shown_height_px,
    )
    return app.Service(
        model=version.name,
        version=version.version,
        tasks=films,
        sampler=sampler,
        limits=_limits(inputs, trained_on, sampler.patch),
        access=access,
        metrics=metrics,
        fetch=app.cached(ctx.store, ctx.scratch / "films"),
        ready=lambda: not ctx.stop_requested,
    )


def _trained_on(folder: Path) -> dict[str, Any]:
    path = folder / "trained_on.json"
    if not path.is_file():
        raise InputError(f"deploy.serve: no {path.name} in the registered model; register what pretrain.train wrote")
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def _limits(inputs: Inputs, trained_on: dict[str, Any], patch: tuple[int, int, int]) -> Limits:
    sizes = {name: int(trained_on[name]) for name in SIZES}
    most = {"num_steps": inputs.max_steps, "num_frames": inputs.max_frames}
    return Limits(
        defaults={"num_steps": inputs.num_steps, "guidance_scale": inputs.guidance_scale, **sizes},
        patch=patch,
        most=most | {"height_px": inputs.max_side_px, "width_px": inputs.max_side_px},
        max_prompt_chars=inputs.max_prompt_chars,
    )


def _serve(ctx: Context, listener: socket.socket, service: app.Service, claim: Claim) -> None:
    """Answer and sample until a stop is requested, a thread dies or the claim is lost; the running film is put back."""
    config = uvicorn.Config(
        app.build(service),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_S,
        limit_concurrency=200,
    )
    server = uvicorn.Server(config)
    with ThreadPoolExecutor(thread_name_prefix="serve") as threads:
        running: list[Future[None]] = [
            threads.submit(server.run, [listener]),
            threads.submit(service.sampler.run),
            threads.submit(claim.watch, on_loss=service.tasks.disown),
        ]
        reported = 0
        try:
            while not ctx.stop_requested and not any(future.done() for future in running):
                time.sleep(LOOK_S)
                reported = _report(ctx, service.tasks, reported)
        finally:
            claim.unwatch()
            service.sampler.stop()
            server.should_exit = True
    for future in running:
        future.result()


def _report(ctx: Context, films: Tasks, reported: int) -> int:
    """Films since the start, as the progress that telecine status shows; a line only where there is one more."""
    done = films.num_ended[tasks.DONE]
    if done != reported:
        ctx.progress(done, done + len(films.waiting()))
    return done


def _outputs(ctx: Context, version: Version, films: Tasks) -> Outputs:
    ended = films.num_ended
    counts = {
        "num_done": ended[tasks.DONE],
        "num_failed": ended[tasks.FAILED],
        "num_cancelled": ended[tasks.CANCELLED],
        "num_waiting": len(films.waiting()),
    }
    document = {"model_name": version.name, "model_version": version.version, **counts}
    (ctx.dir / "service.json").write_text(json.dumps(document, indent=1, sort_keys=True))
    log.info("event=stopped %s", " ".join(f"{name}={count}" for name, count in counts.items()))
    return Outputs(service_uri=Artifact("service.json"), model_version=version.version, **counts)
