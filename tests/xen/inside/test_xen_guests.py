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

# A domain with a vif takes seconds to make here, and Debian's kernel some more to boot.
_SECONDS = 60

# To each the configuration that it needs, with what is added to `extra`.
WEB = f"kernel = '{GUESTS / 'web.xen'}'\nmemory = 16\nextra = '{{}}'\n"
PVH = f"kernel = '{GUESTS / 'web-pvh.xen'}'\ntype = 'pvh'\nmemory = 32\nextra = '{{}}'\n"
GRUB = f"kernel = '{GUESTS / 'grub.xen'}'\nmemory = 32\n"
DEBIAN = (
    f"kernel = '{GUESTS / 'vmlinuz'}'\nramdisk = '{GUESTS / 'initrd'}'\nmemory = 128\n"
    "extra = 'console=hvc0 quiet {}'\n"
)
both = pytest.mark.parametrize("kernel", [WEB, DEBIAN], ids=["ours", "Debian's"])

Create = Callable[..., str]


@pytest.fixture
def create(tmp_path: Path) -> Iterator[Create]:
    """Return a function that creates a domain, and returns its name; it stays once it stops."""
    name = f"guest-{time.monotonic_ns()}"

    def make(kernel: str, extra: str = "", more: str = "") -> str:
        kept = "on_poweroff = 'preserve'\non_crash = 'preserve'\n"
        config = tmp_path / "config"
        config.write_text(f"name = '{name}'\n{kept}{kernel.format(extra)}{more}")
        run("xl", "create", "-q", str(config), cwd=tmp_path)
        return name

    yield make
    subprocess.run(["xl", "destroy", name], capture_output=True, check=False)


def state(name: str) -> str:
    return run("xl", "list", name, cwd=Path("/")).stdout.splitlines()[1].split()[4]


def last_words(name: str, ended: str) -> str:
    """Wait until a domain is in this state; return what was on its console."""
    wait_for(lambda: state(name) == ended, _SECONDS)
    command = ["timeout", "5", "xl", "console", name]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    ).stdout


@both
def test_a_guest_serves_at_the_address_that_extra_says(kernel: str, create: Create) -> None:
    create(kernel, SERVE, VIF)
    wait_for(lambda: get(80, address=ADDRESS) == "there", _SECONDS)


def test_a_guest_of_ours_takes_no_notice_of_dashes(create: Create) -> None:
    create(WEB, f"--ipv4=10.0.0.8/24 {SERVE}", VIF)
    wait_for(lambda: get(80, address=ADDRESS) == "there", _SECONDS)


def test_a_later_guest_of_ours_takes_dashes(create: Create) -> None:
    create(PVH, f"--ipv4={ADDRESS}/24 --hello=there", VIF)
    wait_for(lambda: get(80, address=ADDRESS) == "there", _SECONDS)


@both
def test_a_guest_says_its_code_and_powers_off(kernel: str, create: Create) -> None:
    assert "solo5_exit(3) called" in last_words(create(kernel, "exit=3"), "---s--")


def test_a_guest_of_ours_crashes_without_a_vif(create: Create) -> None:
    assert "there is no vif" in last_words(create(WEB, SERVE), "---sc-")


def test_a_guest_with_debian_s_kernel_crashes_when_it_is_told_to(create: Create) -> None:
    assert "Kernel panic" in last_words(create(DEBIAN, "crash-after=1"), "---sc-")


def test_a_guest_with_debian_s_kernel_boots_for_pvh(create: Create) -> None:
    create(DEBIAN, SERVE, f"type = 'pvh'\n{VIF}")
    wait_for(lambda: get(80, address=ADDRESS) == "there", _SECONDS)


def test_grub_s_image_boots(create: Create) -> None:
    command = ["timeout", "20", "xl", "console", create(GRUB)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as console:
        assert console.stdout is not None
        assert b"Welcome to GRUB!" in console.stdout.readline()
        console.terminate()
