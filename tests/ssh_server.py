"""A real sshd on loopback, and a git that knows the way in."""

import contextlib
import fcntl
import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
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
SetEnv HOME={home} XDG_RUNTIME_DIR={runtime} BASH_ENV=
"""


@contextlib.contextmanager
def ssh_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
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
