"""The command line: exit codes, one-line errors, and answers a person can read."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telecine import cli, settings, slugs
from telecine.errors import InputError
from telecine.storage import Store
from telecine.work import explain, garbage, runs
from telecine.work.address import Address

Letters = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "text.repeat", "--set", "times=0"], "telecine: text.repeat: times must be at least 1, got 0"),
        (["run", "text.repeat", "--set", "time=1"], "telecine: text.repeat: there is no 'time'; did you mean 'times'?"),
        (["run", "text.repeat", "--set", "times"], "telecine: --set: expected key=value, got 'times'"),
        (["run", "text.repeat", "--inputs", "gone.toml"], "telecine: --inputs: no file 'gone.toml'"),
        (["run", "text.repeat", "--run", "A/../B"], "telecine: a run must be 1 to 40 characters of a-z, 0-9 and -"),
        (["run", "text.repeat", "--sett", "a=1"], "telecine: unrecognized arguments: --sett a=1; see"),
        (["gc", "--keep-days", "-1"], "telecine: --keep-days must be at least 0, got -1.0"),
        (["run", "text.repeet"], "telecine: there is no component 'text.repeet'; known: "),
        (["status", "nowhere"], "telecine: there is no run"),
        (["explain"], "telecine: there is no run"),
    ],
)
def test_what_a_person_got_wrong_is_one_line_and_exit_78(
    toys: Any, letters: Letters, arguments: list[str], sentence: str
) -> None:
    out, err = toys.call(*arguments, code=78)
    assert out == "" and err.count("\n") == 1
    assert err.startswith(sentence)


def test_an_input_folder_that_does_not_exist_is_exit_78(toys: Any) -> None:
    _, err = toys.call("run", "curate.split", "--set", "videos_uri=/nowhere/at/all", code=78)
    assert err.splitlines()[-1] == (
        "telecine: curate.split: videos_uri does not exist: '/nowhere/at/all'; expected an existing file or folder"
    )


def test_settings_that_cannot_work_are_refused_before_anything_starts(toys: Any, letters: Letters) -> None:
    process = toys.start("run", "text.repeat", TELECINE_STORE="ftp://somewhere")
    _, err = process.communicate()
    assert process.returncode == 78
    assert (
        err == "telecine: TELECINE_STORE must be file:///folder, s3://bucket/prefix or a path, got 'ftp://somewhere'\n"
    )


def test_code_that_fails_is_a_failure_with_its_traceback_and_a_failed_mlflow_child(toys: Any) -> None:
    toys.add("bad.code", inputs="", outputs="", body="raise ZeroDivisionError('a defect')")
    _, err = toys.call("run", "bad.code", "--run", "defect", code=1)
    assert "ZeroDivisionError: a defect" in err
    out, _ = toys.call("status", "defect", "--json")
    task = json.loads(out)["tasks"][0]
    assert task["state"] == "failed" and "ZeroDivisionError: a defect" in task["detail"]


def test_what_went_wrong_first_is_told_though_mlflow_breaks_as_well(toys: Any) -> None:
    body = """
(Path(os.environ["TELECINE_HOME"]) / "mlflow" / "mlflow.db").write_text("no database")
raise RetryLater("stopped half-way")
"""
    toys.add("bad.luck", inputs="", outputs="", body=body)
    _, err = toys.call("run", "bad.luck", code=75)
    assert err.splitlines()[-1] == "telecine: stopped half-way"
    assert "event=close_failed" in err and "Traceback" not in err


def test_a_dry_run_prints_the_resolved_inputs_and_does_nothing(toys: Any, letters: Letters) -> None:
    out, _ = toys.call("run", "text.repeat", "--set", "times=5", "--dry-run")
    assert json.loads(out) == {"text": "a", "times": 5}
    assert not (toys.here.home / "store").exists()


def test_list_and_describe_come_from_the_declaration(toys: Any, letters: Letters) -> None:
    assert "text.repeat        curate   Repeats a text." in toys.call("list")[0]
    assert "times: integer = 2, ge 1\n      How often." in toys.call("describe", "text.repeat")[0]
    described = json.loads(toys.call("describe", "text.repeat", "--json")[0])
    assert [row["type"] for row in described["outputs"]] == ["artifact", "integer"]


def test_explain_says_what_happened_and_what_would_happen_now(toys: Any, letters: Letters) -> None:
    toys.add(
        "text.count",
        inputs='text_uri: Artifact = param(help="A text.")',
        outputs='length: int = param(help="Bytes.")',
        body="return Outputs(length=len(ctx.fetch(inputs.text_uri).read_bytes()))",
    )
    made = toys.run("text.repeat", "--run", "letters")
    toys.run("text.count", "--run", "letters", text_uri=made["outputs"]["text_uri"])
    assert _forecast(toys) == {"text.repeat": "reused", "text.count": "reused"}
    assert _forecast(toys, "--set", "text.repeat.times=9") == {"text.repeat": "runs", "text.count": "waits"}
    code = toys.package / "text" / "repeat" / "run.py"
    code.write_text(code.read_text() + "\n# a remark\n")
    assert _forecast(toys) == {"text.repeat": "runs", "text.count": "waits"}
    again = toys.run("text.repeat", "--run", "later")
    toys.run("text.count", "--run", "later", text_uri=again["outputs"]["text_uri"])
    report = json.loads(toys.call("explain", "later", "--json")[0])
    assert [task["decision"] for task in report["tasks"]] == ["ran", "reused"], "equal bytes: its dependents are reused"


def test_status_shows_progress_while_a_task_runs(toys: Any) -> None:
    body = "ctx.progress(0, 4)\ntime.sleep(0.1)\nctx.progress(1, 4, loss=0.5)\ntime.sleep(60)\nreturn Outputs()"
    toys.add("slow.sleep", inputs="", outputs="", body=body)
    process = toys.start("run", "slow.sleep", "--run", "nap")
    deadline = time.monotonic() + 60
    while (task := _task(toys, "nap"))["progress"] is None or not task["progress"]["done"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert task["state"] == "running" and task["detail"].startswith("1/4 (25%, about ") and "loss=0.5" in task["detail"]
    process.kill()
    process.communicate()


def test_gc_removes_what_died_and_keeps_what_lasts(toys: Any, letters: Letters) -> None:
    toys.add(
        "model.register",
        effects=True,
        inputs='text_uri: Artifact = param(help="A text.")',
        outputs="",
        body="return Outputs()",
    )
    kept, dropped = letters(times=2), letters(times=3)
    toys.run("model.register", "--run", "r", text_uri=kept["outputs"]["text_uri"])
    store = Store(toys.here.store_uri)
    store.write("work/text.repeat/0123/attempts/dead/half.bin", b"half")
    young = garbage.collect(store, keep_days=1, dry_run=True)
    assert young["removed"] == [], "nothing is old, and a young attempt may still live"
    out, _ = toys.call("gc", "--keep-days", "0", "--json")
    removed = {row["path"] for row in json.loads(out)["removed"]}
    assert f"work/text.repeat/{dropped['key']}" in removed
    assert not any(kept["key"] in path or path.startswith("work/model.register") for path in removed)
    assert letters(times=2)["decision"] == "reused" and letters(times=3)["decision"] == "ran"


def test_gc_forgets_what_a_service_answered_long_ago(deployment: settings.Settings) -> None:
    store = Store(deployment.store_uri)
    for task, age_days in (("old", 40), ("young", 20)):
        store.write(f"services/model/tasks/{task}/task.json", b"{}")
        file = store.local(f"services/model/tasks/{task}/task.json")
        assert file is not None
        os.utime(file, (time.time() - age_days * 86400,) * 2)
    removed = garbage.collect(store, keep_days=30, dry_run=False)["removed"]
    assert [row["path"] for row in removed] == ["services/model/tasks/old"]
    assert store.folders("services/model/tasks") == ["young"]


def test_gc_takes_what_a_killed_write_and_a_killed_look_at_the_clock_left(deployment: settings.Settings) -> None:
    store = Store(deployment.store_uri)
    staged = ("runs/r/run.json#1", "work/a.b/key/beats/one.json#12", "clock/0123#1")
    for path in (*staged, "clock/0123", "work/a.b/key/attempts/one/film#1", "work/a.b/key/attempts/one/film"):
        file = store.local(path)
        assert file is not None
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
    collect = garbage.collect
    assert collect(store, keep_days=1, dry_run=True)["removed"] == [], "the writes may still be in progress"
    _age(store, days=0.01)
    told = {row["path"] for row in collect(store, keep_days=1, dry_run=True)["removed"]}
    assert told == {*staged, "clock/0123"}, "an attempt's files are named by its component"
    assert {row["path"] for row in collect(store, keep_days=1, dry_run=False)["removed"]} == told
    left = sorted(path.name for path in (deployment.home / "store").rglob("*") if path.is_file())
    assert left == ["film", "film#1"]


def test_gc_takes_what_a_killed_look_at_the_clock_of_a_bucket_left(s3_store: str) -> None:
    class Later(Store):
        """A store whose clock is five minutes on."""

        def now(self) -> float:
            return super().now() + 300

    store = Later(s3_store)
    store.write("clock/0123", b"")
    assert garbage.collect(Store(s3_store), keep_days=1, dry_run=False)["removed"] == []
    assert [row["path"] for row in garbage.collect(store, keep_days=1, dry_run=False)["removed"]] == ["clock/0123"]
    assert store.head("clock/0123") is None


def test_gc_keeps_what_a_living_attempt_reads(toys: Any, letters: Letters) -> None:
    toys.add(
        "slow.read",
        inputs='text_uri: Artifact = param(help="A text.")',
        outputs='length: int = param(help="Bytes.")',
        body="""
go = Path(os.environ["TELECINE_HOME"]) / "go"
while not go.exists():
    time.sleep(0.05)
return Outputs(length=len(ctx.fetch(inputs.text_uri).read_bytes()))
""",
    )
    made = letters(text="ab")
    process = toys.start("run", "slow.read", "--run", "reader", "--set", f"text_uri={made['outputs']['text_uri']}")
    deadline = time.monotonic() + 60
    while _task(toys, "reader").get("state") != "running":
        assert time.monotonic() < deadline
    toys.call("gc", "--keep-days", "0")
    (toys.here.home / "go").touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["outputs"]["length"] == 4


def test_doctor_finds_this_machine_fit_and_a_broken_store_not(toys: Any) -> None:
    found = {row["what"]: row for row in json.loads(toys.call("doctor", "--json")[0])}
    assert found["python"]["state"] == found["store"]["state"] == found["tracker"]["state"] == "ok"
    assert not (toys.here.home / "store" / "doctor").exists()
    process = toys.start("doctor", TELECINE_STORE="file:///proc/nowhere")
    out, _ = process.communicate()
    assert process.returncode == 78 and "bad   store" in out


def test_a_run_is_a_label_that_is_equal_for_equal_names() -> None:
    slug = slugs.slug("My DAG/with everything", "manual__2026-01-01T00:00:00+00:00")
    assert slug == slugs.slug("My DAG/with everything", "manual__2026-01-01T00:00:00+00:00")
    assert len(slug) <= 40 and set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert slug != slugs.slug("My DAG/with everything", "manual__2026-01-01T00:00:01+00:00")


def test_the_settings_of_a_child_are_those_of_its_parent(deployment: settings.Settings) -> None:
    assert settings.from_environment(deployment.environment()) == deployment


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "localhost", "[::1]:5000"])
def test_a_tracker_that_a_pod_would_seek_in_itself_is_refused(host: str, tmp_path: Path) -> None:
    places = {"TELECINE_HOME": str(tmp_path), "TELECINE_STORE": "s3://bucket/store"}
    places["TELECINE_TRACKING_URI"] = f"http://{host}"
    with pytest.raises(InputError, match="a pod cannot reach TELECINE_TRACKING_URI=http://.*by the same name"):
        settings.from_environment({**places, "TELECINE_RUNNER": "cluster"})
    for runner in ("process", "container"):
        assert settings.from_environment({**places, "TELECINE_RUNNER": runner}).tracker_is_loopback


def _forecast(toys: Any, *arguments: str) -> dict[str, str]:
    report = json.loads(toys.call("explain", "letters", "--json", *arguments)[0])
    return {task["task"]: task["now"] for task in report["tasks"]}


def _task(toys: Any, run: str) -> dict[str, Any]:
    process = toys.start("status", run, "--json")
    out, _ = process.communicate()
    tasks = json.loads(out)["tasks"] if process.returncode == 0 else []
    task: dict[str, Any] = tasks[0] if tasks else {"progress": None}
    return task


def test_gc_lives_with_tasks_that_met_no_work(letters: Letters, toys: Any, deployment: settings.Settings) -> None:
    key = letters(text="a")["key"]
    skipped = runs.Pointer(
        task="t", component="text.repeat", key="", decision="skipped", reason="nothing to do", inputs={}
    )
    runs.point(Store(deployment.store_uri), "some-run", skipped)
    assert [row["path"] for row in _collect_with(toys, keep_days=0)] == [f"work/text.repeat/{key}"]


def test_gc_keeps_what_a_registrar_was_given_that_did_not_live_to_commit(
    letters: Letters, toys: Any, deployment: settings.Settings
) -> None:
    toys.add(
        "text.publish",
        effects=True,
        inputs='text_uri: Artifact = param(help="Text.")',
        outputs='done: int = param(help="1.")',
        body="raise RuntimeError('died after it had published')",
    )
    given = letters(text="b")["outputs"]["text_uri"]
    toys.call("run", "text.publish", "--set", f"text_uri={given}", code=1)
    store = Store(deployment.store_uri)
    _age(store, days=40)
    found = _collect_with(toys, keep_days=30)
    assert [row["path"] for row in found if "text.repeat" in row["path"]] == []


def test_gc_gives_back_what_a_run_came_to_need_meanwhile(
    letters: Letters, deployment: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = letters(text="c")
    store = Store(deployment.store_uri)
    _age(store, days=40)
    pointer = runs.Pointer(
        task="t",
        component="text.repeat",
        key=document["key"],
        decision="reused",
        reason="",
        inputs={},
    )

    class Meanwhile(Store):
        """A store in which another run points to the work in the moment in which its commit is removed."""

        def delete(self, path: str) -> None:
            super().delete(path)
            if path.endswith(f"{document['key']}/commit.json"):
                runs.point(self, "another-run", pointer)

    report = garbage.collect(Meanwhile(deployment.store_uri), keep_days=30, dry_run=False)
    assert [row for row in report["removed"] if document["key"] in row["path"]] == []
    assert letters(text="c")["decision"] == "reused"


def test_gc_leaves_an_attempt_that_is_only_stopped(toys: Any, deployment: settings.Settings) -> None:
    toys.add(
        "slow.write",
        inputs='n: int = param(2, ge=1, help="Files.")',
        outputs='out_uri: Artifact = param(help="Files.")',
        body="""
(ctx.dir / "out").mkdir()
for index in range(inputs.n):
    (ctx.dir / "out" / f"{index}.txt").write_text("x")
    Path(os.environ["SEEN"]).touch()
    while index == 0 and not Path(os.environ["GO"]).exists():
        time.sleep(0.05)
return Outputs(out_uri="out")
""",
    )
    seen, go = deployment.home / "seen", deployment.home / "go"
    process = toys.start("run", "slow.write", SEEN=str(seen), GO=str(go))
    while not seen.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    store = Store(deployment.store_uri)
    _age(store, days=40)
    assert [row["path"] for row in garbage.collect(store, keep_days=0, dry_run=False)["removed"]] == []
    process.send_signal(signal.SIGCONT)
    go.touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    path = store.path_of(json.loads(out)["outputs"]["out_uri"])
    assert [entry.size for entry in store.entries(str(path))] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["status", "../x"], "a run must be 1 to 40 characters"),
        (["run", "text.repeat", "--task", "a/b c"], "--task must be 1 to 250 characters of letters"),
        (["exporter", "--port", "99999"], "exporter: --port must be 0 (any free one) to 65535, got 99999"),
        (["link", "file:///x", "--hours", "nan"], "there is no file 'file:///x'"),
    ],
)
def test_a_name_that_is_no_name_is_one_line_and_exit_78(
    letters: Letters, toys: Any, arguments: list[str], sentence: str
) -> None:
    _, err = toys.call(*arguments, code=78)
    assert sentence in err.splitlines()[-1]


def _age(store: Store, *, days: float) -> None:
    assert store.root is not None
    for file in store.root.rglob("*"):
        if file.is_file():
            os.utime(file, (time.time() - days * 86400,) * 2)


def _collect_with(toys: Any, *, keep_days: float) -> list[dict[str, Any]]:
    """Collect where the toys are installed: which components have effects is known there alone."""
    out, _ = toys.call("gc", "--dry-run", "--json", "--keep-days", str(keep_days))
    found: list[dict[str, Any]] = json.loads(out)["removed"]
    return found


class Counting(Store):
    """A store that counts the objects that are read from it."""

    num_reads = 0

    def read(self, path: str) -> bytes:
        self.num_reads += 1
        return super().read(path)


@pytest.fixture
def crowded(deployment: settings.Settings) -> Counting:
    """A store with 300 runs, each of which made another text, the newest last."""
    store = Counting(deployment.store_uri)
    for number in range(300):
        address = {"inputs": {"times": number}, "modules": {}}
        record = {"attempt": "a", "address": address, "committed": float(number), "files": {}}
        store.write_json(f"work/text.repeat/{number:032x}/commit.json", record)
        runs.register(store, f"run-{number}")
        pointer = runs.Pointer(
            task="text.repeat", component="text.repeat", key=f"{number:032x}", decision="ran", reason="", inputs={}
        )
        runs.point(store, f"run-{number}", pointer)
    store.num_reads = 0
    return store


def test_the_newest_of_many_runs_is_found_without_reading_them(crowded: Counting) -> None:
    assert runs.names(crowded)[:2] == ["run-299", "run-298"]
    assert crowded.num_reads == 0


def test_a_reason_is_found_among_the_newest_commits_alone(crowded: Counting) -> None:
    where = Address(component="text.repeat", key="new", inputs={"times": 500}, modules={}, run=None)
    assert explain.why_new(crowded, where) == "times was 299, now 500"
    assert crowded.num_reads < 40


def test_explain_lives_with_a_component_that_is_not_installed(deployment: settings.Settings, toys: Any) -> None:
    pointer = runs.Pointer(task="t", component="gone.away", key="0" * 32, decision="ran", reason="", inputs={})
    runs.register(Store(deployment.store_uri), "letters")
    runs.point(Store(deployment.store_uri), "letters", pointer)
    assert _forecast(toys) == {"t": "refused"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "r"],
        ["explain"],
        ["logs", "r"],
        ["lineage", "model@alias"],
        ["gc", "--dry-run"],
        ["doctor"],
    ],
)
def test_a_question_about_a_store_that_is_away_is_answered_soon(
    s3_store: str, deployment: settings.Settings, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELECINE_STORE", s3_store)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("TELECINE_STORE_RETRY_S")
    began = time.monotonic()
    assert cli.main(arguments) == (78 if arguments == ["doctor"] else 75)
    assert time.monotonic() - began < 12.0


LEAVING = """
import atexit, tempfile, threading

home = Path(os.environ["TELECINE_HOME"])

class Held:
    def __del__(self):
        print("taken apart", flush=True)

sys.modules["held"] = types = type(sys)("held")
types.folder, types.one = tempfile.TemporaryDirectory(dir=home, prefix="temporary-"), Held()
atexit.register((home / "called").touch)
if inputs.waits:
    threading.Thread(target=lambda: (time.sleep(1.0), (home / "waited").touch())).start()
return Outputs()
"""


@pytest.mark.parametrize("waits", [False, True])
def test_a_run_ends_at_once_but_not_before_what_has_to_be_done_at_the_end(toys: Any, waits: bool) -> None:
    body = f"import sys{LEAVING}"
    toys.add("quick.exit", inputs='waits: bool = param(False, help="Have a thread.")', outputs="", body=body)
    out, _ = toys.call("run", "quick.exit", "--set", f"waits={json.dumps(waits)}")
    assert ("taken apart" in out) is waits, "a thread is waited for as Python does it"
    assert json.loads(out.removesuffix("taken apart\n"))["decision"] == "ran"
    left = {path.name for path in toys.here.home.iterdir()}
    assert "called" in left and ("waited" in left) is waits
    assert [name for name in left if name.startswith("temporary-")] == []


def test_a_run_whose_reader_is_gone_is_done_all_the_same(toys: Any, letters: Letters) -> None:
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "telecine.cli", "run", "text.repeat"]
    process = subprocess.Popen(command, env=toys.environment, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    os.close(read_end)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "BrokenPipe" not in err and letters()["decision"] == "reused"
