"""A push over ssh, with a real sshd on loopback: what the client does never stops the deploy."""

import contextlib
import fcntl
import getpass
import os
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import Site, free_port, make_bare, run, wait_for

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")

CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
SetEnv HOME={home} XDG_RUNTIME_DIR={runtime} BASH_ENV=
"""


@dataclass
class Remote:
    """A repository on this host, to which one pushes over ssh."""

    site: Site
    url: str

    def start_push(self) -> "subprocess.Popen[str]":
        """Start a push in a process group of its own."""
        return subprocess.Popen(
            ["git", "push", self.url, "main"],
            cwd=self.site.upstream,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Run an sshd with keys of its own, for whoever runs the tests; give its port."""
    if SSHD is None:
        pytest.skip("there is no sshd here (Debian: openssh-server)")
    folder = tmp_path / "ssh"
    folder.mkdir()
    for key in ("host", "client"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, cwd=folder)
    port = free_port()
    config = CONFIG.format(
        port=port,
        folder=folder,
        home=os.environ["HOME"],
        runtime=os.environ["XDG_RUNTIME_DIR"],
    )
    (folder / "config").write_text(config)
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    ssh = ["ssh", "-F", "/dev/null", "-i", str(folder / "client"), "-o", "IdentitiesOnly=yes"]
    command = [*ssh, *(word for option in options for word in ("-o", option))]
    monkeypatch.setenv("GIT_SSH_COMMAND", shlex.join(command))
    with privilege_separation_folder(), (folder / "log").open("w") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=log)
        try:
            wait_for(lambda: "Server listening" in (folder / "log").read_text())
            yield port
        finally:
            server.terminate()
            server.wait(10)


@contextlib.contextmanager
def privilege_separation_folder() -> Iterator[None]:
    """See to it that there is the folder that root's sshd wants; ours is known by its mode.

    Tests run side by side: the last one out, who gets the lock alone, removes it.
    """
    folder = Path("/run/sshd")
    if os.geteuid() != 0:
        yield
        return
    lock = os.open(folder.parent, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    folder.mkdir(mode=0o711, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_IMODE(folder.stat().st_mode) == 0o711:
                folder.rmdir()
        os.close(lock)


@pytest.fixture
def remote(site: Site, sshd: int, tmp_path: Path) -> Remote:
    """A bare repository behind ssh, whose first image runs."""
    make_bare(site, tmp_path)
    site.install("--deploy")
    return Remote(site, f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}{site.clone}")


@pytest.fixture
def slow(remote: Remote) -> Remote:
    """The same, with an image to push whose guest opens its port after a second."""
    remote.site.args.append("--delay=1000")
    remote.site.publish("two")
    return remote


def test_a_push_over_ssh_deploys_and_shows_it(remote: Remote) -> None:
    remote.site.publish("two")
    push = remote.site.push(remote.url, "main")
    assert "remote: mirage-hooks: done: www runs as it should" in push.stderr
    assert remote.site.page() == "two"


def test_a_client_that_is_killed_ends_the_following_and_not_the_deploy(slow: Remote) -> None:
    push = slow.start_push()
    wait_for(lambda: len(slow.site.outcomes()) == 2)
    os.killpg(push.pid, signal.SIGKILL)
    push.communicate(timeout=10)
    wait_for(lambda: slow.site.outcomes() == ["ended", "healthy"])
    assert slow.site.page() == "two"


def test_a_client_that_reads_nothing_for_a_while_delays_no_deploy(slow: Remote) -> None:
    push = slow.start_push()
    wait_for(lambda: len(slow.site.outcomes()) == 2)
    os.killpg(push.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: slow.site.outcomes() == ["ended", "healthy"])
        assert slow.site.page() == "two"
    finally:
        os.killpg(push.pid, signal.SIGCONT)
    _, stderr = push.communicate(timeout=30)
    assert (push.returncode, "done: www runs as it should" in stderr) == (0, True)
