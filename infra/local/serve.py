"""``make serve``: serve the registered model in the foreground, on loopback, behind a token."""

import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from http import HTTPStatus

from deployment import Laptop, guarded, laptop, put
from pages import check_free
from telecine import settings
from telecine.errors import TelecineError
from telecine_components.deploy.serve.access import NONCE, Access

HOST = "127.0.0.1"
CHOICES = {"model_name": "TELECINE_SERVE_MODEL_NAME", "alias": "TELECINE_SERVE_ALIAS"}
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 30.0


def serve() -> int:
    """Start the service, say where it is and how to get in, and pass every stop on to it."""
    place = laptop()
    port = settings.port(os.environ, "TELECINE_SERVE_PORT", 8000)
    check_free("serve", port)
    inputs = {"host": HOST, "port": port}
    chosen = {name: os.environ.get(variable) for name, variable in CHOICES.items()}
    inputs |= {name: value for name, value in chosen.items() if value}
    token = os.environ.get("TELECINE_SERVE_TOKEN") or _token(place)
    command = [sys.executable, "-P", "-m", "telecine.cli", "run", "deploy.serve", "--inputs", json.dumps(inputs)]
    environment = place.environment() | {"TELECINE_SERVE_TOKEN": token, "TELECINE_PARENT_PID": str(os.getpid())}
    # A session of its own: Ctrl-C reaches this process alone, which then asks the service to stop.
    service = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        if _await_ready(service, port, Access(token)):
            print(f"Telecine  http://{HOST}:{port}  token  {token}", flush=True)
            print("stop it with Ctrl-C; what waits then is made after the next start", flush=True)
        return service.wait()
    except KeyboardInterrupt:
        return _stop(service)


def _await_ready(service: "subprocess.Popen[bytes]", port: int, access: Access) -> bool:
    """Wait until the service answers; False where it ended instead, which its last line explains."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while service.poll() is None:
        if _is_ready(port, access):
            return True
        if time.monotonic() > deadline:
            _stop(service)
            raise TelecineError(f"the service was not ready within {START_TIMEOUT_S:.0f} s; its lines above say why")
        time.sleep(0.3)
    return False


def _is_ready(port: int, access: Access) -> bool:
    """Whether the service that was started is ready, and not another server on its port, which lacks the token."""
    nonce = secrets.token_hex(16)
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/readyz", headers={NONCE: nonce})
        reply = connection.getresponse()
        told = json.loads(reply.read(10_000))
        return reply.status == HTTPStatus.OK and isinstance(told, dict) and told.get("proof") == access.proof(nonce)
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(service: "subprocess.Popen[bytes]") -> int:
    service.terminate()
    try:
        return service.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        service.kill()
        return service.wait()


def _token(place: Laptop) -> str:
    """The deployment's token; a home from before there was a service gets one now."""
    if "serve_token" not in place.keys:
        place.keys["serve_token"] = secrets.token_urlsafe(24)
        put(place.here.home / "secrets.json", json.dumps(place.keys))
    return place.keys["serve_token"]


if __name__ == "__main__":
    sys.exit(guarded(serve))
