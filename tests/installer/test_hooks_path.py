"""core.hooksPath: hooks go where git takes them from, if that is this repository's, and private."""

import os
import subprocess
from pathlib import Path

import pytest

from support import COMMAND, Site, make_bare


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder but those that git writes at a pull."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_relative_to(folder / ".git" / "objects")
    }


def assert_refused(site: Site, *words: str) -> None:
    """`install` refuses, names why, and changes nothing."""
    before = tree(site.clone)
    done = site.command("install", check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert [word for word in words if word not in done.stderr] == []
    assert tree(site.clone) == before


def do_as_it_says(site: Site) -> None:
    """Do what the refusal says, as its reader would: paste it into a shell."""
    said = site.command("install", check=False).stderr
    command = said.partition("run: ")[2].splitlines()[0].partition("; or ")[0]
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    subprocess.run(["sh", "-ec", command], cwd=site.clone, env=environment, check=True)


def assert_deploys(site: Site) -> None:
    site.install()
    site.publish("two")
    site.pull()
    assert site.page() == "two"


@pytest.fixture
def ignored(site: Site) -> Site:
    """A clone whose hooks are in its work tree, in a folder that git ignores."""
    (site.clone / ".git" / "info" / "exclude").write_text("/.hooks/\n")
    site.git("config", "core.hooksPath", ".hooks")
    return site


# Inside the git folder.


@pytest.mark.parametrize("path", [".git/our-hooks", "{clone}/.git/our hooks"])
def test_a_folder_inside_the_git_folder_is_used(site: Site, path: str) -> None:
    site.git("config", "core.hooksPath", path.format(clone=site.clone))
    assert_deploys(site)


def test_a_folder_inside_the_git_folder_is_as_before_after_an_uninstall(site: Site) -> None:
    site.git("config", "core.hooksPath", ".git/our-hooks")
    before = tree(site.clone)
    site.install()
    site.command("uninstall", "--yes")
    assert tree(site.clone) == before
    assert not (site.clone / ".git" / "our-hooks").exists()


def test_an_empty_folder_that_was_there_before_stays_after_an_uninstall(site: Site) -> None:
    (site.clone / ".git" / "our-hooks").mkdir()
    site.git("config", "core.hooksPath", ".git/our-hooks")
    site.install()
    site.command("uninstall", "--yes")
    assert (site.clone / ".git" / "our-hooks").is_dir()


def test_a_folder_inside_a_bare_repository_is_used(site: Site, tmp_path: Path) -> None:
    make_bare(site, tmp_path)
    site.git("config", "core.hooksPath", "our-hooks")
    site.install()
    site.publish("two")
    site.push()
    assert site.page() == "two"


def test_hooks_come_out_of_the_folder_that_was_configured_since(site: Site) -> None:
    before = tree(site.clone)
    site.install()
    site.git("config", "core.hooksPath", ".git/our-hooks")
    site.install()
    site.command("uninstall", "--yes")
    site.git("config", "--unset", "core.hooksPath")
    left = tree(site.clone)
    for files in (before, left):
        del files[".git/config"]  # an empty section may stay
    assert left == before


def test_a_folder_that_others_may_write_is_refused(site: Site) -> None:
    site.git("config", "core.hooksPath", ".git/our-hooks")
    (site.clone / ".git" / "our-hooks").mkdir()
    (site.clone / ".git" / "our-hooks").chmod(0o777)
    done = site.command("install", check=False)
    assert (done.returncode, "our-hooks may be written by everybody" in done.stderr) == (6, True)


# In the work tree.


def test_a_folder_in_the_work_tree_that_git_ignores_is_used(ignored: Site) -> None:
    assert_deploys(ignored)


def test_a_folder_in_the_work_tree_that_git_ignores_leaves_that_clean(ignored: Site) -> None:
    ignored.install()
    assert ignored.git("status", "--porcelain").stdout == ""


def test_a_folder_in_the_work_tree_that_could_be_committed_is_refused(site: Site) -> None:
    site.git("config", "core.hooksPath", ".hooks")
    assert_refused(site, "in the work tree", "info/exclude")


def test_a_folder_that_could_be_committed_is_mended_by_unsetting_it(site: Site) -> None:
    site.git("config", "core.hooksPath", ".hooks")
    do_as_it_says(site)
    assert_deploys(site)


def test_a_folder_that_could_be_committed_is_mended_by_the_line_that_ignores_it(
    site: Site,
) -> None:
    site.git("config", "core.hooksPath", ".hooks")
    said = site.command("install", check=False).stderr
    line, _, file = said.partition("by a line ")[2].strip().partition(" in ")
    Path(file).write_text(f"{line}\n")
    assert_deploys(site)


# Elsewhere.


@pytest.mark.parametrize("scope", ["--local", "--global"])
def test_a_folder_elsewhere_is_refused(site: Site, tmp_path: Path, scope: str) -> None:
    site.git("config", scope, "core.hooksPath", str(tmp_path / "shared"))
    assert_refused(site, str(tmp_path / "shared"), "git config core.hooksPath")


@pytest.mark.parametrize("scope", ["--local", "--global"])
def test_a_folder_elsewhere_is_mended_as_it_says(site: Site, tmp_path: Path, scope: str) -> None:
    site.git("config", scope, "core.hooksPath", str(tmp_path / "shared"))
    do_as_it_says(site)
    assert_deploys(site)


def test_a_folder_that_the_environment_names_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(site.clone.parent / "system"))
    (site.clone.parent / "system").write_text("[core]\nhooksPath = /usr/share/hooks\n")
    assert_refused(site, "system configuration")


def test_a_hooks_folder_that_is_a_link_to_elsewhere_is_refused(site: Site, tmp_path: Path) -> None:
    hooks = site.clone / ".git" / "hooks"
    hooks.rename(tmp_path / "shared")
    hooks.symlink_to(tmp_path / "shared")
    assert_refused(site, str(tmp_path / "shared"))
