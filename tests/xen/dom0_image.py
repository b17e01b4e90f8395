"""The disk of the Xen test host: Debian with its Xen, our dependencies, and guests to boot there.

It is built once, in two steps that are kept apart by what they are made from: Debian by the list of
packages, the disk by all that lies in `tests/xen/files`, by the requirements, and by this module.
"""

import configparser
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
CACHE = Path.home() / ".cache/mirage-hooks-tests/xen"

SUITE = "bookworm"
PACKAGES = (
    *("xen-hypervisor-4.17-amd64", "xen-utils-4.17", "xen-utils-common", "xenstore-utils"),
    *("linux-image-amd64", "busybox-static", "kmod", "grub-xen-host"),
    *("git", "python3", "python3-venv", "iproute2", "openssh-server", "bzip2", "curl", "procps"),
    *("iputils-ping", "sudo", "cron", "ca-certificates"),
)
# What the tests inside import, beside what the project itself requires.
TEST_REQUIREMENTS = ("pytest", "pytest-timeout", "hypothesis")

_MIRROR = "http://deb.debian.org/debian"
_PYTHON = "3.11"  # bookworm's

# Each step is done within minutes; a mirror that answers nothing is not waited for.
_DEBIAN_SECONDS = 900
_STEP_SECONDS = 600

_KEPT_SECONDS = 7 * 86400

# Nothing of what is mounted here is seen outside, or outlives it.
_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Image:
    """A folder with what a test host is booted from."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The root file system, for reading only: each boot has a layer of its own over it."""
        return self.folder / "disk.qcow2"

    @property
    def key(self) -> Path:
        """The private key that gets in, as root."""
        return self.folder / "key"

    def snapshot(self, machine: str) -> Path:
        """Return where the memory of the booted host is, as a layer over the disk, once it is.

        `machine` is all that it depends on beside the disk.
        """
        return self.folder / f"booted-{_digest(machine)}.qcow2"

    def boot_file(self, name: str) -> Path:
        """Return `xen`, `vmlinuz` or `initrd`."""
        return self.folder / "boot" / name


def missing() -> str | None:
    """Return what this machine lacks to build and boot the test host, None where it has all."""
    if os.geteuid() != 0:
        return "building a Debian takes root"
    for program, package in (
        ("debootstrap", "debootstrap"),
        ("mkfs.ext4", "e2fsprogs"),
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("qemu-img", "qemu-utils"),
        ("ssh", "openssh-client"),
    ):
        if shutil.which(program) is None:
            return f"there is no {program}: apt-get install {package}"
    return None


def built() -> Image:
    """Return the image, built first where it is not there as its inputs are now.

    Raises subprocess.SubprocessError where a step fails or takes too long.
    """
    debian = CACHE / f"debian-{_digest(SUITE, *PACKAGES)}"
    with _locked():
        if not debian.exists():
            _bootstrap(debian)
        image = Image(CACHE / _digest(debian.name, *_requirements(), *_sources()))
        if not image.folder.exists():
            _make(debian, image.folder)
        _tidy(debian, image.folder)
        return image


def _tidy(*used: Path) -> None:
    """Remove what nobody has asked for in a week."""
    for folder in used:
        os.utime(folder)
    for folder in CACHE.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(folder)


def _digest(*inputs: str) -> str:
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:12]


def _sources() -> Iterator[str]:
    for path in (Path(__file__), *sorted((HERE / "files").iterdir())):
        yield f"{path.name}\n{path.read_text()}"


def _requirements() -> list[str]:
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    return [*config["options"]["install_requires"].split("\n")[1:], *TEST_REQUIREMENTS]


@contextmanager
def _locked() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _becoming(folder: Path) -> Iterator[Path]:
    """Have a new folder that becomes `folder` once all in it is done."""
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _bootstrap(folder: Path) -> None:
    include = ",".join(PACKAGES)
    with _becoming(folder) as new:
        _run(
            *(*_ALONE, "debootstrap", "--variant=minbase", f"--include={include}"),
            *(SUITE, new, _mirror()),
            seconds=_DEBIAN_SECONDS,
        )
        for heavy in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc"):
            shutil.rmtree(new / heavy)


def _mirror() -> str:
    """Return where this machine's apt gets Debian from."""
    lists = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Codename: " + SUITE],
        capture_output=True,
        text=True,
        check=False,
    )
    return next(iter(lists.stdout.split()), _MIRROR)


# Debian below, what is added to it above; in the end both are one file system.
_PREPARE = """
cd "$0"
mkdir upper work root
mount -t overlay -o "lowerdir=$1,upperdir=upper,workdir=work" overlay root
mount -t proc proc root/proc
mkdir root/srv/dom0
cp -r files/. root/srv/dom0
chroot root sh /srv/dom0/prepare
umount root/proc
rm -r root/srv/dom0
cp -r root/srv/boot boot
mkfs.ext4 -q -F -L root -d root disk.raw 6G >/dev/null
qemu-img convert -O qcow2 disk.raw disk.qcow2
umount root
rm -r upper work root disk.raw files
"""


def _make(debian: Path, folder: Path) -> None:
    with _becoming(folder) as new:
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", new / "key")
        shutil.copytree(HERE / "files", new / "files")
        shutil.copy(new / "key.pub", new / "files")
        _download(new / "files/wheels")
        _run(*_ALONE, "sh", "-euc", _PREPARE, new, debian)


def _download(folder: Path) -> None:
    platforms = (f"--platform=manylinux{kind}_x86_64" for kind in ("2014", "_2_17", "_2_28"))
    _run(
        *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"),
        *("--only-binary=:all:", f"--python-version={_PYTHON}", "--implementation=cp"),
        *(*platforms, f"--dest={folder}", *_requirements()),
    )


def _run(*command: str | Path, seconds: float = _STEP_SECONDS) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, timeout=seconds, check=True)
