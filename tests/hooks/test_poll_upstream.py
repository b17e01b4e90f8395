"""`poll` when the upstream is away, asks for something, or has another history than ours."""

import getpass
import http.server
import os
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirage_hooks.boot.errors import RepositoryError
from polling import (
    commit_locally,
    commit_note,
    events,
    is_silent,
    poll,
    rewrite_upstream,
    said,
    take_back_upstream,
    tip,
)
from support import Site, link_worktree, make_bare, run, wait_for

REFUSED = RepositoryError.exit_code


def point_at(site: Site, url: str) -> None:
    site.git("remote", "set-url", "origin", url)


# Nothing can be fetched.


@pytest.fixture
def away(deployed: Site) -> Site:
    """A clone whose upstream is not where it was."""
    deployed.upstream.rename(deployed.upstream.with_name("moved"))
    return deployed


def come_back(site: Site) -> None:
    site.upstream.with_name("moved").rename(site.upstream)


def test_an_upstream_that_is_away_is_said_once(away: Site) -> None:
    first = poll(away)
    assert first.returncode == REFUSED
    assert said(first).startswith("mirage-hooks: main could not be fetched from origin: ")
    assert said(first).count("\n") == 2
    for _ in range(2):
        again = poll(away)
        assert (again.returncode, said(again)) == (REFUSED, "")
    assert events(away).count("repository.fetch-failed") == 1


def test_an_upstream_that_is_back_is_said_in_a_line(away: Site) -> None:
    poll(away)
    come_back(away)
    done = poll(away)
    text = "mirage-hooks: main follows its upstream again\n"
    assert (done.returncode, said(done)) == (0, text)
    assert is_silent(poll(away))


def test_a_dead_guest_is_revived_though_the_upstream_is_away(away: Site) -> None:
    away.monitor().monitor.kill()
    wait_for(lambda: away.page() is None)
    done = poll(away)
    assert (away.page(), done.returncode) == ("one", REFUSED)


@pytest.fixture
def hanging() -> Iterator[int]:
    """A port of loopback on which connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_upstream_that_never_answers_is_given_up_in_time(deployed: Site, hanging: int) -> None:
    point_at(deployed, f"git://127.0.0.1:{hanging}/upstream")
    deployed.tell_host(poll={"timeout": "1s"})
    began = time.monotonic()
    done = poll(deployed)
    assert time.monotonic() - began < 45  # without a limit a minute would be the least
    assert (done.returncode, "it took more than 1 s" in said(done)) == (REFUSED, True)


def test_a_poll_that_is_ended_ends_its_fetch(deployed: Site, hanging: int) -> None:
    point_at(deployed, f"git://127.0.0.1:{hanging}/upstream")
    with subprocess.Popen([deployed.state.poll], stderr=subprocess.DEVNULL) as polled:
        wait_for(lambda: fetches_of(deployed) != [])
        polled.terminate()
        assert polled.wait(10) == 143
    wait_for(lambda: fetches_of(deployed) == [])


def fetches_of(site: Site) -> list[str]:
    """Return the pids of the processes that fetch into a clone."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            ours = f"GIT_DIR={site.clone}/.git".encode() in path.read_bytes()
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if ours and b"fetch" in command.split(b"\0"):
            found.append(path.parent.name)
    return found


class AsksForPassword(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="here"')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        del format, args


def test_an_upstream_that_asks_for_a_password_gets_no_answer(
    deployed: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    askpass = tmp_path / "askpass"
    askpass.write_text(f"#!/bin/sh\n: >'{asked}'\n")
    askpass.chmod(0o755)
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.setenv(name, str(askpass))
    with http.server.HTTPServer(("127.0.0.1", 0), AsksForPassword) as server:
        threading.Thread(target=server.serve_forever).start()
        point_at(deployed, f"http://127.0.0.1:{server.server_port}/upstream")
        done = poll(deployed)
        server.shutdown()
    assert (done.returncode, "asks for a password" in said(done)) == (REFUSED, True)
    assert not asked.exists()


def test_a_password_in_an_address_is_not_shown(deployed: Site) -> None:
    point_at(deployed, "http://user:pa55word@127.0.0.1:1/upstream")
    done = poll(deployed)
    assert "it cannot be reached" in said(done)
    log = deployed.state.events.read_text()
    assert "pa55word" not in said(done) + log


def test_a_branch_that_is_gone_upstream_is_named(deployed: Site) -> None:
    run("git", "branch", "-q", "-m", "main", "other", cwd=deployed.upstream)
    done = poll(deployed)
    assert (done.returncode, "that branch is gone there" in said(done)) == (REFUSED, True)
    assert deployed.page() == "one"


def test_an_upstream_of_an_owner_that_git_does_not_trust_is_named(deployed: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make it somebody else's")
    for path in [deployed.upstream, *deployed.upstream.rglob("*")]:
        os.chown(path, 65534, 65534)
    done = poll(deployed)
    assert "git does not trust the owner of that repository" in said(done)


def test_a_damaged_configuration_is_said_in_gits_words(deployed: Site) -> None:
    config = deployed.clone / ".git" / "config"
    text = config.read_text()
    config.write_text(text + "[broken\n")
    done = poll(deployed)
    config.write_text(text)
    assert (done.returncode, "bad config line" in said(done)) == (REFUSED, True)


# Over ssh.


@pytest.fixture
def over_ssh(deployed: Site, sshd: int) -> Site:
    """A clone whose upstream is behind ssh."""
    point_at(deployed, f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}{deployed.upstream}")
    return deployed


def test_what_came_over_ssh_is_deployed(over_ssh: Site) -> None:
    over_ssh.publish("two")
    poll(over_ssh)
    assert over_ssh.page() == "two"


def test_a_key_that_is_not_accepted_is_said(over_ssh: Site, tmp_path: Path) -> None:
    (tmp_path / "ssh" / "client.pub").unlink()
    done = poll(over_ssh)
    assert (done.returncode, "key is not accepted there" in said(done)) == (REFUSED, True)


def test_a_host_key_that_is_not_known_is_said_and_asks_nobody(
    over_ssh: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = shlex.split(os.environ["GIT_SSH_COMMAND"])
    strict = [
        word.replace("StrictHostKeyChecking=no", "StrictHostKeyChecking=ask") for word in command
    ]
    monkeypatch.setenv("GIT_SSH_COMMAND", shlex.join(strict))
    done = poll(over_ssh)
    assert (done.returncode, "host key is not the known one" in said(done)) == (REFUSED, True)


# In the way.


def test_local_changes_in_the_way_are_said_and_kept(deployed: Site) -> None:
    note = deployed.clone / "mirage-hooks.toml"
    local = note.read_text() + "# a local change\n"
    note.write_text(local)
    deployed.tables = "# theirs"
    deployed.publish("two")
    done = poll(deployed)
    assert done.returncode == REFUSED
    assert "mirage-hooks.toml" in said(done)
    assert "commit, stash or discard the local changes" in said(done)
    assert (note.read_text(), deployed.page()) == (local, "one")
    assert said(poll(deployed)) == ""


def test_local_changes_that_are_in_nobodys_way_stay(deployed: Site) -> None:
    (deployed.clone / "own.txt").write_text("mine\n")
    deployed.publish("two")
    poll(deployed)
    assert (deployed.page(), (deployed.clone / "own.txt").read_text()) == ("two", "mine\n")


def test_a_branch_that_is_being_rebased_is_left_alone(deployed: Site) -> None:
    commit_locally(deployed)
    deployed.git("-c", "sequence.editor=sed -i s/pick/edit/", "rebase", "-q", "-i", "HEAD^")
    run("git", "update-ref", "refs/heads/main", tip(deployed, "HEAD^"), cwd=deployed.clone)
    deployed.publish("two")
    done = poll(deployed)
    assert (done.returncode, "while a rebase of it goes on" in said(done)) == (REFUSED, True)


def test_a_dead_guest_is_revived_though_local_changes_are_in_the_way(deployed: Site) -> None:
    (deployed.clone / "note.txt").write_text("mine\n")
    commit_note(deployed)
    deployed.monitor().monitor.kill()
    wait_for(lambda: deployed.page() is None)
    assert (poll(deployed).returncode, deployed.page()) == (REFUSED, "one")


# Another history.


def diverge(site: Site) -> None:
    commit_locally(site)
    site.publish("two")


def force_push(site: Site) -> None:
    site.publish("bad")
    site.pull("-q")
    rewrite_upstream(site, "two")


def take_back(site: Site) -> None:
    """The upstream's newest commit is taken back, after a poll has seen it."""
    site.publish("bad")
    poll(site)
    take_back_upstream(site)


HISTORIES = [diverge, force_push, take_back]


@pytest.mark.parametrize("history", HISTORIES)
def test_another_history_is_reported_and_not_deployed(
    deployed: Site, history: Callable[[Site], None]
) -> None:
    history(deployed)
    before, page = tip(deployed), deployed.page()
    done = poll(deployed)
    assert done.returncode == REFUSED
    assert "that its upstream has not" in said(done)
    assert (tip(deployed), deployed.page()) == (before, page)
    again = poll(deployed)
    assert (again.returncode, said(again)) == (REFUSED, "")
    assert events(deployed).count("repository.diverged") == 1


@pytest.mark.parametrize("history", HISTORIES)
def test_by_policy_another_history_is_followed(
    deployed: Site, history: Callable[[Site], None]
) -> None:
    deployed.tell_host(poll={"upstream": "follow"})
    history(deployed)
    before = tip(deployed)
    done = poll(deployed)
    theirs = run("git", "rev-parse", "HEAD", cwd=deployed.upstream).stdout.strip()
    assert (done.returncode, tip(deployed)) == (0, theirs)
    assert deployed.page() == ("one" if history is take_back else "two")
    assert "repository.followed" in events(deployed)
    assert backups(deployed) == {before}
    assert deployed.git("status", "--porcelain").stdout == ""
    assert is_silent(poll(deployed))


def backups(site: Site) -> set[str]:
    """Return the commits that are kept, of a branch that followed its upstream."""
    pattern = "refs/mirage-hooks/backup/main"
    listed = run("git", "for-each-ref", "--format=%(objectname)", pattern, cwd=site.clone)
    return set(listed.stdout.split())


def test_what_is_said_leads_back_to_the_local_commits(deployed: Site) -> None:
    deployed.tell_host(poll={"upstream": "follow"})
    local = commit_locally(deployed)
    deployed.publish("two")
    *_, command = [line for line in said(poll(deployed)).splitlines() if "to go back" in line]
    run("sh", "-c", command.rpartition("then: ")[2], cwd=deployed.clone)
    assert tip(deployed) == local


@pytest.mark.parametrize("bare", [True, False])
def test_a_branch_that_is_checked_out_nowhere_follows_too(
    site: Site, tmp_path: Path, bare: bool
) -> None:
    if bare:
        make_bare(site, tmp_path)
        site.git("config", "branch.main.remote", "origin")
        site.git("config", "branch.main.merge", "refs/heads/main")
    else:
        site.git("checkout", "-q", "--detach")
    site.install("--branch", "main", "--deploy")
    site.tell_host(poll={"upstream": "follow"})
    site.publish("bad")
    poll(site)
    before = tip(site)
    theirs = rewrite_upstream(site, "two")
    poll(site)
    assert (tip(site), site.page(), backups(site)) == (theirs, "two", {before})


def test_a_linked_worktree_follows_too(site: Site, tmp_path: Path) -> None:
    link_worktree(site, tmp_path)
    site.install("--deploy")
    site.tell_host(poll={"upstream": "follow"})
    force_push(site)
    poll(site)
    assert site.page() == "two"
    assert site.git("status", "--porcelain").stdout == ""


def test_following_loses_no_local_change(deployed: Site) -> None:
    deployed.tell_host(poll={"upstream": "follow"})
    note = deployed.clone / "mirage-hooks.toml"
    diverge(deployed)
    deployed.tables = "# theirs"
    deployed.publish("two")
    note.write_text("# mine\n")
    before = tip(deployed)
    done = poll(deployed)
    assert (done.returncode, note.read_text(), tip(deployed)) == (REFUSED, "# mine\n", before)
    poll(deployed)
    assert backups(deployed) == {before}


def test_a_dead_guest_is_revived_though_history_is_another(deployed: Site) -> None:
    diverge(deployed)
    deployed.monitor().monitor.kill()
    wait_for(lambda: deployed.page() is None)
    assert (poll(deployed).returncode, deployed.page()) == (REFUSED, "one")


def test_another_history_that_was_dealt_with_by_hand_is_said_in_a_line(deployed: Site) -> None:
    diverge(deployed)
    poll(deployed)
    deployed.pull("-q", "--rebase")
    assert said(poll(deployed)) == "mirage-hooks: main follows its upstream again\n"


def test_whoever_fetches_sees_none_of_our_refs(deployed: Site) -> None:
    deployed.tell_host(poll={"upstream": "follow"})
    diverge(deployed)
    poll(deployed)
    assert "mirage-hooks" not in run("git", "ls-remote", ".", cwd=deployed.clone).stdout


def test_uninstall_leaves_the_local_commits_and_nothing_else(deployed: Site) -> None:
    deployed.tell_host(poll={"upstream": "follow"})
    diverge(deployed)
    poll(deployed)
    done = deployed.command("uninstall", "--stop", "--yes")
    refs = run("git", "for-each-ref", "refs/mirage-hooks", cwd=deployed.clone).stdout.splitlines()
    assert ["refs/mirage-hooks/backup/main/" in ref for ref in refs] == [True]
    assert "kept: commits that no upstream had" in done.stdout


def test_uninstall_leaves_no_ref_of_ours(deployed: Site) -> None:
    deployed.publish("two")
    poll(deployed)
    deployed.command("uninstall", "--stop", "--yes")
    assert run("git", "for-each-ref", "refs/mirage-hooks", cwd=deployed.clone).stdout == ""
    assert not deployed.state.folder.exists()
