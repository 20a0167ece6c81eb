"""The laws of the repository. Each test is one of them; a decision behind a law is told in docs/adr/."""

import ast
import dataclasses
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import telecine
from telecine import cli, component, config
from telecine.component import Component

REPOSITORY = Path(__file__).parent.parent
COMPONENTS = REPOSITORY / "components" / "telecine_components"
SOURCE_ROOTS = ("platform", "components", "models", "dags")
GIVEN = {"pyproject.toml", "README.md", "dags", "components", "platform", "models", "infra", "tests"}
ADDED = {"charts", "docs", "Makefile", "constraints.txt", "LICENSE", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"}
HIDDEN = {".ci", ".dockerignore", ".gitignore", ".pre-commit-config.yaml"}
HEAVY = {"torch", "ray", "deepspeed", "diffusers", "transformers", "av", "mlflow", "kubernetes"}
DRAWERS = {"utils", "util", "helpers", "helper", "common", "base", "misc", "shared", "tools"}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
UNITS = {"duration": "_s", "timeout": "_s", "interval": "_s", "width": "_px", "height": "_px", "memory": "_gib"}
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_KEYWORDS = {"allow_pickle": True, "shell": True, "trust_remote_code": True, "verify": False}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "os.system", "os.popen"}
ADR_HEADINGS = (
    "Status",
    "Context",
    "Decision",
    "Consequences",
    "A change violates this decision when it",
    "Checked by",
)


# Reading the repository


def tracked(suffix: str = "") -> list[Path]:
    """Every file that is, or would be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    files = [REPOSITORY / name for name in sorted(set(listed.split("\0")) - {""})]
    return [file for file in files if file.name.endswith(suffix) and file.is_file()]


def named(file: Path) -> str:
    return file.relative_to(REPOSITORY).as_posix()


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text()


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), filename=named(file))


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, Any]]:
    """Every node of these kinds in every Python file, with the place where it stands."""
    for file in tracked(".py"):
        for node in ast.walk(tree_of(file)):
            if isinstance(node, kinds):
                yield f"{named(file)}:{getattr(node, 'lineno', 1)}", node


def imports_of(file: Path) -> set[str]:
    """Modules that a file imports, at any depth."""
    found = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or ".")
    return found


@cache
def project() -> dict[str, Any]:
    return tomllib.loads(text_of("pyproject.toml"))


@cache
def components() -> dict[str, Component]:
    return {name: component.find(name) for name in component.names()}


def component_folders() -> dict[str, Path]:
    """Folders two levels down that hold more than what an area shares."""
    return {f"{file.parent.parent.name}.{file.parent.name}": file.parent for file in COMPONENTS.glob("*/*/run.py")}


def fields() -> Iterator[tuple[str, type, "dataclasses.Field[Any]"]]:
    """Every input and output of every component."""
    for name, found in components().items():
        for cls in (found.inputs, found.outputs):
            yield from ((f"{name} {cls.__name__}.{field.name}", cls, field) for field in dataclasses.fields(cls))


def fresh_interpreter(program: str, home: Path) -> str:
    """Run a program in a Python that has imported nothing; returns what it prints."""
    environment = os.environ | {"AIRFLOW_HOME": str(home), "TELECINE_HOME": str(home)}
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


# The tree


def test_the_top_level_of_the_tree_is_as_given() -> None:
    top = {named(file).partition("/")[0] for file in tracked()}
    assert top >= GIVEN
    assert top - GIVEN - ADDED - HIDDEN == set()


def test_source_roots_and_test_folders_hold_no_init_file() -> None:
    roots = [REPOSITORY / root / "__init__.py" for root in SOURCE_ROOTS]
    assert [named(file) for file in tracked(".py") if file in roots or _is_init_of_tests(file)] == []


def _is_init_of_tests(file: Path) -> bool:
    return file.name == "__init__.py" and named(file).startswith("tests/")


def test_every_package_says_in_one_line_what_it_holds_and_does_nothing_else() -> None:
    inits = [file for file in tracked("__init__.py") if COMPONENTS in file.parents]
    assert [named(file) for file in inits if len(tree_of(file).body) != 1 or not ast.get_docstring(tree_of(file))] == []


def test_no_module_is_a_drawer_or_shadows_the_standard_library() -> None:
    modules = [file for file in tracked(".py") if not named(file).startswith("tests/")]
    taken = DRAWERS | set(sys.stdlib_module_names) - {"__init__"}
    parts = {file: [*Path(named(file)).parts[1:-1], file.stem] for file in modules}
    assert [named(file) for file, names in parts.items() if set(names) & taken] == []


def test_no_file_is_longer_than_a_person_reads() -> None:
    lengths = {named(file): file.read_text().count("\n") for file in tracked(".py")}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    functions = nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {f"{place} {node.name}": node.end_lineno - node.lineno + 1 for place, node in functions}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_tracked_files_name_no_home_of_a_developer() -> None:
    homes = re.compile("/" + r"(?:home/[a-z][\w.-]*|root|Users/\w+)/")
    texts = {named(file): file.read_text(errors="ignore") for file in tracked()}
    assert {name: found.group() for name, text in texts.items() if (found := homes.search(text))} == {}


# Components


def test_every_component_folder_has_a_spec_a_run_and_a_test() -> None:
    folders = component_folders()
    assert set(folders) == set(components())
    for name, folder in folders.items():
        area, _, verb = name.partition(".")
        assert (folder / "spec.py").is_file(), name
        assert (REPOSITORY / "tests" / "components" / area / f"test_{verb}.py").is_file(), name


@pytest.mark.parametrize("name", sorted(component_folders()))
def test_a_component_is_called_like_its_folder_and_runs_there(name: str) -> None:
    found = components()[name]
    assert found.name == name
    assert found.entry == f"telecine_components.{name}.run:run"
    assert found.image in project()["project"]["optional-dependencies"]
    assert (sys.modules[found.inputs.__module__].__doc__ or "").startswith(f"{name}: ")


@pytest.mark.parametrize("name", sorted(component_folders()))
def test_a_spec_imports_only_how_to_declare(name: str) -> None:
    spec = component_folders()[name] / "spec.py"
    assert imports_of(spec) <= {"dataclasses", "telecine.component", "telecine.config"}


def test_a_field_ends_in_uri_exactly_when_it_names_an_artifact() -> None:
    wrong = [where for where, cls, f in fields() if f.name.endswith("_uri") != config.is_artifact(cls, f.name)]
    assert wrong == []


def test_a_quantity_carries_its_unit_in_its_name() -> None:
    wrong = [
        where
        for where, _, field in fields()
        for word, suffix in UNITS.items()
        if word in field.name.split("_") and not field.name.endswith(suffix)
    ]
    assert wrong == []


def test_every_field_says_what_it_means() -> None:
    assert [where for where, _, field in fields() if not field.metadata.get("help", "").endswith((".", ")."))] == []


def test_every_area_with_several_components_keeps_them_apart() -> None:
    contracts = project()["tool"]["importlinter"]["contracts"]
    fenced = {container for contract in contracts for container in contract.get("containers", [])}
    areas = [name.partition(".")[0] for name in components()]
    crowded = {f"telecine_components.{area}" for area in areas if areas.count(area) > 1}
    assert crowded - fenced == set()


# Imports


def test_the_linter_bans_what_no_process_may_import_by_accident() -> None:
    assert set(project()["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"]) >= HEAVY


def test_all_specs_import_light(tmp_path: Path) -> None:
    modules = [f"telecine_components.{name}.spec" for name in component_folders()]
    program = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
print(sorted({HEAVY} & set(sys.modules)))
"""
    assert fresh_interpreter(program, tmp_path) == "[]"


def test_all_dags_import_light(tmp_path: Path) -> None:
    dags = [str(file) for file in sorted((REPOSITORY / "dags").glob("*.py"))]
    program = f"""
import runpy, sys, time
import airflow.sdk
started = time.perf_counter()
for dag in {dags}:
    runpy.run_path(dag)
seconds = time.perf_counter() - started
print(sorted({HEAVY} & set(sys.modules)), len({dags}), round(seconds, 2))
"""
    found, _, measured = fresh_interpreter(program, tmp_path).rpartition("] ")
    print(f"DAGs, seconds beyond airflow.sdk: {measured}")
    assert found == "["


@pytest.mark.parametrize("dag", sorted((REPOSITORY / "dags").glob("*.py")), ids=lambda file: file.stem)
def test_a_dag_declares_and_does_nothing_else(dag: Path) -> None:
    spec = re.compile(r"telecine_components\.\w+\.\w+\.spec")
    ours = ("alignment", "assets", "gate", "operators")
    allowed = {"airflow.sdk", "datetime"} | {f"telecine.{name}" for name in ours}
    assert [module for module in imports_of(dag) if module not in allowed and not spec.fullmatch(module)] == []
    doing = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.Try, ast.For, ast.While)
    assert [node.lineno for node in ast.walk(tree_of(dag)) if isinstance(node, doing)] == []
    assert f'"{dag.stem}"' in dag.read_text()


# What no code of ours does


def test_nothing_is_pickled() -> None:
    places = {named(file): imports_of(file) for file in tracked(".py")}
    assert [name for name, found in places.items() if {module.partition(".")[0] for module in found} & PICKLES] == []


def test_nothing_loads_or_runs_what_it_was_sent() -> None:
    found = [(place, ast.unparse(call.func)) for place, call in nodes(ast.Call)]
    assert [(place, name) for place, name in found if name in UNSAFE_CALLS] == []


def test_no_call_turns_a_protection_off() -> None:
    assert [place for place, call in nodes(ast.Call) if any(map(_is_unsafe, call.keywords))] == []


def _is_unsafe(keyword: ast.keyword) -> bool:
    value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
    return keyword.arg in UNSAFE_KEYWORDS and value is UNSAFE_KEYWORDS[keyword.arg]


def test_no_error_is_swallowed() -> None:
    assert [
        place for place, handler in nodes(ast.ExceptHandler) if _catches_all(handler) and not _raises(handler)
    ] == []


def _catches_all(handler: ast.ExceptHandler) -> bool:
    caught = (
        {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else {"Exception"}
    )
    return bool(caught & {"Exception", "BaseException"})


def _raises(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_tests_are_functions_over_real_objects() -> None:
    tests = [file for file in tracked(".py") if named(file).startswith("tests/")]
    assert [
        named(file) for file in tests if {"unittest", "unittest.mock", "mock", "pytest_mock"} & imports_of(file)
    ] == []
    classes = [f"{place} {node.name}" for place, node in nodes(ast.ClassDef) if node.name.startswith("Test")]
    assert classes == []
    patches = [ast.unparse(call.func) for _, call in nodes(ast.Call)]
    assert {"monkeypatch.setattr", "monkeypatch.setitem", "monkeypatch.delattr"} & set(patches) == set()


# What a person relies on


def test_every_toml_file_parses() -> None:
    for file in tracked(".toml"):
        tomllib.loads(file.read_text())


def test_constraints_pin_every_distribution_that_the_extras_reach() -> None:
    lines = [line.strip() for line in text_of("constraints.txt").splitlines()]
    run_time = lines[lines.index("# What it runs with:") :]  # what stands above it `make constraints` copies as it is
    pins = dict(line.split("==", 1) for line in run_time if "==" in line and not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    assert sorted(_reached() - set(pinned)) == []
    loose = [
        line for line in lines if line and not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.!-]+", line)
    ]
    assert loose == [], "a pin is name==version, of a version that the package index has"
    assert any("make constraints" in line for line in lines if line.startswith("#"))


def _reached() -> set[str]:
    """Installed distributions that our extras need, directly or through others."""
    queue = [("telecine", extra) for extra in ("", *project()["project"]["optional-dependencies"])]
    seen: set[tuple[str, str]] = set()
    while queue:
        name, extra = queue.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        queue += _needs(name, extra)
    return {name for name, _ in seen} - {"telecine"}


def _needs(name: str, extra: str) -> Iterator[tuple[str, str]]:
    for line in metadata.requires(name) or []:
        need = Requirement(line)
        if need.marker and not need.marker.evaluate({"extra": extra}):
            continue
        try:
            metadata.distribution(need.name)
        except metadata.PackageNotFoundError:
            continue
        yield from ((canonicalize_name(need.name), part) for part in ("", *need.extras))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/lab-log.md", ".ci/run"])
def test_every_make_target_that_a_document_names_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b(?=[`\s;,.)]|$)", _code_in(document))) - targets == set()


def test_every_make_target_says_what_it_does() -> None:
    targets = re.findall(r"^([a-z]+):(.*)$", text_of("Makefile"), re.MULTILINE)
    assert [name for name, rest in targets if "## " not in rest] == []


def test_the_readme_names_every_command_and_no_other() -> None:
    commands = next(action for action in cli._parser()._actions if action.choices and action.dest != "help").choices
    assert commands is not None
    assert set(re.findall(r"\btelecine ([a-z]+)\b", _code_in("README.md"))) == set(commands)


def test_the_readme_names_every_setting_and_no_other() -> None:
    variable = re.compile(r"\bTELECINE_[A-Z_]+\b")
    documented = variable.findall(importlib.import_module("telecine.settings").__doc__ or "")
    readme = set(variable.findall(text_of("README.md")))
    known = {name for file in tracked(".py") for name in variable.findall(file.read_text())}
    assert readme >= set(documented)
    assert readme - known == set()


def test_the_readme_maps_every_folder_and_holds_no_open_figure() -> None:
    readme = text_of("README.md")
    folders = {named(file).partition("/")[0] for file in tracked() if "/" in named(file)} - HIDDEN
    folders |= {f"infra/{named(file).split('/')[1]}" for file in tracked() if named(file).startswith("infra/")}
    assert [folder for folder in sorted(folders) if f"{folder}/" not in readme] == []
    tree = readme.partition("## The tree")[2].partition("## ")[0]
    words = {verb for line in tree.splitlines() for verb in re.findall(r"\w+", line.strip().partition(" ")[0])}
    assert [name for name in component.names() if not set(name.split(".")) <= words] == []
    assert "TBD" not in readme


def _code_in(document: str) -> str:
    """What a document shows as code; all of a document that is code itself."""
    text = text_of(document)
    if not document.endswith(".md"):
        return text
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == telecine.__version__


def test_the_ci_runs_the_tests_and_then_the_checks() -> None:
    ci = REPOSITORY / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    assert re.findall(r"^make (\w+)", ci.read_text(), re.MULTILINE) == ["test", "check"]


def test_commit_hooks_need_no_network() -> None:
    hooks = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    assert {hook["language"] for hook in hooks[0]["hooks"]} == {"system"}


@pytest.mark.parametrize("adr", sorted((REPOSITORY / "docs" / "adr").glob("*.md")), ids=lambda file: file.stem[:4])
def test_a_decision_says_when_it_is_violated_and_what_checks_it(adr: Path) -> None:
    text = adr.read_text()
    assert text.startswith(f"# {adr.stem[:4]}. ")
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == ADR_HEADINGS
    violations, _, checks = text.partition("## A change violates")[2].partition("## Checked by")
    assert len(re.findall(r"^- ", violations, re.MULTILINE)) >= 2
    files = re.findall(r"`(tests/[\w/]+\.py)`", checks)
    assert files
    assert [file for file in files if not (REPOSITORY / file).is_file()] == []


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(file.stem[:4]) for file in sorted((REPOSITORY / "docs" / "adr").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


def test_a_test_that_the_docs_name_exists() -> None:
    defined = {f"{Path(place.partition(':')[0]).name}::{node.name}" for place, node in nodes(ast.FunctionDef)}
    pages = [page.read_text() for page in (REPOSITORY / "docs").glob("*.md")]
    named_in_docs = {found for page in pages for found in re.findall(r"test_\w+\.py::\w+", page)}
    assert named_in_docs and named_in_docs <= defined, sorted(named_in_docs - defined)
