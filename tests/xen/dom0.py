"""The Xen test host while it runs: QEMU without KVM, reached by ssh on loopback.

QEMU emulates all of it, Xen included. It is booted once an image; what the booted host's memory was
is kept beside the disk, and each later run starts from there. What a run writes is gone afterwards.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dom0_image import Image

_QEMU = "qemu-system-x86_64"
_BOOTED = "booted"

# Each of the features that are left out is needed under QEMU 7.2's emulation: with SMAP dom0 dies
# at entry, with AVX and XSAVE its programs corrupt memory, with RDTSCP domains for PVH stop.
_CPU = "max,-smap,-xsave,-avx,-avx2,-f16c,-fma,-rdtscp"
_XEN = (
    "console=com1 com1=115200,8n1 dom0_mem=1500M,max:1500M dom0_max_vcpus=1 spec-ctrl=no xpti=0"
    " noreboot"
)
_LINUX = "console=hvc0 nokaslr mitigations=off"

# All that a snapshot's memory depends on, beside QEMU's version.
_MACHINE = (
    *("-M", "pc", "-accel", "tcg,thread=multi,tb-size=1024", "-cpu", _CPU, "-smp", "1"),
    *("-m", "4096", "-nodefaults", "-display", "none", "-device", "virtio-net,netdev=net"),
    *("-kernel", "xen", "-append", _XEN, "-initrd", f"vmlinuz {_LINUX},initrd"),
)

# Half a minute on an idle machine; tests of others may run beside it.
_BOOT_SECONDS = 300.0
_SNAPSHOT_SECONDS = 120.0

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

_SSH = (
    *("-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"),
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=30"),
)


class Host:
    """A test host that runs; commands are run in it as root."""

    def __init__(self, image: Image, layer: Path, *options: str) -> None:
        self._image = image
        self._folder = layer.parent
        self.port = _free_port()
        # What Xen and Linux say, and what QEMU itself does.
        self.console = self._folder / "console"
        self._said = self._folder / "qemu"
        with self._said.open("wb") as said:
            self._qemu = subprocess.Popen(
                [*self._command(layer), *options],
                cwd=image.boot_file("xen").parent,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._qemu.pid

    def _command(self, layer: Path) -> list[str]:
        forward = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        return [
            # Whatever becomes of the test, QEMU goes with it.
            *("setpriv", "--pdeathsig", "KILL", _QEMU, *_MACHINE),
            *("-drive", f"file={layer},if=virtio,cache=unsafe", "-netdev", forward),
            *("-serial", f"file:{self.console}"),
            *("-monitor", f"unix:{self._folder}/monitor,server,nowait"),
        ]

    def ssh(self, *command: str) -> list[str]:
        """Return the command that runs a line of shell in here, or a shell."""
        here = ("-i", str(self._image.key), f"-p{self.port}", "root@127.0.0.1")
        return ["ssh", *_SSH, *here, *command]

    def run(self, line: str, seconds: float = 60.0, check: bool = True) -> str:
        """Run a line of shell in here to its end; return what it printed."""
        return subprocess.run(
            self.ssh(line),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=check,
        ).stdout

    def copy(self, paths: list[Path], folder: str) -> None:
        """Copy files and folders into a folder in here, which is made where it is missing."""
        packed = ["tar", "-c", "--exclude=__pycache__"]
        for path in paths:
            packed += ["-C", str(path.parent), path.name]
        with subprocess.Popen(packed, stdout=subprocess.PIPE) as tar:
            line = f"mkdir -p {folder} && tar -x --no-same-owner -C {folder}"
            subprocess.run(self.ssh(line), stdin=tar.stdout, timeout=120, check=True)

    def wait(self, line: str = "true") -> None:
        """Wait until it is up, and a line of shell ends well in here.

        Raises TimeoutError, and OSError where QEMU has ended.
        """
        asked = self.ssh(f"test -e /run/host-is-up && {line}")
        deadline = time.monotonic() + _BOOT_SECONDS
        while subprocess.run(asked, capture_output=True, check=False).returncode != 0:
            if self._qemu.poll() is not None:
                said = self._said.read_text()
                raise OSError(f"QEMU ended with {self._qemu.returncode}: {said}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the test host is not up within {_BOOT_SECONDS:.0f} s")
            time.sleep(0.5)

    def reboot(self) -> None:
        """Boot it again, in order; return once it is up."""
        # In a moment: this very connection is to end first.
        reboot = "(sleep 1; sync; busybox reboot) </dev/null >/dev/null 2>&1 &"
        before = self.run(f"cat {_BOOT_ID}; {reboot}").strip()
        self.wait(f"! grep -q {before} {_BOOT_ID}")
        self.set_clock()

    def set_clock(self) -> None:
        """Tell it what time it is: a snapshot's clock goes on from where it stood."""
        self.run(f"date -s @{time.time():.0f}")

    def tell(self, order: str, seconds: float = 30.0) -> str:
        """Give QEMU's monitor an order (`savevm`, `system_reset`); return what it says."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(seconds)
            monitor.connect(str(self._folder / "monitor"))
            _until_prompt(monitor)
            monitor.sendall(f"{order}\n".encode())
            return _until_prompt(monitor)

    def end(self) -> None:
        """Switch it off."""
        self._qemu.kill()
        self._qemu.wait(30)


@contextmanager
def running(image: Image) -> Iterator[Host]:
    """Have the test host, as it was once it had booted; leave nothing of it but the image."""
    with tempfile.TemporaryDirectory(prefix="mh-xen-") as name:
        folder = Path(name)
        snapshot = image.snapshot(_machine())
        if not snapshot.exists():
            _take_snapshot(image, folder, snapshot)
        layer = folder / "layer.qcow2"
        shutil.copy(snapshot, layer)
        host = Host(image, layer, "-loadvm", _BOOTED)
        try:
            host.wait()
            host.set_clock()
            yield host
        finally:
            host.end()


def _machine() -> str:
    version = subprocess.run([_QEMU, "--version"], capture_output=True, text=True, check=True)
    return "\0".join([version.stdout, *_MACHINE])


def _take_snapshot(image: Image, folder: Path, to: Path) -> None:
    layer = folder / "first.qcow2"
    subprocess.run(
        [*("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2"), "-b", image.disk, layer],
        check=True,
    )
    host = Host(image, layer)
    try:
        host.wait()
        said = host.tell(f"savevm {_BOOTED}", _SNAPSHOT_SECONDS)
        if "Error" in said:
            raise OSError(f"no snapshot: {said}")
        host.tell("quit")
    finally:
        host.end()
    new = to.with_suffix(".new")
    shutil.move(layer, new)
    new.rename(to)


def _until_prompt(monitor: socket.socket) -> str:
    said = b""
    while not said.endswith(b"(qemu) "):
        try:
            chunk = monitor.recv(4096)
        except ConnectionError:  # it was told to quit
            break
        if not chunk:
            break
        said += chunk
    return said.decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
