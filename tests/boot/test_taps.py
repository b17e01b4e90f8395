"""Taps: made as a guest needs them, known by their alias alone, gone with what they were for."""

import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
from pyroute2 import Ethtool

from mirage_hooks.boot import links, netlink, taps
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.netlink import Link
from namespace import Namespace
from rights import without_right

INSTALLATION = "0123456789ab"
NOBODY = 65534
DAEMON = 1
NAME = links.tap_name(INSTALLATION, "www", 7, "service")
ALIAS = links.tap_alias(INSTALLATION, "www", 7)
NET_ADDR_SET = "3"  # linux/netdevice.h


@pytest.fixture
def host(namespace: Namespace) -> Iterator[Namespace]:
    """A host with a bridge, of the test's own, that the test is on."""
    namespace.bridge("br-test", "10.0.0.1/24")
    with namespace.entered():
        yield namespace


def add(generation: int = 7, guest: str = "www", installation: str = INSTALLATION) -> str:
    """Add a tap for a generation; return its name."""
    name = links.tap_name(installation, guest, generation, "service")
    alias = links.tap_alias(installation, guest, generation)
    taps.add_tap(name, "br-test", NOBODY, alias)
    return name


def find(name: str) -> Link:
    link = netlink.find(name)
    assert link is not None
    return link


@contextmanager
def attached(name: str) -> Iterator[int]:
    """Open a tap as a tender does (tap_attach() in Solo5's tenders/common)."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
        yield tun
    finally:
        os.close(tun)


def frames(tun: int, seconds: float) -> list[bytes]:
    """Return what the host says on a tap within a time."""
    time.sleep(seconds)
    heard = []
    while True:
        try:
            heard.append(os.read(tun, 65536))
        except BlockingIOError:
            return heard


def large_frames(name: str) -> set[str]:
    """Return what is on of all that has the kernel hand on more than one frame as one."""
    with Ethtool() as ethtool:
        features = ethtool.get_features(name).features
    return {
        name
        for name, feature in features.items()
        if feature.enable and ("gro" in name or "segmentation" in name)
    }


# Taps that we make.


def test_a_tap_is_made_as_a_guest_needs_it(host: Namespace) -> None:
    add()
    link, bridge = find(NAME), find("br-test")
    assert (link.tap, link.up, link.owner, link.alias) == (True, True, NOBODY, ALIAS)
    assert link.master == bridge.index


def test_a_tap_is_there_until_it_is_removed_and_is_not_in_use(host: Namespace) -> None:
    add()
    details = host.run("ip", "-details", "link", "show", "dev", NAME).stdout
    assert "persist on" in details
    assert "vnet_hdr off" in details
    assert "multi_queue" not in details
    assert not find(NAME).carrier


def test_a_tap_hands_on_no_frame_that_a_guest_could_not_hold(host: Namespace) -> None:
    host.tap("tap-plain")
    assert large_frames("tap-plain") != set()
    add()
    assert large_frames(NAME) == set()


def test_offloads_stay_off_when_a_tender_opens_the_tap(host: Namespace) -> None:
    add()
    with attached(NAME):
        assert large_frames(NAME) == set()


def test_the_host_says_nothing_on_a_tap_by_itself(host: Namespace) -> None:
    host.run("ip", "link", "set", "br-test", "down")
    add()
    with attached(NAME) as tun:
        # A link that has its own address announces it several times within its first second.
        assert frames(tun, 1.5) == []


def test_a_guest_on_a_tap_reaches_the_host(host: Namespace) -> None:
    add()
    mac = bytes.fromhex("021122334455")
    ask = bytes.fromhex("0806 0001 0800 0604 0001") + mac + bytes([10, 0, 0, 2])
    with attached(NAME) as tun:
        os.write(tun, b"\xff" * 6 + mac + ask + bytes(6) + bytes([10, 0, 0, 1]))
        answers = [frame for frame in frames(tun, 0.2) if frame[12:14] == b"\x08\x06"]
    assert answers[0][22:28].hex(":") == links.require_bridge("br-test").mac


def test_a_bridge_keeps_its_mac_when_its_ports_change(host: Namespace) -> None:
    mac = links.require_bridge("br-test").mac
    add()
    assert host.run("cat", "/sys/class/net/br-test/addr_assign_type").stdout.strip() == NET_ADDR_SET
    host.run("ip", "link", "add", "low", "address", "02:00:00:00:00:01", "type", "veth")
    host.run("ip", "link", "set", "low", "master", "br-test")
    taps.sweep(INSTALLATION, [])
    assert links.require_bridge("br-test").mac == mac


def test_a_tap_that_an_earlier_try_left_is_made_anew(host: Namespace) -> None:
    add()
    host.run("ip", "link", "set", NAME, "nomaster", "down")
    add()
    link = find(NAME)
    assert (link.up, link.master) == (True, find("br-test").index)


def test_a_tap_in_use_is_not_taken(host: Namespace) -> None:
    add()
    with attached(NAME), pytest.raises(HostError, match=f"tap {NAME} is in use") as caught:
        add()
    assert NAME in caught.value.hint
    assert find(NAME).up


@pytest.mark.parametrize(
    "alias", ["", "theirs", links.tap_alias(INSTALLATION, "www", 8), links.bridge_alias(ALIAS)]
)
def test_a_tap_with_our_name_and_another_alias_is_left_as_it_is(
    host: Namespace, alias: str
) -> None:
    host.tap(NAME, user="nobody")
    host.run("ip", "link", "set", NAME, "alias", alias)
    before = find(NAME)
    with pytest.raises(HostError, match=f"{NAME} exists already"):
        add()
    assert find(NAME) == before


def test_another_users_tap_is_not_taken(host: Namespace) -> None:
    host.tap(NAME, user="daemon")
    host.run("ip", "link", "set", NAME, "alias", ALIAS)
    with pytest.raises(HostError, match=f"{NAME} exists already"):
        add()


def test_a_link_of_another_kind_is_not_taken(host: Namespace) -> None:
    host.run("ip", "link", "add", NAME, "type", "veth")
    host.run("ip", "link", "set", NAME, "alias", ALIAS)
    with pytest.raises(HostError, match=f"{NAME} exists already"):
        add()


def test_a_tap_that_somebody_makes_meanwhile_is_not_taken(host: Namespace) -> None:
    host.tap(NAME, user="daemon")
    before = find(NAME)
    with pytest.raises(OSError, match="busy"), netlink.new_tap(NAME, NOBODY):
        pass
    assert find(NAME) == before


def test_a_missing_bridge_is_told_and_no_tap_is_made(host: Namespace) -> None:
    with pytest.raises(HostError, match="bridge br-none does not exist"):
        taps.add_tap(NAME, "br-none", NOBODY, ALIAS)
    assert host.links() == ["br-test"]


def test_a_tap_that_fails_half_way_is_gone(
    host: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove_bridge_first(name: str) -> None:
        assert find(name).alias == ALIAS
        netlink.remove(find("br-test").index)

    monkeypatch.setattr(netlink, "switch_off_offloads", remove_bridge_first)
    with pytest.raises(HostError, match=f"cannot make tap {NAME} on bridge br-test"):
        add()
    assert host.links() == []


def test_a_tap_goes_with_its_maker_where_that_is_killed(host: Namespace) -> None:
    pid = os.fork()
    if pid == 0:
        with netlink.new_tap(NAME, NOBODY):
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert host.links() == ["br-test"]


def test_taps_are_made_side_by_side(host: Namespace) -> None:
    def make(generation: int) -> None:
        with host.entered():
            add(generation)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(host.links()) == 6


def test_without_the_right_it_is_said_what_root_would_run_and_what_else_helps(
    host: Namespace,
) -> None:
    told = without_right(host, f"taps.add_tap('{NAME}', 'br-test', {NOBODY}, '{ALIAS}')")
    assert told == (
        f"network: no right to make tap {NAME} on bridge br-test\n"
        "  run once as root: ip tuntap add dev tap-www mode tap user nobody"
        " && ip link set dev tap-www addrgenmode none"
        " && ethtool -K tap-www gro off gso off"
        " && ip link set dev tap-www master br-test up"
        '; then write `tap = "tap-www"` for the network in host.toml'
        f"; or give the right to {taps.HELPER}: its documentation says how"
    )
    assert host.links() == ["br-test"]


# Taps that root has made.


@pytest.mark.parametrize("user", ["nobody", "daemon"])
def test_root_may_use_anybodys_tap(host: Namespace, user: str) -> None:
    host.tap("tap-www", "br-test", user=user)
    taps.require_tap("tap-www", 0, held=False)


def test_a_user_may_use_their_own_tap(host: Namespace) -> None:
    host.tap("tap-www", "br-test", user="nobody")
    taps.require_tap("tap-www", NOBODY, held=False)


def test_a_user_may_use_a_tap_of_nobody_in_particular(host: Namespace) -> None:
    host.run("ip", "tuntap", "add", "tap-www", "mode", "tap")
    host.run("ip", "link", "set", "tap-www", "up")
    taps.require_tap("tap-www", NOBODY, held=False)


def test_what_root_would_run_makes_a_tap_that_serves(host: Namespace) -> None:
    with pytest.raises(HostError, match="tap tap-www does not exist") as caught:
        taps.require_tap("tap-www", NOBODY, held=False)
    commands = caught.value.hint.removeprefix("run as root: ").replace("BRIDGE", "br-test")
    without_ethtool = [one for one in commands.split(" && ") if not one.startswith("ethtool")]
    host.run("sh", "-c", " && ".join(without_ethtool))
    taps.require_tap("tap-www", NOBODY, held=False)


@pytest.mark.parametrize("user", ["daemon", "root"])
def test_another_users_tap_does_not_serve(host: Namespace, user: str) -> None:
    host.tap("tap-www", "br-test", user=user)
    with pytest.raises(HostError, match="tap tap-www cannot be opened by nobody"):
        taps.require_tap("tap-www", NOBODY, held=False)


@pytest.mark.parametrize(("group", "serves"), [("nogroup", True), ("daemon", False)])
def test_a_tap_of_a_group_serves_who_is_in_it(host: Namespace, group: str, serves: bool) -> None:
    host.run("ip", "tuntap", "add", "tap-www", "mode", "tap", "group", group)
    host.run("ip", "link", "set", "tap-www", "up")
    with nullcontext() if serves else pytest.raises(HostError, match="cannot be opened by nobody"):
        taps.require_tap("tap-www", NOBODY, held=False)


def test_a_tap_that_is_down_does_not_serve(host: Namespace) -> None:
    host.tap("tap-www", "br-test", user="nobody")
    host.run("ip", "link", "set", "tap-www", "down")
    with pytest.raises(HostError, match="tap tap-www is down"):
        taps.require_tap("tap-www", NOBODY, held=False)


def test_a_tap_in_use_does_not_serve(host: Namespace) -> None:
    host.tap("tap-www", "br-test", user="nobody")
    with attached("tap-www"), pytest.raises(HostError, match="tap tap-www is in use"):
        taps.require_tap("tap-www", NOBODY, held=False)


def test_a_tap_in_use_serves_where_its_own_guest_still_has_it(host: Namespace) -> None:
    host.tap("tap-www", "br-test", user="nobody")
    with attached("tap-www"):
        taps.require_tap("tap-www", NOBODY, held=True)


def test_a_tap_that_is_let_go_serves_again(host: Namespace) -> None:
    host.tap("tap-www", "br-test", user="nobody")
    with attached("tap-www"):
        pass
    taps.require_tap("tap-www", NOBODY, held=False)


@pytest.mark.parametrize("arguments", [["tuntap", "add", "other", "mode", "tun"]])
def test_what_is_no_tap_does_not_serve(host: Namespace, arguments: list[str]) -> None:
    host.run("ip", *arguments)
    with pytest.raises(HostError, match="other is no tap"):
        taps.require_tap("other", NOBODY, held=False)


# Taps that go.


def test_taps_of_ended_generations_are_removed(host: Namespace) -> None:
    old, live = add(6), add(7)
    assert taps.sweep(INSTALLATION, [ALIAS]) == [old]
    assert host.links() == sorted(["br-test", live])


def test_a_stale_tap_is_removed_whatever_its_name_is_now(host: Namespace) -> None:
    add()
    host.run("ip", "link", "set", NAME, "down")
    host.run("ip", "link", "set", NAME, "name", "renamed")
    assert taps.sweep(INSTALLATION, []) == ["renamed"]


def test_nothing_but_taps_of_the_installation_is_removed(host: Namespace) -> None:
    add(installation="ba9876543210")
    host.tap("mh0123456789ab")
    host.tap("tap-theirs")
    host.run("ip", "link", "set", "tap-theirs", "alias", "theirs")
    host.run("ip", "link", "set", "br-test", "alias", ALIAS)
    host.run("ip", "tuntap", "add", "tun-theirs", "mode", "tun")
    host.run("ip", "link", "set", "tun-theirs", "alias", ALIAS)
    before = host.links()
    assert taps.sweep(INSTALLATION, []) == []
    assert host.links() == before


def test_sweeping_where_nothing_is_stale_asks_nothing_of_the_kernel(host: Namespace) -> None:
    add()
    statement = f"print(taps.sweep('{INSTALLATION}', ['{ALIAS}'])); import sys"
    loaded = f"{statement}; print('pyroute2' in sys.modules)"
    assert without_right(host, loaded) == "[]\nFalse\n"


def test_without_the_right_stale_taps_are_named_with_what_root_would_run(host: Namespace) -> None:
    add()
    assert without_right(host, f"taps.sweep('{INSTALLATION}', [])") == (
        "network: no right to remove the taps of ended guests\n"
        f"  run as root: ip link delete dev {NAME}"
    )
    assert NAME in host.links()
