"""A generation's devices: made before it boots, and gone once it is over."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mirage_hooks.boot import control, links, netlink, wiring
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.device import NetworkConfig, Nic, Volume
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.guest import Boot
from mirage_hooks.boot.host import Host, HostNetwork, Tenders
from mirage_hooks.boot.intent import Intent
from mirage_hooks.boot.plan import Known
from mirage_hooks.boot.process import ProcessId, boot_id
from mirage_hooks.boot.record import State
from mirage_hooks.boot.wiring import Held
from namespace import Namespace
from support import USER, past_generation, record

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs a guest as another user")
SECTOR = 512


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state folder, private and empty."""
    made = State(tmp_path)
    made.folder.mkdir(mode=0o700)
    return made


@pytest.fixture
def here(namespace: Namespace, tun: Path) -> Iterator[Namespace]:
    """A host with a bridge, of the test's own, that the test is on."""
    namespace.bridge("br0", "10.0.0.1/24")
    with namespace.entered():
        yield namespace


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume that guests may read and write."""
    path = tmp_path / "data.img"
    path.write_bytes(b"data".ljust(2 * SECTOR, b"\0"))
    path.chmod(0o666)
    return path


def generation(
    state: State,
    number: int = 1,
    guest: str = "www",
    nic: Nic | None = None,
    volume: Volume | None = None,
) -> Generation:
    """Record a generation with a network or a block device."""
    boot = Boot(
        target="hvt",
        image="a" * 64,
        user=USER,
        network={"service": NetworkConfig(network="public", dhcp=True)} if nic else {},
        nics={"service": nic} if nic else {},
        volumes={"storage": volume} if volume else {},
    )
    made = msgspec.structs.replace(
        past_generation(number, "a" * 64, "1" * 40, guest=guest), boot=boot
    )
    record(state, made)
    return made


BRIDGED = Nic("bridge", "br0", "02:00:00:00:00:01")


def attach(
    state: State, one: Generation, copies: bool = True, held: Held | None = None
) -> Path | str:
    """Attach a generation; return the link or file behind its device."""
    wires = wiring.attach(state, one, copies, held or Held())
    if wires.taps:
        return wires.taps["service"]
    return Path(wires.volumes["storage"])


def fault(state: State, one: Generation, held: Held | None = None) -> HostError:
    """Return why a generation cannot be attached."""
    with pytest.raises(HostError) as error:
        attach(state, one, held=held)
    return error.value


# Taps.


def test_a_device_on_a_bridge_gets_a_tap_in_it(state: State, here: Namespace) -> None:
    name = attach(state, generation(state, nic=BRIDGED))
    tap, bridge = netlink.find(str(name)), netlink.find("br0")
    assert tap is not None
    assert bridge is not None
    assert (tap.tap, tap.up, tap.master) == (True, True, bridge.index)


def test_a_tap_is_known_by_installation_guest_and_generation(state: State, here: Namespace) -> None:
    tap = netlink.find(str(attach(state, generation(state, 7, nic=BRIDGED))))
    assert tap is not None
    assert tap.alias == f"mirage-hooks:{state.installation}:www:7"


@as_root
def test_a_tap_is_the_guests_users(state: State, here: Namespace) -> None:
    tap = netlink.find(str(attach(state, generation(state, nic=BRIDGED))))
    assert tap is not None
    assert tap.owner == 65534


def test_generations_have_taps_of_their_own(state: State, here: Namespace) -> None:
    one, two = (attach(state, generation(state, number, nic=BRIDGED)) for number in (1, 2))
    assert one != two


@as_root
def test_a_host_whose_taps_are_closed_to_the_guests_user_is_refused(
    state: State, here: Namespace, tun: Path
) -> None:
    tun.chmod(0o600)
    error = fault(state, generation(state, nic=BRIDGED))
    assert error.message == f"{tun} is closed to user {USER}, who has to read and write it"
    assert error.hint == f"run as root: chmod 666 {tun}, as udev does"


def test_a_bridge_that_is_missing_leaves_nothing_behind(state: State, here: Namespace) -> None:
    assert (
        "bridge br9 does not exist"
        in fault(state, generation(state, nic=Nic("bridge", "br9"))).message
    )
    assert here.links() == ["br0"]


def test_a_tap_that_was_made_beforehand_is_taken_as_it_is(state: State, here: Namespace) -> None:
    here.tap("tap0", "br0", str(USER))
    assert attach(state, generation(state, nic=Nic("tap", "tap0"))) == "tap0"


def test_a_tap_that_was_not_made_beforehand_is_not_made(state: State, here: Namespace) -> None:
    assert (
        "tap tap0 does not exist" in fault(state, generation(state, nic=Nic("tap", "tap0"))).message
    )
    assert here.links() == ["br0"]


def test_qemus_own_network_needs_no_link(state: State, here: Namespace) -> None:
    wires = wiring.attach(state, generation(state, nic=Nic("user")), False, Held())
    assert (wires.taps, here.links()) == ({}, ["br0"])


# What is left is taken away.


def known(*generations: Generation, live: Generation | None = None) -> dict[str, Known]:
    return {"www": Known(generations, live)}


def test_the_taps_of_what_is_over_are_taken_away(state: State, here: Namespace) -> None:
    old, new = (generation(state, number, nic=BRIDGED) for number in (1, 2))
    attach(state, old)
    kept = attach(state, new)
    wiring.sweep(state, Host(branch="main"), known(old, new, live=new))
    assert here.links() == sorted(["br0", str(kept)])


def in_domain(state: State, boot: str) -> Known:
    """Record a stopped guest of target xen, whose monitor was of that boot of the kernel."""
    one = past_generation(1, "a" * 64, "1" * 40, guest="domain")
    one = msgspec.structs.replace(one, boot=Boot(target="xen", image="a" * 64))
    record(state, one)
    folder = state.generation_folder(one.guest, one.number)
    ended = MonitorState("stopped", ProcessId(boot, 1, 1), None, "")
    control.write_json(str(folder / control.STATE), control.state_to(ended))
    return Known((one,), intent=Intent("held", 0.0))


WITHOUT_XL = Host(branch="main", tenders=Tenders(xen="/nowhere/xl"))


def test_taps_are_taken_away_where_xl_fails(state: State, here: Namespace) -> None:
    old = generation(state, nic=BRIDGED)
    attach(state, old)
    with pytest.raises(HostError, match="/nowhere/xl"):
        wiring.sweep(state, WITHOUT_XL, {**known(old), "domain": in_domain(state, boot_id())})
    assert here.links() == ["br0"]


def test_xl_is_not_asked_for_domains_that_the_hosts_boot_has_ended(state: State) -> None:
    wiring.sweep(state, WITHOUT_XL, {"domain": in_domain(state, "an earlier one")})


def test_links_of_others_are_left_alone(state: State, here: Namespace) -> None:
    here.tap("mh0123456789ab", "br0")
    here.run("ip", "link", "set", "mh0123456789ab", "alias", "mirage-hooks:0123456789ab:www:1")
    wiring.sweep(state, Host(branch="main"), known(generation(state, nic=BRIDGED)))
    assert here.links() == ["br0", "mh0123456789ab"]


def test_copies_of_what_is_over_are_taken_away(state: State, volume: Path) -> None:
    one = Volume(str(volume), readonly=True)
    old, new = (generation(state, number, volume=one) for number in (1, 2))
    gone, kept = Path(attach(state, old)), Path(attach(state, new))
    wiring.sweep(state, Host(branch="main"), known(old, new, live=new))
    assert (gone.exists(), kept.exists(), volume.exists()) == (False, True, True)


# Bridges that are ours.


def bound(**networks: HostNetwork) -> Host:
    return Host("main", networks=networks)


def test_a_bridge_of_ours_is_made_with_its_address(state: State, here: Namespace) -> None:
    ours = HostNetwork(bridge="br1", create=True, address="10.1.0.1/24")
    wiring.make_bridge(state, bound(ours=ours), "ours")
    bridge = links.require_bridge("br1")
    assert (bridge.up, [str(one) for one in bridge.addresses]) == (True, ["10.1.0.1/24"])


@pytest.mark.parametrize("network", ["public", "ready", "inside", "gone"])
def test_no_other_bridge_is_made(state: State, here: Namespace, network: str) -> None:
    networks = {
        "public": HostNetwork(bridge="br1"),
        "ready": HostNetwork(tap="tap0"),
        "inside": HostNetwork(user=True),
    }
    wiring.make_bridge(state, bound(**networks), network)
    assert here.links() == ["br0"]


# Volumes.


def test_a_volume_is_given_as_it_is(state: State, volume: Path) -> None:
    assert attach(state, generation(state, volume=Volume(str(volume)))) == volume


def test_a_tender_that_writes_all_gets_a_copy_of_what_is_only_read(
    state: State, volume: Path
) -> None:
    copy = Path(attach(state, generation(state, volume=Volume(str(volume), readonly=True))))
    assert copy != volume
    assert copy.read_bytes() == volume.read_bytes()


def test_a_tender_that_can_only_read_gets_no_copy(state: State, volume: Path) -> None:
    one = generation(state, volume=Volume(str(volume), readonly=True))
    assert attach(state, one, copies=False) == volume


@as_root
def test_a_copy_is_the_guests_users_alone(state: State, volume: Path) -> None:
    volume.chmod(0o600)
    copy = Path(attach(state, generation(state, volume=Volume(str(volume), readonly=True))))
    assert (copy.owner(), copy.stat().st_mode & 0o777) == (USER, 0o600)


def test_generations_have_copies_of_their_own(state: State, volume: Path) -> None:
    one = Volume(str(volume), readonly=True)
    copies = {attach(state, generation(state, number, volume=one)) for number in (1, 2)}
    assert len(copies) == 2


@as_root
def test_what_is_copied_by_root_is_not_chosen_by_the_guests_user(
    state: State, volume: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.chown(theirs, USER or "nobody")
    link = theirs / "disk.img"
    link.symlink_to(volume)
    error = fault(state, generation(state, volume=Volume(str(link), readonly=True)))
    assert f"volume {link} is not copied for user {USER}" in error.message
    assert error.hint == "keep it in a folder that nobody but root may write"


def test_no_copy_is_made_of_what_a_guest_that_runs_writes(state: State, volume: Path) -> None:
    one = generation(state, volume=Volume(str(volume), readonly=True))
    error = fault(state, one, Held(written=frozenset({str(volume)})))
    assert "the copy would be torn" in error.message
    assert error.hint == "stop that one first: mirage-hooks stop GUEST"


@as_root
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_volume_that_is_closed_to_the_guests_user_is_refused(
    state: State, volume: Path, mode: int
) -> None:
    volume.chmod(mode)
    error = fault(state, generation(state, volume=Volume(str(volume))))
    assert error.message.startswith(f"{volume} is closed to user {USER}, who has to ")
    assert error.hint == f"run as root: chown {USER} {volume}"


@as_root
def test_what_is_only_read_has_to_be_open_for_that_alone(state: State, volume: Path) -> None:
    volume.chmod(0o644)
    one = generation(state, volume=Volume(str(volume), readonly=True))
    assert attach(state, one, copies=False) == volume


def test_a_volume_that_is_missing_is_refused_with_how_to_have_it(
    state: State, tmp_path: Path
) -> None:
    path = tmp_path / "my data.img"
    error = fault(state, generation(state, volume=Volume(str(path))))
    assert error.message == f"volume {path} does not exist"
    assert error.hint == f"such as: truncate --size=16M '{path}'"


def test_a_volume_that_is_empty_is_refused(state: State, volume: Path) -> None:
    os.truncate(volume, 0)
    assert fault(state, generation(state, volume=Volume(str(volume)))).message == (
        f"volume {volume} is empty"
    )


@pytest.mark.parametrize("size", [1, SECTOR - 1, SECTOR + 1])
def test_a_volume_that_is_not_of_whole_sectors_is_refused_with_what_mends_it(
    state: State, volume: Path, size: int
) -> None:
    os.truncate(volume, size)
    error = fault(state, generation(state, volume=Volume(str(volume))))
    assert error.message.endswith(f"has {size} bytes: not a number of whole sectors of {SECTOR}")
    assert error.hint == f"run: truncate --size=%{SECTOR} {volume}"


# One that is opened would wait for a writer for ever.
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device"])
def test_what_is_no_volume_is_refused(state: State, tmp_path: Path, kind: str) -> None:
    path = {"a folder": tmp_path, "a pipe": tmp_path / "pipe", "a device": Path("/dev/null")}[kind]
    if kind == "a pipe":
        os.mkfifo(path)
    assert fault(state, generation(state, volume=Volume(str(path)))).message == (
        f"volume {path} is neither a file nor a block device"
    )
