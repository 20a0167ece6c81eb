"""Fixtures that every test may use: a deployment of its own, and components run for real in it."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

# Read while Airflow is imported, which would otherwise make a folder in the home of whoever runs the tests.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-"))
# Every signature's shapes and types are checked in tests; before the first import of what is checked.
install_import_hook("telecine_models", "beartype.beartype")

from telecine import component, settings, tracking  # noqa: E402
from telecine.execution import Call, execute  # noqa: E402

REPOSITORY = Path(__file__).parent.parent
CLIPS = REPOSITORY.parent / "shared" / "data" / "clips"


@pytest.fixture(scope="session")
def empty_tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as its first use leaves it; made once, because that takes seconds."""
    here = settings.from_environment({"TELECINE_HOME": str(tmp_path_factory.mktemp("tracker"))})
    tracking.connect(here)
    return here.home / "mlflow" / "mlflow.db"


@pytest.fixture
def deployment(tmp_path: Path, empty_tracker: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """An empty home, store and tracker; the environment of child processes points at them too."""
    here = settings.from_environment({"TELECINE_HOME": str(tmp_path / "home")})
    (here.home / "mlflow").mkdir(parents=True)
    shutil.copy(empty_tracker, here.home / "mlflow" / "mlflow.db")
    for name, value in here.environment().items():
        monkeypatch.setenv(name, value)
    return here


@pytest.fixture
def run_component(deployment: settings.Settings) -> Callable[..., Any]:
    """Run a component in this process: ``run_component("curate.split", videos_uri=…) -> Outputs``."""

    def run(name: str, run: str = "test", task: str | None = None, force: bool = False, **inputs: Any) -> Any:
        found = component.find(name)
        values = {key: str(value) if isinstance(value, os.PathLike) else value for key, value in inputs.items()}
        call = Call(
            component=found,
            inputs=found.parse(values),
            run=run,
            task=task or name,
            settings=deployment,
            force=force,
        )
        return found.outputs(**execute(call).outputs)

    return run


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """Folder of real footage; skipped where a person has none, an error in CI."""
    if CLIPS.is_dir():
        return CLIPS
    if os.environ.get("CI"):
        pytest.fail(f"CI needs the real footage at {CLIPS}")
    pytest.skip("no real footage beside the checkout")
