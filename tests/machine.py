"""A machine that systemd has booted: this one's own files below, what is changed gone afterwards.

systemd is process 1 in namespaces of its own. Its root is an overlay over this machine's `/`, so it
is the systemd, the Python and the git of the packages that are installed here; the units that this
machine has enabled are not. What is written stays while the machine is booted again.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from namespace import Namespace, missing_for_namespaces
from support import COMMAND, run, wait_for

# Set where a machine that cannot be booted is a failure: `make test-systemd`.
REQUIRED = "TEST_SYSTEMD"

_SYSTEMD = Path("/lib/systemd/systemd")
_REPOSITORY = Path(__file__).parent.parent

# The ground that stays while a machine is booted again; it is there while somebody holds its end of
# standard input. Nothing of this machine's is to be started but what systemd's package has.
_GROUND = """
cd "$0"
mount -t tmpfs -o mode=755,size=1g tmpfs .
cd "$0"
mkdir upper work root cgroup
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
mount -t cgroup2 cgroup2 cgroup
mkdir "cgroup/$1"
group=$1
shift
for path; do mkdir -p "root$path"; mount --rbind "$path" "root$path"; done
cd root
rm -rf etc/systemd/system etc/systemd/user etc/init.d etc/rc?.d etc/cron* var/lib/systemd
mkdir -p etc/systemd/system var/lib/systemd etc/init.d
# The first would empty /tmp, where this very test is.
for unit in systemd-tmpfiles-setup.service systemd-tmpfiles-clean.timer getty.target; do
    ln -s /dev/null "etc/systemd/system/$unit"
done
ln -s /lib/systemd/system/multi-user.target etc/systemd/system/default.target
: >etc/fstab
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
rm -rf root/.gitconfig srv
mkdir srv
cat >root/.gitconfig <<END
[user]
name = Tester
email = tester@example.org
[init]
defaultBranch = main
END
echo ready
read -r _ || :
cd ..
find "cgroup/$group" -depth -type d -exec rmdir {} +
"""

# What systemd finds when it starts. /proc/sys and /sys are this machine's, too: not to be written.
_BOOT = """
cd "$0"
echo $$ >"cgroup/$1/cgroup.procs"
exec unshare --cgroup --mount --pid --ipc --uts --fork --kill-child sh -euc '
    cat /proc/sys/kernel/random/uuid >boot_id
    mount -t proc proc root/proc
    mount --bind root/proc/sys root/proc/sys
    mount -o remount,bind,ro root/proc/sys
    mount --bind boot_id root/proc/sys/kernel/random/boot_id
    mount -t sysfs -o ro sysfs root/sys
    mount -t cgroup2 cgroup2 root/sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs root/run
    mount -t tmpfs -o mode=755 tmpfs root/dev
    cd root/dev
    mknod -m 666 null c 1 3; mknod -m 666 zero c 1 5; mknod -m 666 full c 1 7
    mknod -m 666 random c 1 8; mknod -m 666 urandom c 1 9; mknod -m 666 tty c 5 0
    mkdir pts shm
    mount -t devpts -o newinstance,ptmxmode=0666 devpts pts
    mount -t tmpfs -o mode=1777 tmpfs shm
    ln -s pts/ptmx ptmx; ln -s /proc/self/fd fd
    cd ..
    pivot_root . .
    umount -l .
    cd /
    exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --bounding-set \
        -sys_time,-sys_module,-sys_rawio,-syslog,-mac_admin /lib/systemd/systemd
'
"""

# Commands run beside what systemd has started; from inside nobody could move them elsewhere.
_ENTER = """
mkdir -p "$1"
echo $$ >"$1/cgroup.procs"
pid=$2
shift 2
exec nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup "$@"
"""


class Machine:
    """One machine, booted: commands run in it, and it can be booted again."""

    def __init__(self, folder: Path, namespace: Namespace) -> None:
        self._folder = folder
        self._namespace = namespace
        self._group = namespace.name
        others = [
            str(path)
            for path in (_REPOSITORY, Path(sys.prefix), Path(sys.base_prefix))
            if path.stat().st_dev != Path("/").stat().st_dev
        ]
        self._ground = subprocess.Popen(
            ["unshare", "--mount", "sh", "-euc", _GROUND, str(folder), self._group, *others],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._ground.stdout is not None
        if self._ground.stdout.readline() != "ready\n":
            _, said = self._ground.communicate(timeout=10)
            raise OSError(said.strip())
        self.root = Path(f"/proc/{self._ground.pid}/root{folder}/root")
        self._log = folder.with_suffix(".log")
        try:
            self._boot()
        except BaseException:
            self.end()
            raise

    def _boot(self) -> None:
        enter = ["nsenter", f"--mount=/proc/{self._ground.pid}/ns/mnt", "sh", "-euc", _BOOT]
        self._outside = self._namespace.popen(*enter, self._folder, self._group, console=self._log)
        wait_for(self._is_up, 60)

    def _is_up(self) -> bool:
        if self._outside.poll() is not None:
            raise OSError(f"systemd ended: {self._log.read_text().strip()}")
        init = Path(f"/proc/{self._init}")
        if (init / "comm").read_text() != "systemd\n":
            return False
        if not (init / "root/run/systemd/private").exists():
            return False
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in {"running", "degraded"}

    @property
    def _init(self) -> int:
        """Process 1 of the machine, as the test sees it."""
        outside = self._outside.pid
        children = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
        return int(children[0]) if children else outside

    def run(
        self, *command: str | Path, cwd: str = "/", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as root, to its end."""
        group = f"/proc/{self._ground.pid}/root{self._folder}/cgroup/{self._group}/tests"
        where = ["env", "-i", "-C", cwd, "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        enter = ["sh", "-euc", _ENTER, "sh", group, str(self._init), *where]
        return run(*enter, *command, cwd=Path("/"), check=check)

    def page(self, port: int) -> str | None:
        """Return what a guest in the machine answers, None where none does."""
        return self._namespace.get("127.0.0.1", port)

    def reboot(self) -> None:
        """Shut the machine down in order, and boot it again: the kernel's boot id is another."""
        os.kill(self._init, signal.SIGRTMIN + 4)  # systemd(1): poweroff.target
        self._outside.wait(60)
        self._boot()

    def lose_power(self) -> None:
        """End everything in the machine at once, and boot it again."""
        self._outside.kill()
        self._outside.wait(60)
        wait_for(lambda: not self._namespace.pids)
        self._boot()

    def end(self) -> None:
        """Leave nothing of the machine."""
        if hasattr(self, "_outside"):
            self._outside.kill()
            self._outside.wait(60)
            wait_for(lambda: not self._namespace.pids)
        self._ground.communicate("end\n", timeout=60)
        self._log.unlink(missing_ok=True)


@contextmanager
def machine() -> Iterator[Machine]:
    """Have a machine; skip the test, saying why, where none can be booted here."""
    lacking = missing_for_namespaces() or _missing()
    if lacking is None:
        namespace = Namespace()
        folder = Path(tempfile.mkdtemp(prefix="mh-machine-"))
        try:
            made = Machine(folder, namespace)
        except BaseException as error:
            namespace.end()
            folder.rmdir()
            if not isinstance(error, OSError):
                raise
            lacking = str(error)
    if lacking is not None:
        if REQUIRED in os.environ:
            pytest.fail(f"systemd cannot be booted here: {lacking}")
        pytest.skip(f"systemd cannot be booted here: {lacking}")
    try:
        yield made
    finally:
        made.end()
        namespace.end()
        folder.rmdir()


def _missing() -> str | None:
    if not _SYSTEMD.exists():
        return "it is not installed: apt-get install systemd"
    return next(
        (f"there is no {name}" for name in ("nsenter", "setpriv") if not shutil.which(name)), None
    )


class MachineSite:
    """A deployment repository with the guest `www`, and a clone of it, in a machine."""

    def __init__(self, on: Machine, image: Path, port: int, name: str = "deployment") -> None:
        self.machine = on
        self.port = port
        self.here = f"/srv/{uuid.uuid4().hex[:8]}/{name}"
        self._upstream = str(Path(self.here).with_name("upstream"))
        on.run("git", "init", "-q", self._upstream)
        self.publish(image)
        on.run("git", "clone", "-q", self._upstream, self.here)

    def publish(self, image: Path, guests: tuple[str, ...] = ("www",)) -> None:
        """Commit an image for the guests, each at a port of its own."""
        upstream = self.machine.root / self._upstream.removeprefix("/")
        manifest = "".join(
            f'[guest.{guest}]\ntarget = "unix"\nimage = "www.unix"\n'
            f'args = ["--ipv4=127.0.0.1/8", "--port={self.port + place}"]\n'
            f'check.tcp = "127.0.0.1:{self.port + place}"\n'
            for place, guest in enumerate(guests)
        )
        (upstream / "mirage-hooks.toml").write_text(manifest)
        shutil.copy(image, upstream / "www.unix")
        self.machine.run("git", "add", "-A", cwd=self._upstream)
        self.machine.run("git", "commit", "-q", "-m", "publish", cwd=self._upstream)

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run mirage-hooks in the clone."""
        return self.machine.run(COMMAND, *arguments, cwd=self.here, check=check)

    def install(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Install mirage-hooks into the clone."""
        return self.command("install", "--user", "nobody", *options)

    def page(self, place: int = 0) -> str | None:
        """Return what the guest at a place answers."""
        return self.machine.page(self.port + place)

    def unit(self, template: str) -> str:
        """Return the name of a template's unit for the clone, as systemd has it."""
        command = ("systemd-escape", "--path", f"--template={template}", self.here)
        return self.machine.run(*command).stdout.strip()
