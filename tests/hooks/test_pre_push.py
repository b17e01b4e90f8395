"""Every way git pushes from an installed clone, and what the pre-push hook makes of it.

One row of the table of git's hooks a test: the real git, the dropped hook, a bare upstream.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirage_hooks.boot import artifact, description, host, settled
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from support import COMMAND, USER, run

SCRIPT = b"#!/bin/sh\nexec sleep 1000\n"
BROKEN = b"plain text"
GUEST = '[guest.www]\ntarget = "unix"\nimage = "unix/{latest}/www.unix"\n'
REASON = "it is neither an ELF file nor a script"
ADVICE = "mirage-hooks: this cannot be deployed; --no-verify goes on all the same"

# A stand-in for the interpreter: it notes that it was started, and goes on as the real one.
NOTING = """\
#!/bin/sh
echo started >>{notes}
exec {python} "$@"
"""


@dataclass
class Site:
    """A clone with mirage-hooks in it, and the bare repository that it pushes to."""

    folder: Path
    count: int = 0

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    @property
    def upstream(self) -> Path:
        return self.folder / "upstream.git"

    @property
    def hook(self) -> Path:
        return self.clone / ".git" / "hooks" / "pre-push"

    @property
    def state(self) -> State:
        return State(self.clone / ".git")

    def git(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run("git", *arguments, cwd=self.clone, check=check)

    def push(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Push, whatever comes of it: to `origin main`, where nothing else is said."""
        return self.git("push", *(arguments or ("origin", "main")), check=False)

    def add(self, image: bytes) -> str:
        """Commit an image of its own, and the pointer to it; return the commit."""
        self.count += 1
        name = f"{self.count:040x}"
        image += f"# {self.count}\n".encode()
        return self.commit({f"unix/{name}/www.unix": image, "unix/latest": f"{name}\n".encode()})

    def commit(self, files: dict[str, bytes]) -> str:
        """Commit files by their paths; return the commit."""
        for path, data in files.items():
            (self.clone / path).parent.mkdir(parents=True, exist_ok=True)
            (self.clone / path).write_bytes(data)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change")
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD").stdout.strip()

    def remote(self, ref: str = "refs/heads/main", upstream: Path | None = None) -> str | None:
        """Return what the upstream has under a ref, None where it has none."""
        listed = run("git", "ls-remote", upstream or self.upstream, ref, cwd=self.folder).stdout
        return listed.split()[0] if listed else None

    def note_starts(self) -> None:
        """Have the hook's interpreter note that it is started."""
        python = self.folder / "noting"
        python.write_text(NOTING.format(notes=self.folder / "notes", python=sys.executable))
        python.chmod(0o755)
        text, found = re.subn("^python=.*$", f"python={python}", self.hook.read_text(), flags=re.M)
        assert found == 1
        self.hook.write_text(text)

    @property
    def starts(self) -> int:
        """How often the interpreter was started."""
        notes = self.folder / "notes"
        return len(notes.read_text().splitlines()) if notes.exists() else 0

    def settle(self) -> None:
        """Leave the stamp that a converge leaves once all runs as the branch says."""
        repository = Repository(self.clone)
        revision = repository.tip("main")
        bound, text = host.load(self.state.host_file)
        (guest,) = description.describe(revision, bound.guest) or []
        paths = [description.NAME, *artifact.locate(revision, guest.image).watched]
        settled.write(self.state, repository, "main", paths, revision, text, [])

    def keep(self, text: str) -> None:
        """Put a hook of somebody else's before ours."""
        kept = self.hook.with_name("pre-push.kept")
        kept.write_text(f"#!/bin/sh\n{text}")
        kept.chmod(0o755)


def make_site(folder: Path) -> Site:
    site = Site(folder)
    run("git", "init", "-q", "--bare", site.upstream, cwd=folder)
    run("git", "clone", "-q", site.upstream, site.clone, cwd=folder)
    site.commit({"mirage-hooks.toml": GUEST.encode()})
    site.add(SCRIPT)
    site.git("push", "-q", "-u", "origin", "main")
    run(COMMAND, "install", *(["--user", USER] if USER else []), cwd=site.clone)
    return site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An installed clone that the upstream is level with."""
    return make_site(tmp_path)


def passed(push: subprocess.CompletedProcess[str]) -> bool:
    return push.returncode == 0


def stopped(push: subprocess.CompletedProcess[str], site: Site, commit: str, number: int) -> bool:
    """Whether a push was stopped for an image, and says by which commit, why, and the way on."""
    path = f"unix/{number:040x}/www.unix"
    found = f"mirage-hooks: {commit[:7]}: www: image {path}: {REASON}"
    lines = push.stderr.splitlines()
    told = any(line.startswith(found) for line in lines) and ADVICE in lines
    return push.returncode == 1 and told and site.remote() != site.head()


# To the branch that deploys.


def test_a_sound_push_passes_and_says_so(site: Site) -> None:
    commit = site.add(SCRIPT)
    push = site.push()
    sound = f"image unix/{2:040x}/www.unix is sound: "
    assert f"mirage-hooks: {commit[:7]}: www: {sound}" in push.stderr
    assert (passed(push), site.remote()) == (True, commit)


def test_a_broken_image_stops_the_push(site: Site) -> None:
    before, commit = site.remote(), site.add(BROKEN)
    assert stopped(site.push(), site, commit, 2)
    assert site.remote() == before


def test_a_broken_manifest_stops_the_push(site: Site) -> None:
    commit = site.commit({"mirage-hooks.toml": b"[guest.www]\ncolour = 1\n"})
    push = site.push()
    assert f"{commit[:7]}: mirage-hooks.toml: guest www: " in push.stderr
    assert (passed(push), site.remote() == commit) == (False, False)


def test_a_broken_pointer_stops_the_push(site: Site) -> None:
    commit = site.commit({"unix/latest": b"../up\n"})
    push = site.push()
    assert f"{commit[:7]}: www: pointer unix/latest holds '../up\\n'" in push.stderr
    assert not passed(push)


def test_an_image_that_is_still_to_come_stops_nothing(site: Site) -> None:
    commit = site.commit({"unix/latest": b"f00\n"})
    push = site.push()
    assert f"{commit[:7]}: www: there is no image unix/f00/www.unix yet" in push.stderr
    assert passed(push)


def test_a_broken_commit_in_the_middle_stops_the_push(site: Site) -> None:
    middle = site.add(BROKEN)
    site.add(SCRIPT)
    assert stopped(site.push(), site, middle, 2)


def test_a_broken_commit_that_the_next_one_reverts_stops_the_push(site: Site) -> None:
    site.settle()
    middle = site.add(BROKEN)
    site.git("revert", "--no-edit", "HEAD")
    assert stopped(site.push(), site, middle, 2)


def test_what_was_stopped_and_mended_passes(site: Site) -> None:
    site.add(BROKEN)
    assert not passed(site.push())
    site.git("reset", "-q", "--hard", "HEAD^")
    site.add(SCRIPT)
    assert passed(site.push())


def test_a_broken_push_goes_on_with_no_verify(site: Site) -> None:
    commit = site.add(BROKEN)
    push = site.push("--no-verify", "origin", "main")
    assert (passed(push), site.remote(), "mirage-hooks" in push.stderr) == (True, commit, False)


def test_a_dry_run_says_what_the_push_would(site: Site) -> None:
    commit = site.add(BROKEN)
    assert stopped(site.push("-n", "origin", "main"), site, commit, 2)


def test_a_push_with_nothing_new_passes_in_silence(site: Site) -> None:
    push = site.push()
    assert (passed(push), push.stderr) == (True, "Everything up-to-date\n")


def test_a_forced_push_back_to_an_older_commit_passes(site: Site) -> None:
    older = site.head()
    site.add(SCRIPT)
    assert passed(site.push())
    assert passed(site.push("--force", "origin", f"{older}:main"))
    assert site.remote() == older


def test_a_forced_push_of_another_history_is_verified(site: Site) -> None:
    site.add(SCRIPT)
    assert passed(site.push())
    site.git("reset", "-q", "--hard", "HEAD^")
    commit = site.add(BROKEN)
    assert stopped(site.push("--force", "origin", "main"), site, commit, 3)


def test_a_push_over_what_was_never_fetched_is_verified(site: Site) -> None:
    other = site.folder / "other"
    run("git", "clone", "-q", site.upstream, other, cwd=site.folder)
    run("git", "commit", "-q", "--allow-empty", "-m", "theirs", cwd=other)
    run("git", "push", "-q", cwd=other)
    commit = site.add(BROKEN)
    assert stopped(site.push("--force", "origin", "main"), site, commit, 2)


@pytest.mark.parametrize("source", ["HEAD", "@{0}", "main^{commit}", ":/two words"])
def test_what_is_pushed_may_have_any_name_of_gits(site: Site, source: str) -> None:
    site.settle()
    site.commit({"unix/latest": b"f00\n", "unix/f00/www.unix": BROKEN})
    site.git("commit", "-q", "--amend", "-m", "two words")
    push = site.push("origin", f"{source}:refs/heads/main")
    assert f"{site.head()[:7]}: www: image unix/f00/www.unix: {REASON}" in push.stderr
    assert not passed(push)


# A branch that is new on the remote.


@pytest.fixture
def empty(site: Site) -> Path:
    """A second upstream, in which there is nothing yet."""
    run("git", "init", "-q", "--bare", "empty.git", cwd=site.folder)
    return site.folder / "empty.git"


def test_the_first_push_to_a_new_remote_is_verified(site: Site, empty: Path) -> None:
    commit = site.add(BROKEN)
    push = site.push(empty, "main")
    assert stopped(push, site, commit, 2)
    assert site.remote(upstream=empty) is None


def test_what_a_remote_is_known_to_have_is_not_asked_again(site: Site, empty: Path) -> None:
    site.add(BROKEN)
    site.push("--no-verify", "origin", "main")
    site.add(SCRIPT)
    assert passed(site.push(empty, "main"))


def test_where_no_remote_is_known_of_the_last_state_counts(site: Site, empty: Path) -> None:
    site.add(BROKEN)
    site.add(SCRIPT)
    site.git("remote", "remove", "origin")
    assert passed(site.push(empty, "main"))


def test_where_no_remote_is_known_of_a_broken_last_state_stops_the_push(
    site: Site, empty: Path
) -> None:
    commit = site.add(BROKEN)
    site.git("remote", "remove", "origin")
    assert stopped(site.push(empty, "main"), site, commit, 2)


def test_a_branch_of_which_a_remote_has_all_is_verified_all_the_same(
    site: Site, empty: Path
) -> None:
    commit = site.add(BROKEN)
    site.push("--no-verify", "origin", "main")
    push = site.push(empty, "main")
    assert f"{commit[:7]}: www: " in push.stderr
    assert (passed(push), site.remote(upstream=empty)) == (False, None)


# What is none of our business.


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(
    "refspec", ["main:refs/heads/dev", "main:refs/tags/v1", "main:refs/heads/main2"]
)
def test_a_push_to_another_branch_or_a_tag_passes(site: Site, refspec: str, settled: bool) -> None:
    if settled:
        site.settle()
    site.add(BROKEN)
    push = site.push("origin", refspec)
    assert (passed(push), "mirage-hooks" in push.stderr) == (True, False)


def test_an_annotated_tag_passes(site: Site) -> None:
    site.add(BROKEN)
    site.git("tag", "-a", "-m", "first", "v1")
    assert passed(site.push("origin", "v1"))


def test_a_deletion_passes(site: Site) -> None:
    site.git("push", "-q", "--no-verify", "origin", "main:dev")
    push = site.push("origin", ":dev")
    assert (passed(push), site.remote("refs/heads/dev")) == (True, None)


def test_a_deletion_of_the_branch_that_deploys_passes(site: Site) -> None:
    run("git", "config", "receive.denyDeleteCurrent", "ignore", cwd=site.upstream)
    push = site.push("origin", ":main")
    assert (passed(push), site.remote()) == (True, None)


def test_of_several_refs_the_one_that_deploys_is_verified(site: Site) -> None:
    commit = site.add(BROKEN)
    push = site.push("origin", "HEAD:refs/heads/a", "main", "HEAD:refs/heads/z")
    assert stopped(push, site, commit, 2)
    assert push.stderr.count(REASON) == 1


def test_of_several_refs_a_deletion_and_others_pass(site: Site) -> None:
    site.git("push", "-q", "--no-verify", "origin", "main:dev")
    commit = site.add(SCRIPT)
    push = site.push("origin", ":dev", "main", "HEAD:refs/heads/z")
    assert (passed(push), site.remote(), site.remote("refs/heads/dev")) == (True, commit, None)


# What it costs.


def test_a_push_that_changes_nothing_of_ours_starts_no_interpreter(site: Site) -> None:
    site.settle()
    site.note_starts()
    commit = site.commit({"README": b"words\n"})
    assert passed(site.push())
    assert (site.remote(), site.starts) == (commit, 0)


def test_several_commits_that_change_nothing_of_ours_start_no_interpreter(site: Site) -> None:
    site.settle()
    site.note_starts()
    for text in (b"one\n", b"two\n"):
        site.commit({"README": text})
    assert passed(site.push())
    assert site.starts == 0


def test_a_push_with_nothing_new_starts_no_interpreter(site: Site) -> None:
    site.note_starts()
    site.push()
    assert site.starts == 0


def test_a_push_to_another_branch_starts_no_interpreter(site: Site) -> None:
    site.settle()
    site.note_starts()
    site.add(SCRIPT)
    site.push("origin", "main:dev")
    assert site.starts == 0


def test_a_push_of_an_image_starts_the_interpreter_once(site: Site) -> None:
    site.settle()
    site.note_starts()
    site.add(SCRIPT)
    site.push()
    assert site.starts == 1


def test_what_came_after_the_last_deploy_is_verified(site: Site) -> None:
    # The paths that the stamp watches are those of the state that was deployed last.
    site.settle()
    other = GUEST + '[guest.other]\ntarget = "unix"\nimage = "other"\n'
    site.commit({"mirage-hooks.toml": other.encode(), "other": SCRIPT})
    assert passed(site.push())
    commit = site.commit({"other": BROKEN})
    push = site.push()
    assert f"{commit[:7]}: other: image other: {REASON}" in push.stderr
    assert not passed(push)


def test_a_guest_that_the_host_file_was_given_since_is_verified(site: Site) -> None:
    site.settle()
    with site.state.host_file.open("a") as file:
        file.write('[guest.other]\ntarget = "unix"\nimage = "other"\n')
    commit = site.commit({"other": BROKEN})
    push = site.push()
    assert f"{commit[:7]}: other: image other: {REASON}" in push.stderr
    assert not passed(push)


# Beside a hook of somebody else's.


def test_a_hook_that_was_there_sees_what_git_says(site: Site) -> None:
    old = site.head()
    site.keep(f'printf "%s\\n" "$@" >{site.folder}/args; cat >{site.folder}/input\n')
    new = site.add(SCRIPT)
    site.push()
    args, told = ((site.folder / name).read_text() for name in ("args", "input"))
    assert args == f"origin\n{site.upstream}\n"
    assert told == f"refs/heads/main {new} refs/heads/main {old}\n"


def test_a_hook_that_was_there_can_stop_a_sound_push(site: Site) -> None:
    site.keep("echo not on fridays >&2; exit 3\n")
    site.add(SCRIPT)
    push = site.push()
    assert (passed(push), push.stderr.splitlines()[0]) == (False, "not on fridays")


def test_a_hook_that_was_there_and_passes_does_not_pass_a_broken_push(site: Site) -> None:
    site.keep("exit 0\n")
    commit = site.add(BROKEN)
    assert stopped(site.push(), site, commit, 2)


def test_a_hook_that_was_there_is_asked_of_what_is_none_of_our_business(site: Site) -> None:
    site.keep("exit 1\n")
    assert not passed(site.push("origin", "main:dev"))


def test_a_hook_that_reads_nothing_of_what_git_says_keeps_nothing_from_us(site: Site) -> None:
    site.keep("exec <&-\n")
    commit = site.add(BROKEN)
    refs = [f"HEAD:refs/heads/{'x' * 200}{number}" for number in range(500)]
    assert stopped(site.push("-n", "origin", "main", *refs), site, commit, 2)


# Where the installation is not what it was.


def test_a_vanished_interpreter_stops_no_push(site: Site) -> None:
    text = re.sub("^python=.*$", "python=/opt/gone/python", site.hook.read_text(), flags=re.M)
    site.hook.write_text(text)
    site.add(SCRIPT)
    push = site.push()
    assert "mirage-hooks: nothing was verified: /opt/gone/python is gone" in push.stderr
    assert passed(push)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_who_may_not_read_the_state_folder_verifies_all_the_same(site: Site) -> None:
    site.settle()
    shutil.chown(site.state.folder, 65534, 65534)
    site.state.folder.chmod(0o700)
    commit = site.add(BROKEN)
    assert stopped(site.push(), site, commit, 2)


@pytest.mark.parametrize("damage", ["", "branch = \n"], ids=["empty", "no TOML"])
def test_a_damaged_host_file_keeps_nothing_from_being_verified(site: Site, damage: str) -> None:
    site.state.host_file.write_text(damage)
    commit = site.add(BROKEN)
    assert stopped(site.push(), site, commit, 2)


# From other places than a clone's own folder.


def test_a_push_from_a_linked_worktree_is_verified(site: Site) -> None:
    site.git("checkout", "-q", "-b", "aside")
    linked = site.folder / "linked"
    site.git("worktree", "add", "-q", linked, "main")
    (linked / "unix/latest").write_text("../up\n")
    run("git", "commit", "-q", "-a", "-m", "change", cwd=linked)
    push = run("git", "push", "origin", "main", cwd=linked, check=False)
    assert "www: pointer unix/latest holds '../up\\n'" in push.stderr
    assert not passed(push)


def test_a_push_from_a_folder_below_is_verified(site: Site) -> None:
    commit = site.add(BROKEN)
    push = run("git", "push", "origin", "main", cwd=site.clone / "unix", check=False)
    assert stopped(push, site, commit, 2)


def test_the_operators_python_settings_lead_nothing_astray(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "elsewhere" / "mirage_hooks"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit(0)\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    commit = site.add(BROKEN)
    assert stopped(site.push(), site, commit, 2)
