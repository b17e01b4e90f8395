"""The guests that tests boot are what they say: real domains of a real Xen."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from in_dom0 import GUESTS, in_dom0
from support import get, run, wait_for

pytestmark = in_dom0

ADDRESS = "10.0.0.9"
SERVE = f"ipv4={ADDRESS}/24 hello=there"
VIF = "vif = ['bridge=xenbr0,mac=02:00:00:00:00:09']"
DEBIAN = f"kernel = '{GUESTS / 'vmlinuz'}'\nramdisk = '{GUESTS / 'initrd'}'\nmemory = 128\n"
WEB = f"kernel = '{GUESTS / 'web.xen'}'\nmemory = 16\n"
GRUB = f"kernel = '{GUESTS / 'grub.xen'}'\nmemory = 32\n"

# Under QEMU a domain with a vif takes seconds to make, and Debian's kernel some more to boot.
_SECONDS = 60

Create = Callable[..., str]
both = pytest.mark.parametrize("kernel", [WEB, DEBIAN], ids=["ours", "Debian's"])


@pytest.fixture
def create(tmp_path: Path) -> Iterator[Create]:
    """Return a function that creates a domain, and returns what its console has at its end.

    One that `serves` is left alone: its name is returned.
    """
    name = f"guest-{time.monotonic_ns()}"

    def make(kernel: str, extra: str, *more: str, serves: bool = False) -> str:
        config = tmp_path / "config"
        extra = f"extra = 'console=hvc0 quiet {extra}'"
        config.write_text("\n".join([f"name = '{name}'", kernel, extra, *more]))
        run("xl", "create", "-q", "-p", str(config), cwd=tmp_path)
        if serves:
            run("xl", "unpause", name, cwd=tmp_path)
            return name
        with subprocess.Popen(
            ["xl", "console", name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as console:
            run("xl", "unpause", name, cwd=tmp_path)
            try:
                return console.communicate(timeout=_SECONDS)[0]
            except subprocess.TimeoutExpired:
                console.kill()
                return console.communicate()[0]

    yield make
    subprocess.run(["xl", "destroy", name], capture_output=True, check=False)


@both
def test_a_guest_serves_at_the_address_that_extra_says(kernel: str, create: Create) -> None:
    create(kernel, SERVE, VIF, serves=True)
    wait_for(lambda: get(80, address=ADDRESS) == "there", _SECONDS)


def test_a_guest_of_ours_takes_no_notice_of_dashes(create: Create) -> None:
    create(WEB, f"--ipv4=10.0.0.8/24 {SERVE}", VIF, serves=True)
    wait_for(lambda: get(80, address=ADDRESS) == "there", _SECONDS)


@both
def test_a_guest_ends_with_a_code_on_its_console(kernel: str, create: Create) -> None:
    assert "solo5_exit(3) called" in create(kernel, "exit=3")


def test_a_guest_of_ours_crashes_without_a_vif(create: Create) -> None:
    assert "no vif" in create(WEB, SERVE)


def test_grub_s_image_boots(create: Create) -> None:
    name = create(GRUB, "", serves=True)
    with subprocess.Popen(
        ["xl", "console", name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as console:
        assert console.stdout is not None
        assert "Welcome to GRUB!" in console.stdout.readline()
        console.kill()
