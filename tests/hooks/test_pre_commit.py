"""What pre-commit makes of our hook: tried, in a commit, in a push; with the real pre-commit.

pre-commit clones this project and installs it into an environment of its own, once for all tests:
that needs the package index. Where pip cannot reach it, the tests are skipped.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import run

ROOT = Path(__file__).resolve().parents[2]
HOOK = "mirage-hooks-verify"

SCRIPT = b"#!/bin/sh\nexec sleep 1000\n"
BROKEN = b"plain text"
GUEST = b'[guest.www]\ntarget = "unix"\nimage = "www.unix"\n'
SOUND = "www: image www.unix is sound: "
REASON = "www: image www.unix: it is neither an ELF file nor a script"

# What pip says, and pre-commit shows, where no package index can be reached.
NO_INDEX = ("No matching distribution found for", "Could not find a version that satisfies")

# What pre-commit installs takes a minute, on a busy machine several.
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Home:
    """Where pre-commit keeps its clones and environments, and the revision that it installs."""

    folder: Path
    project: Path
    revision: str

    def run(
        self, *command: str | Path, cwd: Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that may run pre-commit; both its outputs are in `stdout`."""
        return subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "PRE_COMMIT_HOME": str(self.folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )

    def pre_commit(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "pre_commit", *arguments, cwd=cwd)


def skip_without_index(done: subprocess.CompletedProcess[str]) -> None:
    """Skip where pip, not we, failed for want of a package index."""
    reasons = [line for line in done.stdout.splitlines() if any(map(line.__contains__, NO_INDEX))]
    if done.returncode != 0 and reasons:
        pytest.skip(f"pip cannot install our dependencies: {reasons[-1].strip()}")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """pre-commit's home with this project as it is installed there, changes of the tree and all.

    pre-commit installs commits only: the tree is committed in a clone, as `try-repo` does it.
    """
    folder = tmp_path_factory.mktemp("pre-commit")
    project = folder / "project"
    run("git", "clone", "-q", "--no-hardlinks", ROOT, project, cwd=folder)
    patch = folder / "patch"
    patch.write_text(run("git", "diff", "HEAD", "--binary", cwd=ROOT).stdout)
    if patch.stat().st_size:
        run("git", "apply", "--index", patch, cwd=project)
        author = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
        run("git", *author, "commit", "-q", "-m", "changes", cwd=project)
    head = run("git", "rev-parse", "HEAD", cwd=project).stdout.strip()
    yield Home(folder / "home", project, head)


@dataclass
class Site:
    """A deployment repository whose `.pre-commit-config.yaml` names our hook for both stages."""

    home: Home
    clone: Path

    @property
    def upstream(self) -> Path:
        return self.clone.with_name("upstream.git")

    def git(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run git, which may run pre-commit, whatever comes of it."""
        return self.home.run("git", *arguments, cwd=self.clone)

    def write(self, image: bytes) -> None:
        (self.clone / "www.unix").write_bytes(image)

    def stage(self, image: bytes) -> None:
        self.write(image)
        run("git", "add", "www.unix", cwd=self.clone)

    def commit_unasked(self, image: bytes) -> str:
        """Commit an image past the hooks; return the commit."""
        self.stage(image)
        run("git", "commit", "-q", "--no-verify", "-m", "change", cwd=self.clone)
        return self.head()

    def head(self) -> str:
        return run("git", "rev-parse", "HEAD", cwd=self.clone).stdout.strip()


@pytest.fixture
def site(tmp_path: Path, home: Home) -> Site:
    """A clone with pre-commit installed in it for commits and pushes, level with its upstream."""
    made = Site(home, tmp_path / "clone")
    run("git", "init", "-q", "--bare", made.upstream, cwd=tmp_path)
    run("git", "clone", "-q", made.upstream, made.clone, cwd=tmp_path)
    (made.clone / ".pre-commit-config.yaml").write_text(
        f"repos:\n- repo: {home.project}\n  rev: {home.revision}\n  hooks:\n  - id: {HOOK}\n"
    )
    (made.clone / "mirage-hooks.toml").write_bytes(GUEST)
    run("git", "add", "-A", cwd=made.clone)
    made.commit_unasked(SCRIPT)
    run("git", "push", "-q", "-u", "origin", "main", cwd=made.clone)
    stages = ["--hook-type", "pre-commit", "--hook-type", "pre-push"]
    done = home.pre_commit("install", "--install-hooks", *stages, cwd=made.clone)
    skip_without_index(done)
    assert done.returncode == 0, done.stdout
    return made


# Tried.


@pytest.mark.parametrize("stage", ["pre-commit", "pre-push"])
def test_the_hook_can_be_tried(site: Site, stage: str) -> None:
    tried = ["try-repo", "--verbose", "--all-files", "--hook-stage", stage, str(ROOT), HOOK]
    done = site.home.pre_commit(*tried, cwd=site.clone)
    skip_without_index(done)
    assert (done.returncode, SOUND in done.stdout) == (0, True), done.stdout


def test_a_range_can_be_asked_about(site: Site) -> None:
    first = site.head()
    site.commit_unasked(BROKEN)
    site.commit_unasked(SCRIPT)
    arguments = ["run", "--hook-stage", "pre-push", "--from-ref", first, "--to-ref", "HEAD"]
    done = site.home.pre_commit(*arguments, cwd=site.clone)
    assert (done.returncode, REASON in done.stdout) == (1, True), done.stdout


# In a commit.


def test_a_sound_image_is_committed(site: Site) -> None:
    site.stage(SCRIPT + b"# another\n")
    before = site.head()
    done = site.git("commit", "-m", "change")
    assert (done.returncode, site.head() != before) == (0, True), done.stdout


def test_a_broken_image_stops_the_commit(site: Site) -> None:
    site.stage(BROKEN)
    before = site.head()
    done = site.git("commit", "-m", "change")
    assert (REASON in done.stdout, site.head()) == (True, before), done.stdout


def test_a_broken_image_stops_a_commit_of_all(site: Site) -> None:
    site.write(BROKEN)
    done = site.git("commit", "-a", "-m", "change")
    assert (done.returncode, REASON in done.stdout) == (1, True), done.stdout


def test_a_commit_is_not_judged_by_what_is_not_staged(site: Site) -> None:
    (site.clone / "README").write_text("words\n")
    run("git", "add", "README", cwd=site.clone)
    site.write(BROKEN)
    done = site.git("commit", "-m", "change")
    assert done.returncode == 0, done.stdout
    assert (site.clone / "www.unix").read_bytes() == BROKEN


def test_a_commit_of_one_file_is_not_judged_by_what_else_is_staged(site: Site) -> None:
    site.stage(BROKEN)
    (site.clone / "mirage-hooks.toml").write_bytes(GUEST + b"memory = 64\n")
    done = site.git("commit", "-m", "change", "mirage-hooks.toml")
    assert done.returncode == 0, done.stdout
    assert run("git", "diff", "--cached", "--name-only", cwd=site.clone).stdout == "www.unix\n"


def test_a_commit_of_one_file_is_judged_by_that(site: Site) -> None:
    site.stage(SCRIPT + b"# another\n")
    (site.clone / "mirage-hooks.toml").write_bytes(GUEST + b"colour = 1\n")
    done = site.git("commit", "-m", "change", "mirage-hooks.toml")
    assert "mirage-hooks.toml: guest www: unknown key 'colour'" in done.stdout
    assert done.returncode == 1


def test_a_commit_in_a_linked_worktree_is_judged_by_its_own_index(site: Site) -> None:
    linked = site.clone.with_name("linked")
    run("git", "worktree", "add", "-q", "-b", "linked", linked, cwd=site.clone)
    (linked / "www.unix").write_bytes(BROKEN)
    done = site.home.run("git", "commit", "-a", "-m", "change", cwd=linked)
    assert (done.returncode, REASON in done.stdout) == (1, True), done.stdout


# In a push.


def test_a_sound_push_passes(site: Site) -> None:
    site.commit_unasked(SCRIPT + b"# another\n")
    done = site.git("push", "origin", "main")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("images", [[BROKEN], [BROKEN, SCRIPT]], ids=["last", "in the middle"])
def test_a_broken_commit_stops_the_push(site: Site, images: list[bytes]) -> None:
    broken, *_ = [site.commit_unasked(image) for image in images]
    done = site.git("push", "origin", "main")
    assert f"mirage-hooks: {broken[:7]}: {REASON}" in done.stdout
    assert done.returncode == 1


def test_a_broken_new_branch_stops_its_push(site: Site) -> None:
    site.commit_unasked(BROKEN)
    done = site.git("push", "origin", "main:dev")
    assert (done.returncode, REASON in done.stdout) == (1, True), done.stdout


def test_the_first_push_of_all_is_verified(site: Site) -> None:
    site.commit_unasked(BROKEN)
    run("git", "init", "-q", "--bare", "empty.git", cwd=site.clone.parent)
    run("git", "remote", "set-url", "origin", "../empty.git", cwd=site.clone)
    run("git", "update-ref", "-d", "refs/remotes/origin/main", cwd=site.clone)
    done = site.git("push", "origin", "main")
    assert (done.returncode, REASON in done.stdout) == (1, True), done.stdout


def test_a_deletion_passes(site: Site) -> None:
    run("git", "push", "-q", "--no-verify", "origin", "main:dev", cwd=site.clone)
    done = site.git("push", "origin", ":dev")
    assert done.returncode == 0, done.stdout


def test_what_is_staged_has_no_part_in_a_push(site: Site) -> None:
    site.commit_unasked(SCRIPT + b"# another\n")
    site.stage(BROKEN)
    done = site.git("push", "origin", "main")
    assert done.returncode == 0, done.stdout
