"""What is seen of a generation's network while it boots, and where its guest is to be found."""

from pathlib import Path

import pytest

from mirage_hooks.boot.device import NetworkConfig, Nic
from mirage_hooks.boot.guest import Boot
from mirage_hooks.boot.health import Reachable
from mirage_hooks.boot.watch import Watch
from namespace import Namespace

MAC = "02:00:00:00:00:02"
SAID = f"[tcpip-stack-direct] Dual TCP/IP stack assembled: mac={MAC},ip=10.0.0.9/24"
STATIC = NetworkConfig(network="public", address="10.0.0.2/24")
DHCP = NetworkConfig(network="public", dhcp=True)


def boot(**network: NetworkConfig) -> Boot:
    nics = {device: Nic("bridge", "br0", MAC) for device in network}
    return Boot(target="spt", image="a" * 64, network=dict(network), nics=nics)


@pytest.fixture
def silent(tmp_path: Path) -> str:
    """A console on which nothing of a network was said."""
    path = tmp_path / "console.log"
    path.write_text("2026-11-23T04:00:00.000Z up\n")
    return str(path)


@pytest.fixture
def telling(tmp_path: Path) -> str:
    """A console on which a stack has said its address."""
    path = tmp_path / "console.log"
    path.write_text(f"2026-11-23T04:00:00.000Z {SAID}\n")
    return str(path)


@pytest.fixture
def tap(namespace: Namespace) -> Namespace:
    """A host with a tap that may be watched."""
    namespace.bridge("br0")
    namespace.tap("tap0", "br0")
    return namespace


def test_a_guest_is_to_be_found_where_it_was_told_to_be(silent: str) -> None:
    watch = Watch(boot(service=STATIC), {"service": "none"})
    assert watch.reachable(silent) == [Reachable("none", MAC, "10.0.0.2")]


def test_a_guest_that_was_told_no_address_is_to_be_found_where_it_said(telling: str) -> None:
    watch = Watch(boot(service=DHCP), {"service": "none"})
    assert watch.reachable(telling) == [Reachable("none", MAC, "10.0.0.9")]


def test_a_guest_that_has_said_nothing_yet_is_nowhere_to_be_found(silent: str) -> None:
    assert Watch(boot(service=DHCP), {"service": "none"}).reachable(silent) == []


def test_what_a_late_watch_has_missed_is_not_known_any_more(tap: Namespace, silent: str) -> None:
    with tap.entered():
        watch = Watch(boot(service=DHCP), {"service": "tap0"}, late=True)
        assert not watch.blind
        assert watch.reachable(silent) is None
        watch.close()


def test_a_late_watch_without_the_right_to_look_asks_nobody(silent: str) -> None:
    watch = Watch(boot(service=STATIC), {"service": "none"}, late=True)
    assert watch.blind
    assert watch.reachable(silent) is None


def test_nothing_is_told_of_a_device_that_nothing_could_be_seen_of(silent: str) -> None:
    watch = Watch(boot(service=STATIC), {"service": "none"})
    assert list(watch.observations(silent, 0.0)) == []


def test_what_a_guest_said_on_its_console_is_told(telling: str) -> None:
    (one,) = Watch(boot(service=STATIC), {"service": "none"}).observations(telling, 0.0)
    assert one.addresses == (f"10.0.0.9/24 at {MAC}",)
    assert one.warning is not None
    assert "10.0.0.9 was observed, and not configured" in one.warning


def test_a_console_is_no_word_on_one_of_several_devices(telling: str) -> None:
    described = boot(front=STATIC, back=NetworkConfig(network="inside", baked=True))
    watch = Watch(described, {"front": "none", "back": "none"})
    assert list(watch.observations(telling, 0.0)) == []
