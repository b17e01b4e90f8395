"""What is installed, what imports what, and what stays out of memory."""

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("boot", "hooks", "installer")

# What a module of each layer may import of the others: no arrow back.
ALLOWED = {
    "boot": {"boot"},
    "hooks": {"boot", "hooks"},
    "installer": {"boot", "hooks", "installer"},
}

# What costs a process that stays in memory, or a hook that git waits for, too much.
HEAVY = {"psutil", "git", "gitdb", "msgspec", "click", "rich", "pyroute2", "tomlkit"}

LIST_MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)))"
SOURCES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def modules_after(statement: str, folder: Path) -> set[str]:
    """Return every module that a fresh interpreter has loaded after a statement."""
    done = python("-I", "-c", f"{statement}; {LIST_MODULES}", cwd=folder)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout)
    return {name.partition(".")[0] for name in loaded}


def imported(path: Path) -> set[str]:
    """Return the full name of everything that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layers_of(path: Path) -> set[str]:
    """Return the layers that a file imports from."""
    found = (re.match(r"mirage_hooks\.(\w+)", name) for name in imported(path))
    return {match[1] for match in found if match}


# Names.


@pytest.mark.parametrize("name", LAYERS)
def test_a_folder_of_ours_is_no_package_of_its_own(tmp_path: Path, name: str) -> None:
    done = python("-I", "-c", f"import {name}", cwd=tmp_path)
    assert f"ModuleNotFoundError: No module named '{name}'" in done.stderr


def test_the_package_is_found_from_anywhere(tmp_path: Path) -> None:
    done = python("-I", "-c", "import mirage_hooks.boot.converge", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_name_is_installed() -> None:
    top_level = metadata.distribution("mirage-hooks").read_text("top_level.txt")
    assert top_level is not None
    assert top_level.split() == ["mirage_hooks"]


def test_one_command_and_its_helper_are_installed() -> None:
    scripts = metadata.distribution("mirage-hooks").entry_points.select(group="console_scripts")
    assert [script.name for script in scripts] == ["mirage-hooks", "mirage-hooks-tap"]


@pytest.mark.parametrize("name", LAYERS)
def test_the_package_holds_links_to_the_folders(name: str) -> None:
    assert (ROOT / "mirage_hooks" / name).readlink() == Path("..", name)


def test_the_package_says_that_it_is_typed(tmp_path: Path) -> None:
    find = "from importlib.resources import files; print(files('mirage_hooks') / 'py.typed')"
    assert Path(python("-I", "-c", find, cwd=tmp_path).stdout.strip()).is_file()


# One module, one name.

LOAD_EVERYTHING = """
import json, pkgutil, sys, importlib, os
import mirage_hooks
for found in pkgutil.walk_packages(mirage_hooks.__path__, "mirage_hooks."):
    importlib.import_module(found.name)
files = {}
for name, module in sys.modules.items():
    if path := getattr(module, "__file__", None):
        files.setdefault(os.path.realpath(path), []).append(name)
print(json.dumps(files))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """The names that lead to each file, with all of our modules loaded from our own folder."""
    # Without -I: the folder that Python is started in can be imported from, as for a developer.
    done = python("-c", LOAD_EVERYTHING, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    files: dict[str, list[str]] = json.loads(done.stdout)
    return files


def test_no_two_names_lead_to_one_module(loaded: dict[str, list[str]]) -> None:
    ours = {path: names for path, names in loaded.items() if Path(path).is_relative_to(ROOT)}
    assert {path: names for path, names in ours.items() if len(names) > 1} == {}


def test_every_module_can_be_imported(loaded: dict[str, list[str]]) -> None:
    assert [str(path) for path in SOURCES if str(path) not in loaded] == []


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_our_modules_by_their_full_names(path: Path) -> None:
    assert {name for name in imported(path) if name.partition(".")[0] in LAYERS} == set()


def test_the_tests_have_loaded_no_module_twice() -> None:
    files: dict[str, list[str]] = {}
    for name, module in list(sys.modules.items()):
        path = os.path.realpath(getattr(module, "__file__", None) or "")
        if path in map(str, SOURCES):
            files.setdefault(path, []).append(name)
    assert {path: names for path, names in files.items() if len(names) > 1} == {}


# Who may import whom.


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_nothing_that_lies_above_it(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    assert layers_of(path) <= ALLOWED[layer]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_nothing_of_the_tests(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imported(path)}
    assert tops & {"pytest", "hypothesis", "tests", "support"} == set()


# What a process takes into memory.


def test_the_monitor_loads_nothing_heavy(tmp_path: Path) -> None:
    assert modules_after("import mirage_hooks.boot.monitor", tmp_path) & HEAVY == set()


@pytest.mark.parametrize("hook", ["post_merge", "post_rewrite"])
def test_a_hook_loads_nothing_heavy(tmp_path: Path, hook: str) -> None:
    loaded = modules_after(f"import mirage_hooks.hooks.{hook}", tmp_path)
    assert loaded & (HEAVY | {"daemon", "subprocess"}) == set()


def test_the_engine_loads_nothing_of_the_command_line(tmp_path: Path) -> None:
    loaded = modules_after("import mirage_hooks.boot.converge", tmp_path)
    assert loaded & {"click", "rich", "tomlkit"} == set()


def test_the_command_line_loads_no_tables_before_it_needs_them(tmp_path: Path) -> None:
    assert "rich" not in modules_after("import mirage_hooks.installer.cli", tmp_path)


@pytest.mark.parametrize("module", ["taps", "tap_helper"])
def test_links_are_not_asked_for_before_there_is_need(tmp_path: Path, module: str) -> None:
    loaded = modules_after(f"import mirage_hooks.boot.{module}", tmp_path)
    assert loaded & HEAVY == set()
