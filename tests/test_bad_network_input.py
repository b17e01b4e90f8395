"""Bad input about networks and devices: one clear message, an exit code, and nothing touched."""

from pathlib import Path

import pytest

from guests_built import BuiltTarget
from networked import BRIDGE, NetSite, each_target, on, untouched
from support import wait_for

# The image.

OTHERS: dict[str, BuiltTarget] = {"unix": "spt", "spt": "hvt", "hvt": "virtio", "virtio": "spt"}


@each_target
def test_an_image_for_another_target_is_refused(running: NetSite) -> None:
    other = OTHERS[running.target]
    running.publish(image=running.built.image(other).read_bytes())
    what = f"image www.{running.target} is for target {other}, the guest for {running.target}"
    untouched(running, 3, what)


@on("spt", "hvt")
def test_an_abi_that_the_tender_does_not_run_is_refused(running: NetSite) -> None:
    running.publish(image=running.built.image(running.target, abi=1).read_bytes())
    untouched(running, 6, "runs images of ABI 2, this one is of ABI 1", "Solo5 0.8 and later")


@on("spt", "virtio")
@pytest.mark.parametrize(
    ("devices", "table", "words"),
    [
        (
            {"service": "NET_BASIC", "storage": "BLOCK_BASIC"},
            "",
            [
                "devices do not match: storage is not configured",
                "the image's own: service (network), storage (block)",
                "configured: service (network)",
            ],
        ),
        (
            {"service": "NET_BASIC"},
            '[guest.www.block.storage]\nvolume = "data"',
            ["devices do not match: the image has no storage"],
        ),
        (
            {"service": "NET_BASIC", "storage": "NET_BASIC"},
            '[guest.www.block.storage]\nvolume = "data"',
            ["devices do not match: storage is a network device, configured as block"],
        ),
    ],
    ids=["unbound", "extra", "mistyped"],
)
def test_devices_that_are_not_the_images_are_refused(
    running: NetSite, devices: dict[str, str], table: str, words: list[str]
) -> None:
    running.tell_host(volumes={"data": {"path": "/dev/zero"}})
    running.tables = table
    running.publish(image=running.built.image(running.target, devices=devices).read_bytes())
    untouched(running, 5, *words)


# The host's network.


@on("spt")
def test_a_bridge_that_is_missing_is_refused(running: NetSite) -> None:
    running.bind({"bridge": "br-none"})
    running.publish("two")
    untouched(running, 6, "network: bridge br-none does not exist", "`create = true`")


@on("spt")
def test_what_is_no_bridge_is_refused(running: NetSite) -> None:
    running.host.tap("theirs")
    running.bind({"bridge": "theirs"})
    running.publish("two")
    untouched(running, 6, "network: theirs is no bridge, but a tap")


@on("spt")
def test_a_bridge_of_somebody_elses_is_not_taken_for_ours(running: NetSite) -> None:
    running.host.bridge("br-theirs")
    running.bind({**BRIDGE, "bridge": "br-theirs"})
    running.publish("two")
    untouched(running, 6, "network: br-theirs exists already, and was not made for this repository")


@on("spt")
@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("missing", ["network: tap tap0 does not exist", "ip tuntap add dev tap0"]),
        ("down", ["network: tap tap0 is down", "ip link set dev tap0 up"]),
        ("busy", ["network: tap tap0 is in use by another process"]),
        ("roots", ["tap tap0 cannot be opened by nobody", "ip tuntap add dev tap0"]),
        ("bridge", ["network: tap0 is no tap"]),
    ],
)
def test_a_tap_that_does_not_serve_is_refused(
    running: NetSite, state: str, words: list[str], tmp_path: Path
) -> None:
    if state == "bridge":
        running.host.bridge("tap0")
    elif state != "missing":
        running.host.tap("tap0", user="root" if state == "roots" else "nobody")
    if state == "down":
        running.host.run("ip", "link", "set", "tap0", "down")
    if state == "busy":
        image = running.built.image("unix")
        running.host.popen(image, "--interface=tap0", console=tmp_path / "busy")
        wait_for(lambda: running.link("tap0", "carrier") == "1")
    running.bind({"tap": "tap0"})
    running.publish("two")
    untouched(running, 6, *words)


@on("spt")
def test_a_network_that_the_host_does_not_bind_is_refused(running: NetSite) -> None:
    running.tell_host(networks={})
    running.publish("two")
    untouched(running, 3, "'public' is not bound on this host", "[networks.public]")


@on("spt")
@pytest.mark.parametrize(
    ("device", "words"),
    [
        ('address = "10.0.0.2"', "address '10.0.0.2' has no prefix"),
        ('address = "10.0.0.0/24"', "10.0.0.0 is that of the network"),
        ('address = "10.0.0.2/24"\ngateway = "10.0.1.1"', "gateway 10.0.1.1 is not on"),
    ],
)
def test_an_address_that_cannot_be_is_refused(running: NetSite, device: str, words: str) -> None:
    running.device = device
    running.publish("two")
    untouched(running, 3, "guest www", words)


@on("spt")
@pytest.mark.parametrize(
    ("device", "words"),
    [
        ('address = "10.0.0.2/24"', "have one address 10.0.0.2 on br0"),
        (
            'address = "10.0.0.3/24"\nmac = "02:00:00:00:00:07"',
            "have one mac 02:00:00:00:00:07 on br0",
        ),
    ],
)
def test_two_guests_with_one_address_are_refused(running: NetSite, device: str, words: str) -> None:
    running.device = 'address = "10.0.0.2/24"\nmac = "02:00:00:00:00:07"'
    running.more = running.table("other", device, [], "ping = true")
    running.publish("two")
    untouched(running, 3, f"guests www and other {words}")
