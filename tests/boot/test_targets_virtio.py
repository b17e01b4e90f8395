"""The virtio target: QEMU's command line, with the image's devices in their order."""

import shutil
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mirage_hooks.boot.device import NetworkConfig, Nic, Volume
from mirage_hooks.boot.errors import ConfigError, HostError, ImageError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.targets.tending import Start, Tending
from mirage_hooks.boot.targets.virtio import Virtio

MAC = "02:00:00:00:00:01"
PUBLIC = NetworkConfig(network="public", address="10.0.0.2/24")
QEMU = shutil.which("qemu-system-x86_64")
needs_qemu = pytest.mark.skipif(
    QEMU is None, reason="it takes QEMU: apt-get install qemu-system-x86"
)


def boot(
    config: NetworkConfig = PUBLIC,
    nic: Nic | None = None,
    readonly: bool = False,
    arguments: tuple[str, ...] = (),
) -> Boot:
    return Boot(
        target="virtio",
        image="0" * 64,
        arguments=arguments,
        memory=64,
        network={"service": config},
        nics={"service": nic or Nic("bridge", "br0", MAC)},
        volumes={"storage": Volume("/srv/data.img", readonly)},
    )


def command(one: Boot, devices: Sequence[str] = ("service", "storage")) -> list[str]:
    kinds = {"service": "NET_BASIC", "storage": "BLOCK_BASIC"}
    taps = {device: "mh0" for device, nic in one.nics.items() if nic.kind != "user"}
    start = Start(
        "www",
        "/proc/self/fd/100",
        Tending("/usr/bin/qemu", ("-accel", "tcg")),
        {name: kinds[name] for name in devices},
        taps=taps,
        volumes={"storage": "/proc/self/fd/101"},
    )
    return Virtio("virtio").command(one, start)[1]


def after(option: str, argv: list[str]) -> list[str]:
    """Return the value of every option of a name."""
    return [value for key, value in pairwise(argv) if key == option]


def test_qemu_is_told_how_to_be_a_virtual_machine_for_mirageos() -> None:
    argv = command(boot(arguments=("--ipv4=10.0.0.2/24", "--hello=a b")))
    assert argv == [
        *("/usr/bin/qemu", "-accel", "tcg", "-m", "64"),
        *("-nodefaults", "-no-acpi", "-display", "none", "-serial", "stdio"),
        *("-netdev", "tap,id=n0,ifname=mh0,script=no,downscript=no"),
        *("-device", f"virtio-net,netdev=n0,mac={MAC}"),
        *("-drive", "id=b1,if=none,format=raw,readonly=off,file=/proc/self/fd/101"),
        *("-device", "virtio-blk,drive=b1"),
        *("-device", "isa-debug-exit", "-kernel", "/proc/self/fd/100"),
        *("-append", '--ipv4=10.0.0.2/24 --hello="a b"'),
    ]


# It finds its devices by their order on the bus, not by name.
@pytest.mark.parametrize("order", [["service", "storage"], ["storage", "service"]])
def test_devices_are_in_the_order_of_the_images_manifest(order: list[str]) -> None:
    found = [one.partition(",")[0] for one in after("-device", command(boot(), order))]
    frontends = {"service": "virtio-net", "storage": "virtio-blk"}
    assert found == [*(frontends[device] for device in order), "isa-debug-exit"]


def test_a_volume_that_is_only_read_is_given_as_such() -> None:
    (drive,) = after("-drive", command(boot(readonly=True)))
    assert "readonly=on" in drive


def test_qemu_needs_no_copy_of_what_is_only_read() -> None:
    assert not Virtio("virtio").writes_all


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1))
def test_no_argument_of_a_guest_is_one_of_qemus(argument: str) -> None:
    assume(len(argument) < 1000)
    plain, argv = command(boot()), command(boot(arguments=(argument,)))
    assert argv[:-1] == plain[:-1]


# QEMU's own network.


def inside(address: str | None, *forward: str, gateway: str | None = None) -> Boot:
    config = NetworkConfig(network="inside", address=address, gateway=gateway, dhcp=address is None)
    return boot(config, Nic("user", None, MAC, forward))


def test_a_guest_with_dhcp_is_served_by_qemu() -> None:
    (backend,) = after("-netdev", command(inside(None, "127.0.0.1:8080:80")))
    assert backend == "user,id=n0,hostfwd=tcp:127.0.0.1:8080-:80"


def test_a_guest_with_an_address_has_qemus_network_around_it() -> None:
    (backend,) = after("-netdev", command(inside("10.0.0.2/24", "udp:127.0.0.1:53:53")))
    assert backend == (
        "user,id=n0,net=10.0.0.0/24,host=10.0.0.1,dns=10.0.0.3,dhcpstart=10.0.0.4,"
        "hostfwd=udp:127.0.0.1:53-10.0.0.2:53"
    )


def test_qemu_is_the_gateway_that_is_configured() -> None:
    (backend,) = after("-netdev", command(inside("10.0.0.2/24", gateway="10.0.0.3")))
    assert backend == "user,id=n0,net=10.0.0.0/24,host=10.0.0.3,dns=10.0.0.1,dhcpstart=10.0.0.4"


@needs_qemu
@pytest.mark.parametrize(
    ("address", "gateway"),
    [
        *[(f"10.0.0.{own}/29", f"10.0.0.{other}") for own, other in [(1, 6), (6, 1), (2, 3)]],
        *[("10.0.0.15/24", "10.0.0.3"), ("10.0.0.1/24", None), ("10.9.9.9/4", None)],
    ],
)
def test_the_real_qemu_takes_any_address_and_gateway(address: str, gateway: str | None) -> None:
    (backend,) = after("-netdev", command(inside(address, gateway=gateway)))
    done = subprocess.run(
        [
            *(str(QEMU), "-nodefaults", "-display", "none", "-S", "-monitor", "stdio"),
            *("-netdev", backend, "-device", "virtio-net,netdev=n0"),
        ],
        input="quit\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# What the guest asks for, and the image has.


def test_a_guest_cannot_have_the_hosts_sockets() -> None:
    guest = Guest(name="www", target="virtio", image="i", network={"s": NetworkConfig()})
    with pytest.raises(ConfigError, match="network s: virtio has no sockets of the host's"):
        Virtio("virtio").check(guest)


def test_an_image_with_other_devices_is_refused() -> None:
    with pytest.raises(ImageError, match="devices do not match: the image has no storage"):
        Virtio("virtio").fit(boot(), Image("virtio", abi=2, devices={"service": "NET_BASIC"}))


# Solo5 would cut them off without a word.
def test_a_guest_with_more_arguments_than_fit_is_not_started() -> None:
    with pytest.raises(ConfigError, match="a Solo5 guest takes 8191"):
        command(boot(arguments=("a" * 9000,)))


# The tender.


@pytest.fixture
def qemu(tmp_path: Path) -> str:
    """A program in place of QEMU, which says its version and runs nothing."""
    path = tmp_path / "qemu"
    path.write_text("#!/bin/sh\n[ $1 = --version ]\n")
    path.chmod(0o755)
    return str(path)


def test_without_kvm_guests_run_in_software_and_it_is_said_who_says_so(qemu: str) -> None:
    tending = Virtio("virtio").tending(Tenders(virtio=qemu, kvm=False), None, Image("virtio"))
    assert tending.options == ("-accel", "tcg")
    assert tending.notice == "QEMU without KVM: host.toml says so"


def test_where_kvm_does_not_work_guests_run_in_software_and_it_is_said_why(qemu: str) -> None:
    tending = Virtio("virtio").tending(Tenders(virtio=qemu), None, Image("virtio"))
    assert tending.options == ("-accel", "tcg")
    assert tending.notice.startswith("QEMU without KVM: ")


def test_a_qemu_that_does_not_start_at_all_runs_no_guest(qemu: str) -> None:
    Path(qemu).write_text("#!/bin/sh\necho 'libslirp.so.0: cannot open'\nexit 127\n")
    with pytest.raises(HostError, match=r"--version ended with 127: libslirp\.so\.0: cannot open"):
        Virtio("virtio").tending(Tenders(virtio=qemu), None, Image("virtio"))


def test_an_image_larger_than_the_memory_is_refused() -> None:
    devices = {"service": "NET_BASIC", "storage": "BLOCK_BASIC"}
    with pytest.raises(ImageError, match=r"memory 64 MiB is too little: .* end at 65\.0 MiB"):
        Virtio("virtio").fit(boot(), Image("virtio", abi=1, devices=devices, end=65 << 20))
    Virtio("virtio").fit(boot(), Image("virtio", abi=1, devices=devices, end=64 << 20))


def test_without_qemu_no_guest_runs(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="is no program that can be executed"):
        Virtio("virtio").tending(Tenders(virtio=f"{tmp_path}/none"), None, Image("virtio"))
