"""Hooks of others: kept, run first, and back in their place when ours leaves.

With the real pre-commit and the real lefthook, whichever came first and whichever leaves first.
"""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.installer import placing
from mirage_hooks.installer.placing import Kind, Place
from support import Site, make_bare, run

TOOLS = Path(sys.executable).parent

# A hook as somebody else may have put one there: it notes how, and with what, it was run.
FOREIGN = """\
#!/bin/sh
{ printf '%s\\n' foreign "$@"; cat; } >>"$NOTES"
"""


def put(path: Path, text: str = FOREIGN, mode: int = 0o755) -> None:
    path.write_text(text)
    path.chmod(mode)


def hook_of(site: Site, hook: str = "post-merge") -> Path:
    return site.state.folder.parent / "hooks" / hook


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where hooks of others note that they were run."""
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("NOTES", str(path))
    monkeypatch.setenv("PATH", f"{TOOLS}:{os.environ['PATH']}")
    return path


def taken(notes: Path) -> list[str]:
    """Return what was noted since the last time."""
    lines = notes.read_text().splitlines()
    notes.write_text("")
    return lines


# Hooks of people.


def test_a_foreign_post_receive_hook_is_given_what_git_gives_it(
    site: Site, tmp_path: Path, notes: Path
) -> None:
    make_bare(site, tmp_path)
    put(hook_of(site, "post-receive"))
    site.install()
    old = run("git", "rev-parse", "main", cwd=site.clone).stdout.strip()
    new = site.publish("two")
    site.push(str(site.clone), "main", "main:other")
    zero = "0" * 40
    assert taken(notes) == [
        "foreign",
        f"{old} {new} refs/heads/main",
        f"{zero} {new} refs/heads/other",
    ]


def test_a_foreign_pre_push_hook_is_given_what_git_gives_it(site: Site, notes: Path) -> None:
    put(hook_of(site, "pre-push"))
    site.install()
    head = site.git("rev-parse", "HEAD").stdout.strip()
    site.git("push", "-q", "origin", "main:refs/heads/other")
    line = f"refs/heads/main {head} refs/heads/other {'0' * 40}"
    assert taken(notes) == ["foreign", "origin", str(site.upstream), line]


@pytest.mark.parametrize(("code", "stopped"), [(0, False), (7, True)])
def test_a_foreign_pre_push_hook_can_still_stop_a_push(
    site: Site, code: int, stopped: bool
) -> None:
    put(hook_of(site, "pre-push"), f"#!/bin/sh\nexit {code}\n")
    site.install()
    push = site.git("push", "-q", "origin", "main:other", check=False)
    assert (push.returncode != 0) == stopped


def test_a_foreign_hook_that_fails_is_reported_with_its_exit_code(site: Site) -> None:
    put(hook_of(site), "#!/bin/sh\nexit 7\n")
    site.install()
    site.publish("two")
    assert "mirage-hooks: post-merge.legacy ended with 7" in site.pull().stderr


def test_a_foreign_hook_that_reads_nothing_harms_no_push(site: Site, tmp_path: Path) -> None:
    make_bare(site, tmp_path)
    put(hook_of(site, "post-receive"), "#!/bin/sh\nexit 0\n")
    site.install()
    names = [f"main:refs/heads/{number}-{'long' * 40}" for number in range(500)]
    push = site.push("-q", str(site.clone), *names, "main")
    assert "mirage-hooks: post-receive" not in push.stderr


def dangling(path: Path) -> None:
    path.symlink_to("/nowhere/hook")


def not_executable(path: Path) -> None:
    put(path, mode=0o644)


@pytest.mark.parametrize("leave", [dangling, not_executable])
def test_a_hook_that_git_would_not_run_is_kept_and_not_run(
    site: Site, notes: Path, leave: Callable[[Path], None]
) -> None:
    leave(hook_of(site))
    said = site.install().stdout
    site.publish("two")
    site.pull()
    assert "is kept, as post-merge.legacy" in said
    assert (taken(notes), site.page()) == ([], "two")


# Hook managers: every order of coming and leaving, with a foreign hook that was there first or not.


class PreCommit:
    """pre-commit, with a hook of the repository's own configuration."""

    name = "pre-commit"
    config = ".pre-commit-config.yaml"
    text = (
        "repos:\n- repo: local\n  hooks:\n  - {id: note, name: note, language: system, "
        "entry: sh -c 'echo manager >>\"$NOTES\"', always_run: true, pass_filenames: false, "
        "stages: [post-merge]}\n"
    )

    def come(self, site: Site) -> None:
        run(TOOLS / "pre-commit", "install", "-t", "post-merge", "-t", "pre-push", cwd=site.clone)

    def leave(self, site: Site) -> None:
        run(TOOLS / "pre-commit", "uninstall", "-t", "post-merge", "-t", "pre-push", cwd=site.clone)


class Lefthook:
    """lefthook, which overwrites nothing, and runs nothing of what it finds."""

    name = "lefthook"
    config = "lefthook.yml"
    text = 'post-merge:\n  commands:\n    note:\n      run: echo manager >>"$NOTES"\n'

    def come(self, site: Site) -> None:
        run(TOOLS / "lefthook", "install", cwd=site.clone)

    def leave(self, site: Site) -> None:
        run(TOOLS / "lefthook", "uninstall", cwd=site.clone)


class Ours:
    """mirage-hooks."""

    def come(self, site: Site) -> None:
        site.install()

    def leave(self, site: Site) -> None:
        site.command("uninstall", "--yes", "--stop")


Manager = PreCommit | Lefthook


def content_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Return every file of a folder, with its mode and its text."""
    return {
        path.name: (stat.S_IMODE(path.stat().st_mode), path.read_text())
        for path in folder.iterdir()
    }


def deploys(site: Site, page: str) -> bool:
    """Pull something new; return whether it runs."""
    site.publish(page)
    site.pull()
    return site.page() == page


@pytest.fixture(params=[PreCommit, Lefthook], ids=["pre-commit", "lefthook"])
def manager(request: pytest.FixtureRequest, site: Site) -> Manager:
    """A hook manager, with a hook of its own in the repository."""
    made: Manager = request.param()
    (site.upstream / made.config).write_text(made.text)
    site.commit(made.config)
    site.pull()
    return made


@pytest.mark.parametrize("foreign", [True, False], ids=["foreign", "alone"])
@pytest.mark.parametrize("ours_first", [True, False], ids=["ours-first", "ours-second"])
@pytest.mark.parametrize("ours_leaves", [True, False], ids=["ours-leaves", "manager-leaves"])
def test_a_manager_and_we_come_and_leave_in_any_order(
    site: Site,
    notes: Path,
    manager: Manager,
    foreign: bool,
    ours_first: bool,
    ours_leaves: bool,
) -> None:
    if foreign:
        put(hook_of(site))
    before = content_of(hook_of(site).parent)
    ours = Ours()
    # lefthook sets aside what it finds: it is as if there were no foreign hook while it is there.
    kept = ["foreign", "0"] if foreign else []
    beside = [] if manager.name == "lefthook" and not ours_first else kept

    for one in (ours, manager) if ours_first else (manager, ours):
        one.come(site)
    if manager.name == "lefthook" and ours_first:
        ours.come(site)  # lefthook has set ours aside, too: the doctor says so
    assert deploys(site, "two")
    assert sorted(taken(notes)) == sorted([*beside, "manager"])

    (ours if ours_leaves else manager).leave(site)
    assert deploys(site, "three") == (not ours_leaves)
    left = kept if not ours_leaves or manager.name == "pre-commit" else []
    assert sorted(taken(notes)) == sorted([*left, *(["manager"] if ours_leaves else [])])

    (manager if ours_leaves else ours).leave(site)
    assert content_of(hook_of(site).parent) == before


def test_a_manager_that_comes_over_ours_leaves_a_kept_hook_running(site: Site, notes: Path) -> None:
    manager = PreCommit()
    (site.upstream / manager.config).write_text(manager.text)
    site.commit(manager.config)
    site.pull()
    put(hook_of(site))
    site.install()
    manager.come(site)
    site.install()
    manager.come(site)
    assert deploys(site, "two")
    assert sorted(taken(notes)) == ["0", "foreign", "manager"]


def test_lefthook_over_ours_is_found_and_mended_as_it_says(site: Site) -> None:
    manager = Lefthook()
    (site.upstream / manager.config).write_text(manager.text)
    site.commit(manager.config)
    site.pull()
    site.install()
    manager.come(site)
    assert "run: mirage-hooks install" in site.command("doctor", "--json", check=False).stdout
    site.install()
    assert deploys(site, "two")


# The shell practice's hook, which boots guests by itself.

BOOTS = """\
#!/bin/sh
# redeploy on pull
echo booted >>"$NOTES"
NAME=$(basename xen/*/*.xen .xen)
sudo xl destroy $NAME || true
bunzip2 -k www.xen.bz2
sudo xl create www.xl
"""


@pytest.mark.parametrize(
    "line",
    [
        "sudo xl destroy www",
        "xl create www.xl",
        "  xl create www.xl || exit 1",
        "cd xen && bunzip2 -k www.xen.bz2 && xl create www.xl",
        "/usr/sbin/xl create www.xl",
        "sudo -n /usr/sbin/xl create www.xl",
        "./deploy.sh",
        'exec ../scripts/deploy.sh "$@"',
        "if xl list www; then xl destroy www; fi",
        "(solo5-hvt --net:service=tap0 www.hvt &)",
        "qemu-system-x86_64 -kernel www.virtio",
        "nohup ./reboot.sh",
    ],
)
def test_a_hook_that_boots_guests_is_recognised(tmp_path: Path, line: str) -> None:
    put(tmp_path / "hook", f"#!/bin/sh\nset -e\n{line}\n")
    assert placing.kind(tmp_path / "hook") is Kind.BOOTS


@pytest.mark.parametrize(
    "line",
    [
        "# xl create www.xl",
        "    # then: sudo xl create",
        "echo xlate",
        "axl create",
        "xl=1",
        "./xl.py",
        "echo deploy.sh",
        "mail -s 'pulled; see the log' root",
        "make -C xl/create",
        "",
    ],
)
def test_a_hook_that_merely_mentions_it_is_not(tmp_path: Path, line: str) -> None:
    put(tmp_path / "hook", f"#!/bin/sh\nset -e\n{line}\n")
    assert placing.kind(tmp_path / "hook") is Kind.OTHER


def test_a_hook_that_boots_guests_is_disabled_and_said_so(site: Site, notes: Path) -> None:
    put(hook_of(site), BOOTS)
    said = site.install().stdout
    assert deploys(site, "two")
    assert "boots guests by itself: it is disabled, as post-merge.disabled" in said
    assert taken(notes) == []


def test_a_hook_that_boots_guests_stays_disabled_after_a_second_install(
    site: Site, notes: Path
) -> None:
    put(hook_of(site), BOOTS)
    site.install()
    site.install()
    assert deploys(site, "two")
    assert taken(notes) == []


def test_a_hook_that_boots_guests_is_back_after_an_uninstall(site: Site) -> None:
    put(hook_of(site), BOOTS)
    before = content_of(hook_of(site).parent)
    site.install()
    site.command("uninstall", "--yes")
    assert content_of(hook_of(site).parent) == before


def test_a_hook_that_boots_guests_below_pre_commit_is_disabled(site: Site, notes: Path) -> None:
    manager = PreCommit()
    (site.upstream / manager.config).write_text(manager.text)
    site.commit(manager.config)
    site.pull()
    put(hook_of(site), BOOTS)
    manager.come(site)
    site.install()
    assert deploys(site, "two")
    assert taken(notes) == ["manager"]


# What else may lie there.


def test_a_kept_hook_that_was_edited_is_run_and_brought_back_as_it_was_edited(
    site: Site, notes: Path
) -> None:
    put(hook_of(site))
    site.install()
    hook_of(site, "post-merge.legacy").unlink()
    edited = '#!/bin/sh\necho edited >>"$NOTES"\n'
    put(hook_of(site, "post-merge.legacy"), edited)
    site.publish("two")
    site.pull()
    assert taken(notes) == ["edited"]
    site.install()
    site.command("uninstall", "--stop", "--yes")
    assert hook_of(site).read_text() == edited
    assert not hook_of(site, "post-merge.kept").exists()


def test_a_legacy_hook_that_nothing_runs_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "post-merge.legacy")
    place = Place(tmp_path, "post-merge", tmp_path / "state")
    place.drop(place.render(sys.executable))
    assert (tmp_path / "post-merge.legacy").read_text() == FOREIGN


def test_hooks_folders_without_a_hook_have_none(tmp_path: Path) -> None:
    assert placing.kind(tmp_path / "post-merge") is Kind.NONE


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_hook_that_cannot_be_read_is_somebodys(tmp_path: Path) -> None:
    put(tmp_path / "post-merge", mode=0o100)
    assert placing.kind(tmp_path / "post-merge") is Kind.OTHER


def test_two_hooks_of_which_one_would_be_lost_are_refused(site: Site) -> None:
    put(hook_of(site))
    site.install()
    put(hook_of(site), "#!/bin/sh\necho another\n")
    done: subprocess.CompletedProcess[str] = site.command("install", check=False)
    assert (done.returncode, "post-merge.legacy exists already" in done.stderr) == (3, True)
