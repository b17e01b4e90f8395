"""Whatever a manifest says of devices: a guest that every later step can do with, or a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot import binding, description, manifest, network, targets
from mirage_hooks.boot.errors import Error
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.host import Host, HostNetwork, HostVolume, Limits
from mirage_hooks.boot.targets.tending import Start, Tending
from strategies import VALUES, Objects, assert_told, examples, toml
from support import USER

INSTALLATION = "0" * 12
HOST = Host(
    "main",
    user=USER,
    limits=Limits(targets=("unix", "hvt", "spt", "virtio")),
    networks={
        "public": HostNetwork(bridge="br0"),
        "ready": HostNetwork(tap="tap0"),
        "inside": HostNetwork(user=True, forward=("127.0.0.1:1:1", "udp:127.0.0.1:1:1")),
    },
    volumes={"data": HostVolume("/srv/data.img")},
)

ADDRESSES = st.sampled_from(
    [
        *("10.0.0.2/24", "10.0.0.2/29", "10.0.0.2/30", "10.0.0.1/31", "10.9.9.9/32", "10.0.0.2/3"),
        *("fd00::2/64", "fd00::/127", "10.0.0.2", "10.0.0.2/255.255.255.0"),
    ]
)
GATEWAYS = st.sampled_from(["10.0.0.1", "10.0.0.2", "fe80::1", "fd00::1", "10.0.0.6"])
NETWORKS = st.fixed_dictionaries(
    {"network": st.sampled_from(["host", "public", "ready", "inside"])},
    optional={
        "address": ADDRESSES | st.lists(ADDRESSES, max_size=2),
        "gateway": GATEWAYS | st.lists(GATEWAYS, max_size=2),
        "mac": st.sampled_from(["02:00:00:00:00:01", "FE:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"]),
        "group": st.sampled_from(["private", "a b"]),
    },
)
TRIPLES = st.fixed_dictionaries(
    {"network": st.sampled_from(["public", "inside"])},
    optional={
        "ADDR": st.just("10.0.0.2") | VALUES,
        "MASK": st.just("255.255.255.0") | VALUES,
        "GWS": GATEWAYS | VALUES,
    },
)
NAMES = st.sampled_from(["service", "storage", "a-b"]) | st.text(max_size=3)
GUESTS = st.fixed_dictionaries(
    {"target": st.sampled_from(targets.known()), "image": st.just("image")},
    optional={
        "network": st.dictionaries(NAMES, NETWORKS | TRIPLES, max_size=2) | VALUES,
        "block": st.dictionaries(
            NAMES,
            st.fixed_dictionaries({"volume": st.just("data")}, optional={"readonly": VALUES}),
            max_size=2,
        )
        | VALUES,
        "mirage": st.sampled_from(["2.6", "2.7", "3.0", "3.10", "4.0"]),
        "args": st.lists(
            st.sampled_from(["--ipv4=1", "--interface=x", "--port=80", "--port=99999999", "a b"]),
            max_size=2,
        ),
        "check": st.just({"ping": True}),
    },
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """A repository whose objects are written by hand."""
    return Objects(tmp_path_factory.mktemp("repository") / "bare.git")


def test_any_devices_are_those_of_a_guest_that_can_be_booted_or_refused(objects: Objects) -> None:
    @examples(150)
    @given(GUESTS)
    def property_holds(table: dict[str, object]) -> None:
        revision = objects.files({description.NAME: toml({"guest": {"www": table}}).encode()})
        try:
            guest = manifest.read_guests(revision, HOST)["www"]
        except Error as error:
            assert_told(error)
        else:
            boots(guest)

    property_holds()


def boots(guest: Guest) -> None:
    """Do with a guest what a deploy does, but for what changes the host."""
    target = targets.of(guest)
    boot = Boot(
        target=guest.target,
        image="0" * 64,
        arguments=target.arguments(guest),
        network=guest.network,
        nics=binding.nics(guest, HOST, INSTALLATION),
        volumes=binding.volumes(guest, HOST),
    )
    binding.admit(boot, HOST)
    kinds = dict.fromkeys(boot.nics, "NET_BASIC") | dict.fromkeys(boot.volumes, "BLOCK_BASIC")
    taps = {device: "mh0" for device, nic in boot.nics.items() if nic.kind != "user"}
    volumes = dict.fromkeys(boot.volumes, "/proc/self/fd/101")
    start = Start(guest.name, "/proc/self/fd/100", Tending("/tender"), kinds, taps, volumes)
    _, argv = target.command(boot, start)
    assert all(argument.isprintable() for argument in argv)
    assert network.configured(boot, taps)
    assert len(network.endpoints(boot)) <= 2
