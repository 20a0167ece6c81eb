"""Containers whose engine is a script: what it is asked, and what becomes of what it answers."""

import json
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from telecine import settings
from telecine.operators import ComponentOperator
from telecine.runners import container

_SPEC = util.spec_from_file_location("contained_toy", Path(__file__).with_name("contained.py"))
assert _SPEC is not None and _SPEC.loader is not None
toy = util.module_from_spec(_SPEC)
sys.modules["contained_toy"] = toy  # test folders are no packages
_SPEC.loader.exec_module(toy)
launch_of, here = toy.launch_of, toy.here


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``scripted(run, look)``: an engine that has every image, and two of whose commands are lines of shell.

    Returns the file in which it writes what it was asked; it has no container unless ``look`` finds one.
    """

    def make(run: str, look: str = "exit 1") -> Path:
        engine, asked = tmp_path / "engine", tmp_path / "asked"
        info = json.dumps({"host": {"cgroupControllers": [], "security": {"rootless": True}}})
        cases = f"info) echo '{info}';; image) echo id;; run) {run};; container) {look};;"
        engine.write_text(f'#!/bin/sh\necho "$@" >> {asked}\ncase "$1" in {cases} esac\n')
        engine.chmod(0o755)
        monkeypatch.setenv("TELECINE_CONTAINER_ENGINE", str(engine))
        return asked

    return make


def test_the_engines_client_has_the_home_of_its_caller(
    scripted: Callable[..., Path], here: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/a-person")
    scripted('echo "$HOME"; echo "$@"')
    child = container.start(launch_of(here))
    assert child.stdout is not None
    home, words = child.stdout.read().splitlines()
    assert home == "/home/a-person"
    assert "--env=HOME=/tmp" in words.split()


@pytest.mark.parametrize(
    ("code", "kind"), [(125, AirflowException), (126, AirflowFailException), (127, AirflowFailException)]
)
def test_a_command_that_the_image_cannot_run_is_not_tried_again(
    code: int, kind: type[Exception], scripted: Callable[..., Path], here: settings.Settings
) -> None:
    scripted(f"exit {code}")
    launch = launch_of(here)
    with pytest.raises(AirflowException, match=f"podman could not run it .exit {code}.") as raised:
        ComponentOperator(component=launch.component)._run_child(launch)
    assert raised.type is kind


def test_a_rival_that_takes_the_name_between_two_looks_is_left_alone(
    scripted: Callable[..., Path], here: settings.Settings
) -> None:
    """The one look by name finds what a dead try left; a moment later the name is a rival's."""
    asked = scripted("exit 0", look='case "$*" in *Status*) echo old/exited/gone/1/1;; esac')
    launch = launch_of(here)
    assert container.start(launch).wait(30) == 0
    lines = asked.read_text().splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("stop", "rm"))] == ["old", "old"]
    named = [line for line in lines if line.endswith(f" {container.name_of(launch)}")]
    assert len(named) == 1 and "Status" in named[0]
