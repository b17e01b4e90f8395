"""The hvt and spt targets: what Solo5's tenders are told, and what they would refuse."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.boot.device import BlockConfig, NetworkConfig, Nic, Volume
from mirage_hooks.boot.errors import ConfigError, HostError, ImageError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.targets.solo5 import Solo5
from mirage_hooks.boot.targets.tending import Start, Tending

MAC = "02:00:00:00:00:01"
HVT, SPT = Solo5("hvt"), Solo5("spt")
BOOT = Boot(
    target="hvt",
    image="0" * 64,
    arguments=("--ipv4=10.0.0.2/24", "--hello=a b"),
    memory=64,
    network={"service": NetworkConfig(network="public", address="10.0.0.2/24")},
    nics={"service": Nic("bridge", "br0", MAC)},
    volumes={"storage": Volume("/srv/data.img")},
)
IMAGE = Image("hvt", abi=2, devices={"storage": "BLOCK_BASIC", "service": "NET_BASIC"})


def start(path: str = "/usr/bin/solo5-hvt") -> Start:
    return Start(
        "www",
        "/proc/self/fd/100",
        Tending(path),
        IMAGE.devices,
        taps={"service": "mh0"},
        volumes={"storage": "/proc/self/fd/101"},
    )


@pytest.fixture
def tender(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes a program which says of itself what it is told."""

    def make(says: str) -> str:
        path = tmp_path / "tender"
        path.write_text(f"#!/bin/sh\nprintf '{says}\\n'\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_a_tender_is_told_memory_devices_image_and_arguments() -> None:
    program, argv = HVT.command(BOOT, start())
    assert program == "/usr/bin/solo5-hvt"
    assert argv == [
        "/usr/bin/solo5-hvt",
        "--mem=64",
        "--net:service=mh0",
        f"--net-mac:service={MAC}",
        "--block:storage=/proc/self/fd/101",
        "--",
        "/proc/self/fd/100",
        "--ipv4=10.0.0.2/24",
        '--hello="a b"',
    ]


def test_an_argument_that_looks_like_the_tenders_own_is_the_guests() -> None:
    boot = Boot(target="spt", image="0", arguments=("--mem=4096", "--net:x=eth0"))
    argv = SPT.command(boot, Start("www", "/image", Tending("/bin/spt")))[1]
    assert argv == ["/bin/spt", "--mem=32", "--", "/image", "--mem=4096", "--net:x=eth0"]


def test_a_guest_with_more_arguments_than_fit_is_not_started() -> None:
    boot = Boot(target="spt", image="0", arguments=("a" * 9000,))
    with pytest.raises(ConfigError, match="a Solo5 guest takes 8191"):
        SPT.command(boot, start())


# What the guest asks for.


def test_a_guest_cannot_have_the_hosts_sockets() -> None:
    guest = Guest(name="www", target="hvt", image="i", network={"service": NetworkConfig()})
    with pytest.raises(ConfigError) as error:
        HVT.check(guest)
    assert error.value.message == "network service: hvt has no sockets of the host's"
    assert error.value.hint == "name a network that [networks] of host.toml has"


def test_arguments_that_do_not_fit_are_found_in_the_manifest() -> None:
    guest = Guest(name="www", target="hvt", image="i", args=("a" * 9000,))
    with pytest.raises(ConfigError, match="a Solo5 guest takes 8191"):
        HVT.check(guest)


def test_a_guest_with_networks_and_volumes_is_taken() -> None:
    HVT.check(
        Guest(
            name="www",
            target="hvt",
            image="i",
            network=BOOT.network,
            block={"storage": BlockConfig("data")},
        )
    )


# What the image has.


def test_an_image_with_the_devices_that_are_configured_fits() -> None:
    HVT.fit(BOOT, IMAGE)


@pytest.mark.parametrize(
    ("devices", "message", "hint"),
    [
        (
            {"service": "NET_BASIC"},
            "devices do not match: the image has no storage",
            "the image's own: service (network); configured: service (network), storage (block)",
        ),
        (
            {**IMAGE.devices, "management": "NET_BASIC"},
            "devices do not match: management is not configured",
            "the image's own: storage (block), service (network), management (network); "
            "configured: service (network), storage (block)",
        ),
        (
            {"service": "BLOCK_BASIC", "storage": "BLOCK_BASIC"},
            "devices do not match: service is a block device, configured as network",
            "the image's own: service (block), storage (block); "
            "configured: service (network), storage (block)",
        ),
        (
            {},
            "devices do not match: the image has no service; the image has no storage",
            "the image's own: none; configured: service (network), storage (block)",
        ),
    ],
)
def test_an_image_with_other_devices_is_refused_with_both_sides_listed(
    devices: dict[str, str], message: str, hint: str
) -> None:
    with pytest.raises(ImageError) as error:
        HVT.fit(BOOT, Image("hvt", abi=2, devices=devices))
    assert (error.value.message, error.value.hint) == (message, hint)


def test_the_order_of_devices_does_not_matter() -> None:
    turned = dict(reversed(list(IMAGE.devices.items())))
    HVT.fit(BOOT, Image("hvt", abi=2, devices=turned))


# The tender.


def test_a_tender_of_the_images_abi_is_taken(tender: Callable[[str], str]) -> None:
    path = tender("solo5-spt v0.12.0\\nABI version 2")
    assert SPT.tending(Tenders(spt=path), None, Image("spt", abi=2)) == Tending(path)


def test_an_image_of_another_abi_than_the_tenders_is_refused(tender: Callable[[str], str]) -> None:
    path = tender("ABI version 2")
    with pytest.raises(HostError) as error:
        SPT.tending(Tenders(spt=path), None, Image("spt", abi=1))
    assert error.value.message == f"{path} runs images of ABI 2, this one is of ABI 1"
    assert "name it as spt in [tenders] of host.toml" in error.value.hint


def test_a_tender_that_its_user_cannot_execute_is_refused(tender: Callable[[str], str]) -> None:
    path = Path(tender("ABI version 2"))
    path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if path.owner() != "root":
        pytest.skip("only root runs a guest as another user")
    with pytest.raises(HostError, match="closed to user nobody, who has to execute it"):
        SPT.tending(Tenders(spt=str(path)), "nobody", Image("spt", abi=2))


def test_every_block_device_of_a_solo5_guest_is_opened_for_writing() -> None:
    assert HVT.writes_all
    assert SPT.writes_all
