"""`mirage-hooks publish` and its server: one that is away, refuses, or changes meanwhile."""

import getpass
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirage_hooks.boot import convention, remote
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.provenance import Origin
from mirage_hooks.boot.publish import Order, publish
from mirage_hooks.boot.repository import Repository
from mounts import small_disk
from publisher import SCRIPT, SECOND, Publisher, make_publisher
from support import run

HOST, REPOSITORY = 6, 4


def other(number: int) -> bytes:
    """Return another image."""
    return SCRIPT + f"# {number}\n".encode()


Meanwhile = Callable[[Sequence[str | Path]], None]


@pytest.fixture(params=["before it pushes", "as it pushes"])
def meanwhile(request: pytest.FixtureRequest, job: Publisher) -> Meanwhile:
    """Return what has a command run once, after the job has fetched.

    It runs before git asks the server where the branch is, or between that and the push.
    """
    before = request.param == "before it pushes"

    def arrange(command: Sequence[str | Path]) -> None:
        script = job.folder / "pack" if before else job.clone / ".git" / "hooks" / "pre-push"
        line = shlex.join(str(word) for word in command)
        once = f"unset GIT_DIR\n[ -e {job.folder}/once ] || {line} >&2\n: >{job.folder}/once\n"
        pack = 'exec git-receive-pack "$@"\n' if before else ""
        script.write_text(f"#!/bin/sh\n{once}{pack}")
        script.chmod(0o755)
        if before:
            job.git("config", "remote.origin.receivepack", script)

    return arrange


def at_server(job: Publisher, *arguments: str) -> list[str | Path]:
    """Return a command of git's in the deployment repository."""
    return ["git", "-C", job.upstream, *arguments]


def rewritten(job: Publisher) -> str:
    """Return another history's only commit, which is at the server."""
    tree = run(*at_server(job, "mktree"), cwd=job.folder).stdout.strip()
    return run(*at_server(job, "commit-tree", "-m", "anew", tree), cwd=job.folder).stdout.strip()


def answers(job: Publisher, script: str) -> None:
    """Have the server run a script before it takes a push."""
    hook = job.upstream / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)


def url(job: Publisher) -> str:
    """Return how the job calls the server."""
    return re.sub("//.*@", "//", job.git("ls-remote", "--get-url", "origin"))


def refuse(job: Publisher, words: str) -> None:
    """Publish, which the repository or its server does not let, and says in such words."""
    refused = job.publish(content=other(1), commit=SECOND, check=False)
    assert (refused.returncode, words in refused.stderr) == (REPOSITORY, True), refused.stderr
    assert "Traceback" not in refused.stderr


# Away, or silent.


def test_a_server_that_is_away_is_said(job: Publisher) -> None:
    job.upstream.rename(job.folder / "moved")
    refused = job.publish(check=False)
    assert refused.returncode == REPOSITORY
    assert f"main cannot be fetched from file://{job.upstream}: " in refused.stderr


@contextmanager
def asking_for_a_password() -> Iterator[str]:
    """Serve on loopback what asks for a password and takes none; give the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = (
            "import socket,sys\ns=socket.socket(fileno=0)\nwhile 1:\n c=s.accept()[0]\n"
            " c.recv(9999)\n c.sendall(b'HTTP/1.0 401 No\\r\\nWWW-Authenticate: Basic realm=x"
            "\\r\\nContent-Length: 0\\r\\n\\r\\n')\n c.close()\n"
        )
        asking = subprocess.Popen([sys.executable, "-c", answer], stdin=server.fileno())
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            asking.kill()
            asking.wait()


def test_nobody_is_asked_for_a_password(job: Publisher) -> None:
    program = job.folder / "askpass"
    program.write_text(f"#!/bin/sh\n: >'{job.folder}/asked'\n")
    program.chmod(0o755)
    job.git("config", "core.askPass", program)
    with asking_for_a_password() as address:
        url = address.replace("//", "//me:hunter2@")
        job.git("remote", "set-url", "origin", f"{url}/x.git")
        refused = job.publish(check=False)
    assert (refused.returncode, "hunter2" in refused.stderr) == (REPOSITORY, False)
    assert f"main cannot be fetched from {address}/x.git: it asks for a password" in refused.stderr
    assert not (job.folder / "asked").exists()


def test_a_push_that_is_never_answered_is_left_in_time(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.publish()
    monkeypatch.setattr(remote, "_SECONDS", 4)
    answers(job, "sleep 60")
    order = Order("www", job.image(other(1)), Origin(SECOND))
    began = time.monotonic()
    with pytest.raises(RepositoryError, match="is not known: it took more than 4 s"):
        publish(Repository(job.clone), order, print)
    assert (time.monotonic() - began < 30, job.count()) == (True, 1)


def test_a_push_whose_answer_got_lost_has_landed(job: Publisher) -> None:
    hook = job.upstream / "hooks" / "post-receive"
    hook.write_text("#!/bin/sh\nkill -9 $PPID\n")
    hook.chmod(0o755)
    done = job.publish()
    assert (done.returncode, job.count()) == (0, 1)
    assert "is published" in done.stdout


def test_where_a_push_may_have_landed_nobody_says_that_nothing_is_published(
    job: Publisher,
) -> None:
    hook = job.upstream / "hooks" / "post-receive"
    hook.write_text(f"#!/bin/sh\nmv {job.upstream} {job.folder}/moved\nkill -9 $PPID\n")
    hook.chmod(0o755)
    refuse(job, f"whether main is taken by {url(job)} is not known: ")
    (job.folder / "moved" / "hooks" / "post-receive").unlink()
    (job.folder / "moved").rename(job.upstream)
    done = job.publish(content=other(1), commit=SECOND)
    assert ("has this image already" in done.stdout, job.count()) == (True, 1)


def test_ci_may_name_a_program_that_has_the_password(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = job.folder / "asked"
    program = job.folder / "askpass"
    program.write_text(f"#!/bin/sh\n: >'{asked}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(program))
    with asking_for_a_password() as address:
        job.git("remote", "set-url", "origin", f"{address}/x.git")
        refuse(job, "it asks for a password")
    assert asked.exists()


# Refused.


def test_a_protected_branch_says_why_in_its_own_words(job: Publisher) -> None:
    answers(job, "echo 'GH006: Protected branch update failed' >&2; exit 1")
    began = time.monotonic()
    refused = job.publish(check=False)
    assert (refused.returncode, job.count()) == (REPOSITORY, 0)
    assert "GH006: Protected branch update failed" in refused.stderr
    assert "tried again" not in refused.stderr
    assert time.monotonic() - began < 30


@pytest.fixture
def over_ssh(job: Publisher, sshd: int) -> Publisher:
    """A job that reaches the deployment repository by ssh."""
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}{job.upstream}"
    job.git("remote", "set-url", "origin", url)
    return job


def accept(job: Publisher, options: str) -> None:
    """Have the server accept the job's key with options, as sshd(8) has them."""
    accepted = job.folder / "ssh" / "client.pub"
    accepted.write_text(f"{options} {accepted.read_text()}")


def test_over_ssh_the_key_is_in_the_environment_alone(over_ssh: Publisher) -> None:
    done = over_ssh.publish()
    assert over_ssh.count() == 1
    assert os.environ["GIT_SSH_COMMAND"] not in done.stdout + done.stderr


def test_a_key_that_has_expired_is_said(over_ssh: Publisher) -> None:
    over_ssh.publish()
    accept(over_ssh, 'expiry-time="20200101"')
    refuse(
        over_ssh, f"main cannot be fetched from {url(over_ssh)}: this user's key is not accepted"
    )


def test_a_key_that_may_only_read_is_refused_in_the_servers_words(over_ssh: Publisher) -> None:
    over_ssh.publish()
    told = "echo 'The key you are authenticating with is read only.' >&2"
    only = (
        f"case $SSH_ORIGINAL_COMMAND in git-upload*) eval $SSH_ORIGINAL_COMMAND;; *) {told};; esac"
    )
    accept(over_ssh, f'command="{only}"')
    refuse(over_ssh, "The key you are authenticating with is read only.")
    assert over_ssh.count() == 1


def test_an_unknown_host_is_said_and_nobody_is_asked(
    over_ssh: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -F /dev/null -o UserKnownHostsFile=/dev/null")
    refuse(over_ssh, "its host key is not the known one")


# Changed meanwhile.


def test_a_race_that_is_lost_is_run_again(
    job: Publisher, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    job.publish()
    winner = make_publisher(tmp_path, "winner")
    meanwhile(winner.command(content=other(1), guest="api"))
    done = job.publish(content=other(2), commit=SECOND)
    assert "main has moved meanwhile: tried again" in done.stderr
    assert job.count() == 3
    assert [one.name for one in convention.find(job.tip).guests] == ["api", "www"]


def test_a_history_that_was_rewritten_is_published_on(job: Publisher) -> None:
    job.publish()
    job.bring({"note": "by hand"})
    run(*at_server(job, "update-ref", "refs/heads/main", rewritten(job)), cwd=job.folder)
    job.publish(content=other(1), commit=SECOND)
    assert (job.count(), "note" in job.paths()) == (2, False)


def test_a_history_that_is_rewritten_meanwhile_is_published_on(
    job: Publisher, meanwhile: Meanwhile
) -> None:
    job.publish()
    meanwhile(at_server(job, "update-ref", "refs/heads/main", rewritten(job)))
    done = job.publish(content=other(1), commit=SECOND)
    assert "main has moved meanwhile: tried again" in done.stderr
    assert (job.count(), job.text("unix/latest")) == (2, f"{SECOND}\n")


def test_what_is_taken_back_meanwhile_is_not_brought_again(
    job: Publisher, meanwhile: Meanwhile
) -> None:
    job.publish()
    job.bring({"note": "a mistake"})
    meanwhile(at_server(job, "update-ref", "refs/heads/main", "main~1"))
    job.publish(content=other(1), commit=SECOND)
    assert (job.count(), "note" in job.paths()) == (2, False)


def test_a_branch_that_is_gone_is_not_made_anew(job: Publisher) -> None:
    job.publish()
    run("git", "branch", "-q", "-m", "main", "trunk", cwd=job.upstream)
    refused = job.publish(content=other(1), check=False)
    assert (refused.returncode, "that branch is gone there" in refused.stderr) == (REPOSITORY, True)


@pytest.mark.parametrize("others", [True, False], ids=["one of two", "the only one"])
def test_a_branch_that_is_deleted_meanwhile_is_not_made_anew(
    job: Publisher, meanwhile: Meanwhile, others: bool
) -> None:
    job.publish()
    if others:
        run(*at_server(job, "branch", "trunk", "main"), cwd=job.folder)
    meanwhile(at_server(job, "update-ref", "-d", "refs/heads/main"))
    refuse(job, "main ")
    heads = run(*at_server(job, "branch", "--list", "main"), cwd=job.folder).stdout
    assert heads == ""


# A full disk.


@pytest.fixture
def cramped(mounts: None, job: Publisher) -> Publisher:
    """A job whose clone is on a small disk of its own; what it builds is not."""
    del mounts
    job.publish()
    disk = job.folder / "small"
    small_disk(disk, "2m")
    run("git", "clone", "-q", job.upstream, disk / "clone", cwd=disk)
    return Cramped(job.folder, disk / "clone")


class Cramped(Publisher):
    """A job with room for what it builds."""

    def image(self, content: bytes = SCRIPT, name: str = "built") -> Path:
        """Return an image that was built."""
        path = self.folder / name
        path.write_bytes(content)
        return path


def fill(disk: Path) -> Path:
    """Fill a disk; return what is to be removed to have room again."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    return filler


def test_a_disk_that_is_full_before_it_fetches_is_said(cramped: Publisher) -> None:
    filler = fill(cramped.clone.parent)
    refuse(cramped, f"main cannot be fetched from {url(cramped)}: the disk is full")
    filler.unlink()
    cramped.publish(content=other(1), commit=SECOND)
    assert cramped.count() == 2


def test_a_disk_that_is_full_while_it_fetches_is_said(cramped: Publisher) -> None:
    cramped.bring({"big": os.urandom(4 << 20)})
    refuse(cramped, f"main cannot be fetched from {url(cramped)}: the disk is full")


def test_a_disk_without_room_for_the_image_is_said(cramped: Publisher) -> None:
    image = SCRIPT + os.urandom(4 << 20)
    refused = cramped.publish(content=image, commit=SECOND, check=False)
    assert (refused.returncode, cramped.count()) == (REPOSITORY, 1)
    assert "No space left on device" in refused.stderr
    assert "is its disk full" in refused.stderr


def test_a_temporary_folder_without_room_is_said(
    mounts: None, job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    del mounts
    small_disk(job.folder / "small", "1m")
    monkeypatch.setenv("TMPDIR", str(job.folder / "small"))
    refused = job.publish(content=SCRIPT + bytes(2 << 20), check=False)
    assert (refused.returncode, job.count()) == (HOST, 0)
    assert "No space left on device" in refused.stderr
    assert "TMPDIR names another folder" in refused.stderr


def test_a_server_whose_disk_is_full_is_said_and_nothing_is_left_half(
    mounts: None, job: Publisher
) -> None:
    del mounts
    disk = job.folder / "small"
    small_disk(disk, "1m")
    job.publish()
    shutil.move(job.upstream, disk / "deployment.git")
    job.upstream.symlink_to(disk / "deployment.git")
    filler = fill(disk)
    refuse(job, f"main is not taken by {url(job)}: the disk is full: remote:")
    filler.unlink()
    job.publish(content=other(1), commit=SECOND)
    assert job.count() == 2
