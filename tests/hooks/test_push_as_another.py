"""Who may push, but is not whom the guests belong to: the push succeeds, and leaves a trigger."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mirage_hooks
from mirage_hooks.installer import hookfile
from support import Site, run

# A user and a group that every Debian has, and that owns nothing.
PUSHER = "games"
PYTHON = "/usr/bin/python3"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can push as another user")


@dataclass
class Shared:
    """A bare repository of root's into which another user may push, and that user's clone."""

    site: Site
    clone: Path
    home: Path

    def push(self, *refs: str) -> "subprocess.CompletedProcess[str]":
        """Push as that user."""
        return self.git("push", str(self.site.clone), *(refs or ("main",)))

    def git(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run git as that user, in that user's environment and clone."""
        environment = ["env", "-i", f"HOME={self.home}", "PATH=/usr/bin:/bin"]
        become = ["setpriv", f"--reuid={PUSHER}", f"--regid={PUSHER}", "--clear-groups"]
        return run(*become, *environment, "git", *arguments, cwd=self.clone)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user gets to; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="mh-shared-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def make_environment(folder: Path) -> Path:
    """Make an environment with mirage-hooks that every user gets to; return its interpreter.

    What a hook needs where it does not deploy is in the standard library.
    """
    version = "import sys; print(*sys.version_info[:2], sep='.')"
    found = run(PYTHON, "-c", version, cwd=folder, check=False) if Path(PYTHON).exists() else None
    if found is None or tuple(map(int, found.stdout.split("."))) < (3, 11):
        pytest.skip(f"{PYTHON} is no Python 3.11 that every user gets to")
    run(PYTHON, "-m", "venv", "--without-pip", str(folder), cwd=folder.parent)
    packages = folder / "lib" / f"python{found.stdout.strip()}" / "site-packages"
    assert mirage_hooks.__file__ is not None
    source = Path(mirage_hooks.__file__).parent
    shutil.copytree(source, packages / "mirage_hooks", ignore=shutil.ignore_patterns("*.pyc"))
    return folder / "bin" / "python3"


@pytest.fixture
def shared(reachable: Path, site: Site) -> Shared:
    """Set up as docs/push.md has it, with the first image pushed, and running."""
    host = reachable / "site.git"
    run("git", "clone", "-q", "--bare", str(site.upstream), str(host), cwd=reachable)
    site.clone = host
    site.install("--deploy")
    environment = reachable / "environment"
    environment.mkdir()
    python = make_environment(environment)
    for hook in hookfile.HOOKS:
        (host / "hooks" / hook).write_bytes(hookfile.render(hook, str(python)))

    site.git("config", "core.sharedRepository", "group")
    site.git("symbolic-ref", "HEAD", "refs/heads/unborn")
    run("chgrp", "-R", PUSHER, "objects", "refs", cwd=host)
    run("chmod", "-R", "g+w", "objects", "refs", cwd=host)
    run("find", "objects", "refs", "-type", "d", "-exec", "chmod", "g+s", "{}", "+", cwd=host)
    shutil.chown(site.state.trigger, group=PUSHER)
    site.state.trigger.chmod(0o620)

    home = reachable / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f"[safe]\ndirectory = {host}\n")
    clone = reachable / "work"
    run("git", "clone", "-q", str(site.upstream), str(clone), cwd=reachable)
    for path in (home, clone):
        run("chown", "-R", f"{PUSHER}:{PUSHER}", str(path), cwd=reachable)
    return Shared(site, clone, home)


def publish(shared: Shared, page: str) -> str:
    """Commit an image, and have it in the pusher's clone; return the commit."""
    commit = shared.site.publish(page)
    run("git", "-c", f"safe.directory={shared.clone}", "pull", "-q", cwd=shared.clone)
    run("chown", "-R", f"{PUSHER}:{PUSHER}", str(shared.clone), cwd=shared.clone)
    return commit


def tip(shared: Shared) -> str:
    return run("git", "rev-parse", "main", cwd=shared.site.clone).stdout.strip()


def test_a_push_by_another_user_leaves_a_trigger_and_boots_nothing(shared: Shared) -> None:
    commit = publish(shared, "two")
    push = shared.push()
    assert (
        "remote: mirage-hooks: the guests here are root's: a trigger is left for their next "
        "`mirage-hooks deploy`"
    ) in push.stderr
    assert tip(shared) == commit
    assert shared.site.state.trigger.read_text() != ""
    assert shared.site.page() == "one"


def test_the_owners_deploy_boots_what_was_pushed_and_takes_the_trigger(shared: Shared) -> None:
    publish(shared, "two")
    shared.push()
    shared.site.command("deploy")
    assert shared.site.page() == "two"
    assert shared.site.state.trigger.read_text() == ""


def test_who_may_push_sees_what_deploys_hold(shared: Shared) -> None:
    """Else a `git gc` of theirs would collect what can be gone back to, or end at what it reads."""
    publish(shared, "two")
    shared.push()
    shared.site.command("deploy")
    pins = shared.site.git("for-each-ref", "refs/mirage-hooks").stdout
    assert len(pins.splitlines()) == 2
    there = ("-C", str(shared.site.clone))
    assert shared.git(*there, "for-each-ref", "refs/mirage-hooks").stdout == pins


def test_a_push_that_may_leave_no_trigger_succeeds_and_says_so(shared: Shared) -> None:
    shared.site.state.trigger.chmod(0o600)
    commit = publish(shared, "two")
    push = shared.push()
    assert "no trigger can be left for them" in push.stderr
    assert "as root, run: mirage-hooks deploy" in push.stderr
    assert tip(shared) == commit
    assert shared.site.page() == "one"


def test_a_trigger_that_is_a_link_is_not_followed(shared: Shared) -> None:
    victim = shared.clone / "victim"
    victim.write_text("precious\n")
    shutil.chown(victim, PUSHER)
    shared.site.state.trigger.unlink()
    shared.site.state.trigger.symlink_to(victim)
    publish(shared, "two")
    assert "no trigger can be left for them" in shared.push().stderr
    assert victim.read_text() == "precious\n"


def test_an_interpreter_out_of_the_pushers_reach_is_said(shared: Shared) -> None:
    for hook in hookfile.HOOKS:
        path = shared.site.clone / "hooks" / hook
        path.write_bytes(hookfile.render(hook, sys.executable))
    private = Path(sys.executable).resolve()
    reach = ["setpriv", f"--reuid={PUSHER}", "--clear-groups", "test", "-x", str(private)]
    if run(*reach, cwd=Path("/"), check=False).returncode == 0:
        pytest.skip("this interpreter is within every user's reach")
    commit = publish(shared, "two")
    assert "is gone, or out of this user's reach" in shared.push().stderr
    assert tip(shared) == commit
