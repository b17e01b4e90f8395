"""A real sshd on loopback, and a git that knows the way in."""

import contextlib
import fcntl
import os
import pwd
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import free_port, run, wait_for

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
"""


@dataclass(frozen=True)
class Server:
    """An sshd that runs: its port, and the command that gets in, as git takes it."""

    port: int
    client: str


@contextlib.contextmanager
def running_sshd(folder: Path, *settings: str) -> Iterator[Server]:
    """Run an sshd with keys of its own, for whoever runs this; there has to be one."""
    assert SSHD is not None
    folder.mkdir()
    for key in ("host", "client"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, cwd=folder)
    port = free_port()
    config = CONFIG.format(port=port, folder=folder)
    (folder / "config").write_text(config + "".join(f"{setting}\n" for setting in settings))
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    ssh = ["ssh", "-F", "/dev/null", "-i", str(folder / "client"), "-o", "IdentitiesOnly=yes"]
    client = shlex.join([*ssh, *(word for option in options for word in ("-o", option))])
    with privilege_separation_folder(), (folder / "log").open("w") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=log)
        try:
            wait_for(lambda: "Server listening" in (folder / "log").read_text())
            yield Server(port, client)
        finally:
            server.terminate()
            server.wait(10)


@contextlib.contextmanager
def ssh_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Have a test's git reach this host by ssh; give the port."""
    if SSHD is None:
        pytest.skip("there is no sshd here (Debian: openssh-server)")
    user = pwd.getpwuid(os.geteuid())
    if Path(user.pw_shell).name in {"nologin", "false"}:
        pytest.skip(f"{user.pw_name} may not log in here: their shell is {user.pw_shell}")
    home, runtime = os.environ["HOME"], os.environ["XDG_RUNTIME_DIR"]
    there = f"SetEnv HOME={home} XDG_RUNTIME_DIR={runtime} BASH_ENV="
    with running_sshd(tmp_path / "ssh", there) as server:
        monkeypatch.setenv("GIT_SSH_COMMAND", server.client)
        yield server.port


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
