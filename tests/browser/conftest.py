"""A real Chromium, and a real Airflow with its pages, for whoever has to answer or watch something there."""

import dataclasses
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from telecine import settings

REPOSITORY = Path(__file__).parents[2]
CHROMIUM = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
CHROMIUM += " --disable-component-update --disable-sync"
PAGE_MS = 60_000
WAIT_S = 600.0


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; skipped where a person has none, an error in CI.

    While it lasts, Playwright's event loop runs in this thread, and tests of other modules could start none.
    """
    path = shutil.which("chromium")
    if path is None and os.environ.get("CI"):
        pytest.fail("CI needs Debian's package chromium")
    if path is None:
        pytest.skip("no chromium on this machine; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM.split())
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, tmp_path: Path) -> Iterator[Page]:
    """A tab of its own; what it shows at the end is kept as ``end.png`` in the test's folder."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(PAGE_MS)
    yield tab
    tab.screenshot(path=tmp_path / "end.png")
    context.close()


@dataclasses.dataclass
class Airflow:
    """The Airflow that ``make up`` starts, as its admin sees it."""

    here: settings.Settings
    url: str
    password: str
    mlflow: tuple[str, ...]
    """MLflow's page beside it: URL, name and password."""
    environment: dict[str, str]

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, timeout=60)
        login = {"username": "admin", "password": self.password}
        self.http.headers["Authorization"] = f"Bearer {self.ask('POST', '/auth/token', login)['access_token']}"

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One request; asked again while Airflow starts, or its SQLite is locked by another writer."""
        deadline = time.monotonic() + WAIT_S
        while True:
            reply = self.http.request(method, path, json=body)
            if reply.is_success:
                return reply.json()
            assert reply.status_code in (404, 500, 503) and time.monotonic() < deadline, reply.text
            time.sleep(1)

    def call(self, *arguments: str) -> bool:
        """Run one ``airflow`` command of this deployment; False where SQLite was locked.

        Airflow reads before it writes. Whoever commits in between makes SQLite refuse the write at once, whatever its
        patience is.
        """
        line = "import subprocess, sys; from deployment import laptop\n"
        line += "sys.exit(subprocess.call(['airflow', *sys.argv[1:]], env=laptop().environment()))"
        environment = self.environment | {"PYTHONPATH": str(REPOSITORY / "infra" / "local")}
        command = [sys.executable, "-P", "-c", line, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        is_locked = "database is locked" in done.stderr
        assert done.returncode == 0 or is_locked, done.stdout + done.stderr
        return done.returncode == 0

    def cancel_backfills(self, dag: str) -> None:
        """End what is left of backfills that could not be made as a whole."""
        for backfill in self.ask("GET", f"/api/v2/backfills?dag_id={dag}")["backfills"]:
            if backfill["completed_at"] is None:
                self.ask("PUT", f"/api/v2/backfills/{backfill['id']}/cancel")

    def unpause(self, dag: str) -> None:
        """Let a DAG run, also by itself."""
        self.ask("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})

    def runs(self, dag: str, kind: str, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The runs of a DAG that were started in some way, once they are as wanted."""
        deadline = time.monotonic() + WAIT_S
        while not holds(found := self.ask("GET", f"/api/v2/dags/{dag}/dagRuns?run_type={kind}")["dag_runs"]):
            assert time.monotonic() < deadline, found
            time.sleep(1)
        return found

    def start(self, dag: str, run: str, conf: dict[str, Any]) -> None:
        """Start a run of a DAG."""
        self.unpause(dag)
        body = {"dag_run_id": run, "logical_date": None, "conf": conf}
        self.ask("POST", f"/api/v2/dags/{dag}/dagRuns", body)

    def states(self, dag: str, run: str) -> dict[str, str]:
        """State of each task of a run, and of the run itself under ``run``."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}"
        tasks = self.ask("GET", f"{path}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in tasks} | {"run": self.ask("GET", path)["state"]}

    def wait(self, dag: str, run: str, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """The states once they are as wanted."""
        deadline = time.monotonic() + WAIT_S
        while not holds(states := self.states(dag, run)):
            assert time.monotonic() < deadline and states["run"] != "failed", states
            time.sleep(1)
        return states

    def settle(self, dag: str, run: str, task: str, give: Callable[[], None]) -> None:
        """Wait for a question, give its answer, and give it again if Airflow asks once more.

        It does so where it was answered before its scheduler had seen it wait (:data:`telecine.gate.ASK_AGAIN`), and
        where its SQLite was locked as the answer came. What was taken up no longer waits.
        """
        deadline = time.monotonic() + WAIT_S
        while (states := self.states(dag, run)).get(task) != "success":
            assert time.monotonic() < deadline and states["run"] != "failed", states
            if states.get(task) == "awaiting_input":
                give()
            time.sleep(2)

    def log_in(self, page: Page) -> None:
        """Log in on the page as admin."""
        page.goto(self.url)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", self.password)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "login" not in url)

    def question(self, page: Page, subject: str) -> None:
        """Find a question under Required Actions and open it."""
        page.goto(f"{self.url}/required_actions?response_received=false")
        page.click(f"a:has-text({subject!r})")

    def answer(self, page: Page, subject: str, option: str, picture: Path) -> None:
        """Open a question, look at it, and press the button of one option."""
        self.question(page, subject)
        button = page.get_by_role("button", name=option, exact=True)
        button.wait_for()
        page.screenshot(path=picture)
        self.press(page, button)

    def press(self, page: Page, button: Locator) -> None:
        """Press the button that sends an answer, and wait for Airflow's reply."""
        with page.expect_response(lambda reply: reply.request.method == "PATCH" and "hitlDetails" in reply.url):
            button.click()


@pytest.fixture(scope="session")
def airflow(trained: Any) -> Iterator[Airflow]:
    """``make up`` on free ports, in the home of the session's tiny training; ``make down`` afterwards."""
    here = trained.deployment
    ports = {f"TELECINE_{name}_PORT": str(_free_port()) for name in ("AIRFLOW", "MLFLOW")}
    environment = os.environ | here.environment() | ports
    command = [sys.executable, str(REPOSITORY / "infra" / "local" / "pages.py")]
    up = subprocess.run([*command, "up"], env=environment, capture_output=True, text=True, timeout=300)
    try:
        found = re.search(r"^Airflow\s+(\S+)\s+admin\s+(\S+)$", up.stdout, re.MULTILINE)
        assert found is not None, up.stdout + up.stderr
        pages = re.search(r"^MLflow\s+(\S+)\s+(admin)\s+(\S+)$", up.stdout, re.MULTILINE)
        assert pages is not None, up.stdout + up.stderr
        yield Airflow(here, found[1], found[2], pages.groups(), environment)
    finally:
        subprocess.run([*command, "down"], env=environment, timeout=120, check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
