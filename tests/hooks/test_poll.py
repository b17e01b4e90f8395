"""`poll`: what came is deployed, what died or was missed is made good; else there is silence."""

import bz2
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from clones import in_a_clone, in_a_linked_worktree, in_a_worktree_of_a_bare_repository
from mirage_hooks.boot import follow, lock
from mirage_hooks.boot.errors import ConfigError, HostError, ImageError
from mirage_hooks.installer import pollfile
from polling import commit_locally, commit_note, events, is_silent, poll, said, tip
from support import COMMAND, Site, free_port, make_bare, run, wait_for


def in_a_bare_repository(site: Site, folder: Path) -> None:
    make_bare(site, folder)
    for key, value in {"remote": "origin", "merge": "refs/heads/main"}.items():
        site.git("config", f"branch.main.{key}", value)


def with_a_detached_head(site: Site, folder: Path) -> None:
    del folder
    site.git("checkout", "-q", "--detach")


def with_another_branch(site: Site, folder: Path) -> None:
    del folder
    site.git("checkout", "-q", "-b", "other")


def in_a_shallow_clone(site: Site, folder: Path) -> None:
    clone_anew(site, folder, "--depth", "1")


def in_a_partial_clone(site: Site, folder: Path) -> None:
    run("git", "config", "uploadpack.allowFilter", "true", cwd=site.upstream)
    clone_anew(site, folder, "--filter", "blob:none")


def with_a_git_dir_elsewhere(site: Site, folder: Path) -> None:
    git_dir = folder / "elsewhere"
    clone_anew(site, folder, "--separate-git-dir", str(git_dir))
    site.git("config", "core.worktree", str(site.clone))
    site.worktree, site.clone = site.clone, git_dir


KINDS = [
    in_a_clone,
    in_a_linked_worktree,
    in_a_worktree_of_a_bare_repository,
    in_a_bare_repository,
    with_a_detached_head,
    with_another_branch,
    in_a_shallow_clone,
    in_a_partial_clone,
    with_a_git_dir_elsewhere,
]


def clone_anew(site: Site, folder: Path, *options: str) -> None:
    site.clone = folder / "anew"
    run("git", "clone", "-q", *options, f"file://{site.upstream}", str(site.clone), cwd=folder)


@pytest.mark.parametrize("kind", KINDS)
def test_what_came_is_deployed(
    site: Site, tmp_path: Path, kind: Callable[[Site, Path], None]
) -> None:
    kind(site, tmp_path)
    site.install("--branch", "main", "--deploy")
    commit = site.publish("two")
    done = poll(site)
    assert (site.page(), tip(site), done.returncode) == ("two", commit, 0)
    assert "done: www runs as it should" in said(done)
    assert is_silent(poll(site))


@pytest.mark.parametrize("kind", [in_a_clone, in_a_linked_worktree])
def test_the_work_tree_follows(
    site: Site, tmp_path: Path, kind: Callable[[Site, Path], None]
) -> None:
    kind(site, tmp_path)
    site.install("--deploy")
    commit_note(site, "new\n")
    assert is_silent(poll(site))
    assert (site.here / "note.txt").read_text() == "new\n"
    assert site.git("status", "--porcelain").stdout == ""


def test_another_branch_that_is_checked_out_stays_as_it_is(deployed: Site) -> None:
    deployed.git("checkout", "-q", "-b", "other")
    before = tip(deployed, "HEAD")
    deployed.publish("two")
    poll(deployed)
    assert (deployed.page(), tip(deployed, "HEAD")) == ("two", before)


def with_a_clean_work_tree(site: Site, folder: Path) -> None:
    in_a_clone(site, folder)
    site.install("--deploy")
    site.git("update-ref", "-d", "refs/heads/main")
    site.git("rm", "-rqf", ".")


def in_a_bare_one(site: Site, folder: Path) -> None:
    in_a_bare_repository(site, folder)
    site.install("--deploy")
    site.git("update-ref", "-d", "refs/heads/main")


@pytest.mark.parametrize("lose_it", [with_a_clean_work_tree, in_a_bare_one])
def test_a_branch_without_a_commit_gets_what_its_upstream_has(
    site: Site, tmp_path: Path, lose_it: Callable[[Site, Path], None]
) -> None:
    lose_it(site, tmp_path)
    commit = site.publish("two")
    done = poll(site)
    assert (site.page(), tip(site)) == ("two", commit), said(done)


def test_the_command_polls(deployed: Site) -> None:
    deployed.publish("two")
    deployed.command("poll")
    assert deployed.page() == "two"


# Silence.


def record_of(site: Site) -> tuple[object, ...]:
    return (events(site), site.runs(), site.outcomes())


def test_a_poll_with_nothing_new_is_silent_and_leaves_no_trace(deployed: Site) -> None:
    before = record_of(deployed)
    assert [is_silent(poll(deployed)) for _ in range(3)] == [True] * 3
    assert record_of(deployed) == before


def test_a_poll_with_nothing_new_starts_no_python(deployed: Site, tmp_path: Path) -> None:
    poll(deployed)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 77\n")
    python.chmod(0o755)
    deployed.state.poll.write_bytes(pollfile.render(str(python)))
    assert is_silent(poll(deployed))


def test_commits_that_were_not_pushed_are_nobodys_business(deployed: Site) -> None:
    commit = commit_locally(deployed)
    assert is_silent(poll(deployed))
    assert tip(deployed) == commit


def test_a_commit_that_changes_nothing_that_runs_is_silent(deployed: Site) -> None:
    before = deployed.runs()
    commit = commit_note(deployed)
    assert is_silent(poll(deployed))
    assert (tip(deployed), deployed.runs()) == (commit, before)
    assert events(deployed)[-1] == "repository.advanced"


def test_a_branch_without_an_upstream_is_not_fetched(deployed: Site) -> None:
    deployed.git("branch", "-q", "--unset-upstream")
    deployed.publish("two")
    assert is_silent(poll(deployed))
    assert deployed.page() == "one"


def test_nothing_is_fetched_while_paused(deployed: Site) -> None:
    deployed.command("pause", "moving the disks")
    deployed.publish("two")
    before = tip(deployed)
    assert is_silent(poll(deployed))
    assert (tip(deployed), tip(deployed, "refs/remotes/origin/main")) == (before, before)
    deployed.command("resume")
    poll(deployed)
    assert deployed.page() == "two"


# Made good.


def test_a_guest_whose_monitor_was_killed_is_revived(deployed: Site) -> None:
    deployed.monitor().monitor.kill()
    wait_for(lambda: deployed.page() is None)
    done = poll(deployed)
    assert (deployed.page(), done.returncode) == ("one", 0)
    assert "it is not running" in said(done)
    assert is_silent(poll(deployed))


def test_a_held_guest_is_not_revived(deployed: Site) -> None:
    deployed.command("stop", "www")
    assert is_silent(poll(deployed))
    assert deployed.page() is None


def test_what_ran_no_hook_is_deployed(deployed: Site) -> None:
    deployed.publish("two")
    deployed.git("fetch", "-q")
    deployed.git("reset", "-q", "--hard", "origin/main")
    assert deployed.page() == "one"
    poll(deployed)
    assert deployed.page() == "two"


def test_the_trigger_of_a_push_is_taken(deployed: Site) -> None:
    follow.leave_trigger(deployed.state.folder.parent)
    assert is_silent(poll(deployed))
    assert deployed.state.trigger.stat().st_size == 0


def test_a_failure_that_stays_is_said_once_and_keeps_the_exit_code(deployed: Site) -> None:
    deployed.check = 'tcp = "127.0.0.1:1"\nwithin = "500ms"'
    deployed.publish("two")
    first = poll(deployed)
    assert first.returncode != 0
    assert "back to" in said(first)
    before = record_of(deployed)
    for _ in range(2):
        again = poll(deployed)
        assert (again.returncode, said(again)) == (first.returncode, "")
    assert record_of(deployed) == before


def test_the_end_of_a_failure_is_said_in_a_line(deployed: Site) -> None:
    deployed.check = 'tcp = "127.0.0.1:1"\nwithin = "500ms"'
    deployed.publish("two")
    poll(deployed)
    deployed.check = None
    deployed.publish("one")
    done = poll(deployed)
    assert (done.returncode, said(done)) == (0, "mirage-hooks: done: www runs as it should\n")
    assert is_silent(poll(deployed))


def test_the_end_of_a_failure_is_said_that_somebody_else_has_mended(deployed: Site) -> None:
    deployed.check = 'tcp = "127.0.0.1:1"\nwithin = "500ms"'
    deployed.publish("two")
    poll(deployed)
    deployed.check = None
    deployed.publish("one")
    deployed.pull()
    assert said(poll(deployed)) == "mirage-hooks: what should run runs again\n"


# Faults of the host: tried again, but not at once.


@pytest.fixture
def taken(deployed: Site) -> Iterator[Site]:
    """A clone whose next state wants a port that another process has."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        deployed.port = holder.getsockname()[1]
        deployed.publish("two")
        yield deployed


def let_go(site: Site) -> None:
    """Take the port that the next state wants from whoever has it: another is asked for."""
    site.port = free_port()
    site.publish()


def make_due(site: Site) -> None:
    """Let the pause before a guest is tried again be over."""
    fault = site.state.fault("www")
    assert fault is not None
    site.state.set_fault("www", msgspec.structs.replace(fault, next=time.time() - 1))


def test_what_could_not_be_prepared_is_said_once_and_left_alone_for_a_while(taken: Site) -> None:
    first = poll(taken)
    assert (first.returncode, "is in use by" in said(first)) == (HostError.exit_code, True)
    before = record_of(taken)
    for _ in range(2):
        again = poll(taken)
        assert (again.returncode, said(again)) == (first.returncode, "")
    assert record_of(taken) == before


def test_a_try_in_vain_doubles_the_pause(taken: Site) -> None:
    poll(taken)
    make_due(taken)
    done = poll(taken)
    fault = taken.state.fault("www")
    assert fault is not None
    assert (fault.count, 100 < fault.next - time.time() <= 120) == (2, True)
    assert said(done) == ""


def test_what_could_not_be_prepared_is_tried_when_its_time_has_come(
    deployed: Site,
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        deployed.port = holder.getsockname()[1]
        deployed.publish("two")
        poll(deployed)
    poll(deployed)
    assert deployed.page() is None
    make_due(deployed)
    done = poll(deployed)
    assert (deployed.page(), done.returncode) == ("two", 0)
    assert deployed.state.fault("www") is None


def test_a_new_commit_is_tried_at_once(taken: Site) -> None:
    poll(taken)
    let_go(taken)
    done = poll(taken)
    assert (taken.page(), done.returncode) == ("two", 0)
    assert taken.state.fault("www") is None


def test_a_changed_host_file_is_tried_at_once(taken: Site) -> None:
    poll(taken)
    taken.tell_host(keep=5)
    poll(taken)
    fault = taken.state.fault("www")
    assert fault is not None
    assert fault.count == 1


def test_a_deploy_by_hand_tries_at_once_and_ends_the_pause(taken: Site) -> None:
    poll(taken)
    count = len(taken.outcomes())
    assert "is in use by" in taken.command("deploy", check=False).stderr
    assert len(taken.outcomes()) == count


def test_an_image_that_cannot_be_unpacked_is_unpacked_once(deployed: Site) -> None:
    deployed.publish(image=bz2.compress(deployed.compiled("two").read_bytes())[:-9])
    first = poll(deployed)
    assert (first.returncode, "ends early" in said(first)) == (ImageError.exit_code, True)
    [refusal] = [
        path
        for path in (deployed.state.store / "blobs").iterdir()
        if b"ends early" in path.read_bytes()
    ]
    before = refusal.stat()
    again = poll(deployed)
    assert (again.returncode, said(again)) == (ImageError.exit_code, "")
    assert refusal.stat().st_mtime_ns == before.st_mtime_ns
    deployed.publish("two")
    assert (poll(deployed).returncode, deployed.page()) == (0, "two")


# One at a time, and in nobody's way.


def test_a_second_poll_ends_at_once_and_is_silent(deployed: Site) -> None:
    deployed.publish("two")
    with (deployed.state.folder / "poll.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert is_silent(poll(deployed))
    assert deployed.page() == "one"


def is_free(site: Site) -> bool:
    """Whether nobody holds the lock of polls."""
    with (site.state.folder / "poll.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_neither_a_monitor_nor_a_guest_holds_the_lock(deployed: Site) -> None:
    deployed.publish("two")
    poll(deployed)
    assert (deployed.page(), is_free(deployed)) == ("two", True)


def test_what_a_hook_of_somebody_elses_leaves_running_holds_neither_lock_nor_output(
    site: Site, tmp_path: Path
) -> None:
    hook = site.clone / ".git" / "hooks" / "post-merge"
    hook.write_text(f"#!/bin/sh\nsleep 60 & echo $! >'{tmp_path}/pid'\n")
    hook.chmod(0o755)
    site.install("--deploy")
    site.publish("two")
    poll(site)
    assert (site.page(), is_free(site)) == ("two", True)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_post_merge_hook_of_somebody_elses_runs_and_ours_does_not_converge_again(
    site: Site,
) -> None:
    hook = site.clone / ".git" / "hooks" / "post-merge"
    hook.write_text("#!/bin/sh\necho theirs ran\n")
    hook.chmod(0o755)
    site.install("--deploy")
    site.publish("two")
    before = site.runs()
    done = poll(site)
    assert said(done).count("theirs ran") == 1
    assert (site.page(), site.runs()) == ("two", before + 1)


def test_a_poll_during_a_deploy_waits_and_deploys_what_is_newest(deployed: Site) -> None:
    deployed.args.append("--delay=1500")
    deployed.publish("two")
    pull = subprocess.Popen(["git", "pull", "-q"], cwd=deployed.clone, stderr=subprocess.DEVNULL)
    wait_for(lambda: lock.holder(deployed.state.lock) is not None)
    deployed.publish("three")
    done = poll(deployed)
    pull.wait(60)
    assert (deployed.page(), done.returncode) == ("three", 0)


def test_a_poll_that_is_ended_ends_no_deploy(deployed: Site) -> None:
    deployed.args.append("--delay=1500")
    deployed.publish("two")
    process = subprocess.Popen([deployed.state.poll], stderr=subprocess.DEVNULL)
    wait_for(lambda: len(deployed.outcomes()) == 2, 30)
    process.terminate()
    assert process.wait(10) != 0
    wait_for(lambda: deployed.outcomes() == ["ended", "healthy"], 30)
    assert deployed.page() == "two"


# The environment.


def bare(site: Site, *variables: str) -> "subprocess.CompletedProcess[str]":
    """Poll as cron does: a line for sh, and next to nothing in the environment."""
    line = f"{COMMAND} -C {site.here} poll"
    shell = ("/bin/sh", "-c", line)
    runtime = f"XDG_RUNTIME_DIR={os.environ['XDG_RUNTIME_DIR']}"  # for the sockets of this test
    return run(
        "env", "-i", runtime, "SHELL=/bin/sh", *variables, *shell, cwd=Path("/"), check=False
    )


def test_the_line_of_a_crontab_polls(deployed: Site) -> None:
    deployed.publish("two")
    done = bare(deployed, f"HOME={os.environ['HOME']}", "LOGNAME=root", "PATH=/usr/bin:/bin")
    assert (done.returncode, deployed.page()) == (0, "two"), said(done)


def test_a_poll_needs_no_home(deployed: Site) -> None:
    deployed.publish("two")
    done = bare(deployed, "PATH=/usr/bin:/bin")
    assert (done.returncode, deployed.page()) == (0, "two"), said(done)


@pytest.mark.parametrize("missing", ["git", "flock", "setsid", "timeout"])
def test_a_program_that_is_not_on_the_path_is_named(
    deployed: Site, tmp_path: Path, missing: str
) -> None:
    for program in {"git", "flock", "setsid", "timeout"} - {missing}:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / program).symlink_to(shutil.which(program) or "")
    script = str(deployed.state.poll)
    done = run("env", "-i", f"PATH={tmp_path}/bin", "/bin/sh", script, cwd=tmp_path, check=False)
    assert done.returncode == HostError.exit_code
    assert f"{missing} is not found: PATH is {tmp_path}/bin" in said(done)
    assert is_silent(poll(deployed)) is False  # that it works again is said
    assert is_silent(poll(deployed))


def test_the_command_says_that_git_is_not_on_the_path(deployed: Site, tmp_path: Path) -> None:
    done = run(
        "env",
        "-i",
        f"PATH={tmp_path}",
        str(COMMAND),
        "-C",
        str(deployed.clone),
        "poll",
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, "git is not found" in done.stderr) == (HostError.exit_code, True)


def test_a_poll_is_not_led_astray_by_the_git_operation_that_it_is_run_from(
    deployed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.publish("two")
    with monkeypatch.context() as patch:
        patch.setenv("GIT_DIR", "/nonexistent")
        patch.setenv("GIT_OBJECT_DIRECTORY", "/nonexistent")
        poll(deployed)
    assert deployed.page() == "two"


def test_a_relative_path_to_the_upstream_is_taken_from_where_git_takes_it(deployed: Site) -> None:
    deployed.git("remote", "set-url", "origin", f"../{deployed.upstream.name}")
    deployed.publish("two")
    poll(deployed)
    assert deployed.page() == "two"


def test_a_host_file_that_cannot_be_is_said_once(deployed: Site) -> None:
    text = deployed.state.host_file.read_text()
    deployed.state.host_file.write_text(text + '[poll]\ntimeout = "soon"\n')
    done = poll(deployed)
    assert done.returncode == ConfigError.exit_code
    assert "poll: 'soon' is no duration" in said(done)
    assert said(poll(deployed)) == ""
    deployed.state.host_file.write_text(text)
    assert said(poll(deployed)) == "mirage-hooks: polls work again\n"


def test_the_state_of_another_user_is_refused(deployed: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make it somebody else's")
    os.chown(deployed.state.folder, 65534, -1)
    done = poll(deployed)
    os.chown(deployed.state.folder, 0, -1)
    assert (done.returncode, "belongs to user" in said(done)) == (HostError.exit_code, True)


def test_a_configuration_that_others_may_write_is_not_obeyed(deployed: Site) -> None:
    config = deployed.clone / ".git" / "config"
    config.chmod(0o666)
    done = poll(deployed)
    assert (done.returncode, "may be written by everybody" in said(done)) == (6, True)


# In the foreground.


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_every_so_often_it_polls_until_it_is_ended(deployed: Site, signum: int) -> None:
    process = subprocess.Popen(
        [COMMAND, "poll", "--every", "1s"], cwd=deployed.clone, stderr=subprocess.DEVNULL
    )
    try:
        for page in ("two", "three"):
            deployed.publish(page)
            wait_for(lambda page=page: deployed.page() == page, 20)  # type: ignore[misc]
    finally:
        process.send_signal(signum)
        assert process.wait(10) == 0


def test_an_interval_that_is_none_is_a_usage_error(deployed: Site) -> None:
    done = deployed.command("poll", "--every", "often", check=False)
    assert (done.returncode, "'often' is no duration" in done.stderr) == (2, True)
