"""What of the host a guest's devices are bound to, and what two guests cannot both have."""

from pathlib import Path

import pytest

from mirage_hooks.boot import binding, host
from mirage_hooks.boot.device import BlockConfig, NetworkConfig, Nic, Volume
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Boot, Check, Domain, Guest, Target
from mirage_hooks.boot.host import Host, HostNetwork, HostVolume

HERE, OTHER = "0" * 12, "1" * 12
MAC = "02:00:00:00:00:01"
HOST = Host(
    "main",
    networks={
        "public": HostNetwork(bridge="br0"),
        "same": HostNetwork(bridge="br0"),
        "ours": HostNetwork(bridge="br1", create=True, address="10.0.0.1/24"),
        "ready": HostNetwork(tap="tap0"),
        "inside": HostNetwork(user=True, forward=("127.0.0.1:8080:80", "udp:127.0.0.1:53:53")),
    },
    volumes={"data": HostVolume("/srv/data.img")},
)


def on(
    network: str = "public", address: str | None = None, mac: str | None = None
) -> NetworkConfig:
    return NetworkConfig(network=network, address=address, dhcp=address is None, mac=mac)


def guest(
    target: Target = "hvt",
    name: str = "www",
    check: Check | None = None,
    block: dict[str, BlockConfig] | None = None,
    **network: NetworkConfig,
) -> Guest:
    return Guest(
        name=name,
        target=target,
        image="i",
        network=network,
        check=check or Check(),
        block=block or {},
    )


def bound(one: Guest) -> Boot:
    return Boot(
        target=one.target,
        image="i",
        network=one.network,
        nics=binding.nics(one, HOST, HERE),
        volumes=binding.volumes(one, HOST),
    )


# Networks.


def test_a_device_is_bound_to_the_bridge_of_its_network() -> None:
    nic = binding.nics(guest(service=on("public")), HOST, HERE)["service"]
    assert (nic.kind, nic.link) == ("bridge", "br0")


def test_a_device_is_bound_to_the_tap_that_was_made_for_its_network() -> None:
    nic = binding.nics(guest(service=on("ready")), HOST, HERE)["service"]
    assert (nic.kind, nic.link) == ("tap", "tap0")


def test_a_device_in_qemus_own_network_has_the_hosts_forwards() -> None:
    nic = binding.nics(guest("virtio", service=on("inside")), HOST, HERE)["service"]
    assert (nic.kind, nic.link, nic.forward) == ("user", None, HOST.networks["inside"].forward)


def test_the_hosts_own_sockets_are_bound_to_nothing() -> None:
    assert binding.nics(guest("unix", service=NetworkConfig()), HOST, HERE) == {}


def test_a_network_that_the_host_does_not_bind_is_refused_with_what_binds_it() -> None:
    with pytest.raises(ConfigError) as error:
        binding.nics(guest(service=on("dmz")), HOST, HERE)
    assert error.value.message == "network service: 'dmz' is not bound on this host"
    assert error.value.hint == "bind it: [networks.dmz] with bridge = '...' in host.toml"


def test_a_guest_cannot_have_the_address_of_the_host_on_its_bridge() -> None:
    with pytest.raises(ConfigError) as error:
        binding.nics(guest(service=on("ours", "10.0.0.1/24")), HOST, HERE)
    assert error.value.message == "network service: address 10.0.0.1 is this host's own on br1"


# MACs.


def test_a_mac_stays_what_it_was() -> None:
    first, again = (binding.nics(guest(service=on()), HOST, HERE) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("installation", "other"),
    [
        (OTHER, guest(service=on())),
        (HERE, guest(name="api", service=on())),
        (HERE, guest(management=on())),
    ],
    ids=["installation", "guest", "device"],
)
def test_every_installation_guest_and_device_has_a_mac_of_its_own(
    installation: str, other: Guest
) -> None:
    own = binding.nics(guest(service=on()), HOST, HERE)["service"].mac
    (nic,) = binding.nics(other, HOST, installation).values()
    assert nic.mac != own


def test_a_mac_that_is_given_is_taken_in_small_letters() -> None:
    nic = binding.nics(guest(service=on(mac="02:00:00:00:00:AB")), HOST, HERE)["service"]
    assert nic.mac == "02:00:00:00:00:ab"


def test_a_unix_guest_chooses_its_own_mac() -> None:
    assert binding.nics(guest("unix", service=on()), HOST, HERE)["service"].mac is None


# QEMU's own network.


@pytest.mark.parametrize("target", ["unix", "hvt", "spt"])
def test_qemus_own_network_is_for_no_other_target(target: Target) -> None:
    with pytest.raises(ConfigError) as error:
        binding.nics(guest(target, service=on("inside")), HOST, HERE)
    assert (
        error.value.message
        == "network service: inside is QEMU's own network, for target virtio alone"
    )


# QEMU itself needs three addresses there, and takes no other prefix.
@pytest.mark.parametrize("address", ["10.0.0.1/30", "10.0.0.1/31", "10.0.0.1/32", "10.0.0.1/3"])
def test_qemus_own_network_has_room_for_qemu(address: str) -> None:
    with pytest.raises(ConfigError, match="takes a prefix of /4 to /29"):
        binding.nics(guest("virtio", service=on("inside", address)), HOST, HERE)


def test_qemus_own_network_is_ipv4() -> None:
    with pytest.raises(ConfigError, match="fd00::2/64: QEMU's own network is IPv4 here"):
        binding.nics(guest("virtio", service=on("inside", "fd00::2/64")), HOST, HERE)


def test_a_guest_in_qemus_own_network_cannot_be_pinged() -> None:
    with pytest.raises(ConfigError, match="check ping: nobody but QEMU reaches a guest"):
        binding.nics(guest("virtio", check=Check(ping=True), service=on("inside")), HOST, HERE)


def test_a_guest_without_a_device_cannot_be_pinged() -> None:
    with pytest.raises(ConfigError, match="check ping: the guest has no network device"):
        binding.nics(guest("unix", check=Check(ping=True)), HOST, HERE)


# Volumes.


def test_a_block_device_is_bound_to_the_path_of_its_volume() -> None:
    one = guest(block={"storage": BlockConfig("data", readonly=True)})
    assert binding.volumes(one, HOST) == {"storage": Volume("/srv/data.img", readonly=True)}


def test_a_volume_that_the_host_does_not_bind_is_refused_with_what_binds_it() -> None:
    with pytest.raises(ConfigError) as error:
        binding.volumes(guest(block={"storage": BlockConfig("logs")}), HOST)
    assert error.value.message == "block storage: volume 'logs' is not bound on this host"
    assert error.value.hint == "bind it: [volumes.logs] with path = '...' in host.toml"


# A recorded boot, such as a rollback's, on a host that has changed.


def recorded(network: str = "public", target: Target = "hvt") -> Boot:
    return bound(guest(target, block={"storage": BlockConfig("data")}, service=on(network)))


@pytest.mark.parametrize("network", ["public", "ours", "ready", "inside"])
def test_what_was_recorded_is_admitted_while_the_host_binds_it_so(network: str) -> None:
    binding.admit(recorded(network, "virtio"), HOST)


def test_a_boot_on_the_hosts_sockets_needs_nothing_of_the_host() -> None:
    binding.admit(Boot(target="unix", image="i"), Host("main"))


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("public", None, "network service: 'public' is not bound on this host any more"),
        (
            "public",
            HostNetwork(bridge="br9"),
            "network service: public is bound to bridge br9, no longer to bridge br0",
        ),
        (
            "public",
            HostNetwork(tap="br0"),
            "network service: public is bound to tap br0, no longer to bridge br0",
        ),
        (
            "inside",
            HostNetwork(bridge="br0"),
            "network service: inside is bound to bridge br0, no longer to QEMU's own network",
        ),
        (
            "inside",
            HostNetwork(user=True, forward=("udp:127.0.0.1:53:53",)),
            "network service: inside has no forward '127.0.0.1:8080:80' any more",
        ),
    ],
)
def test_a_recorded_boot_is_refused_what_the_host_took_away(
    was: str, now: HostNetwork | None, message: str
) -> None:
    networks = {was: now} if now is not None else {}
    with pytest.raises(ConfigError) as error:
        binding.admit(recorded(was, "virtio"), Host("main", networks=networks))
    assert error.value.message == message
    assert error.value.hint == "bind it so again in host.toml, or boot another state"


def test_a_forward_that_was_added_since_is_in_no_ones_way() -> None:
    more = HostNetwork(user=True, forward=(*HOST.networks["inside"].forward, "127.0.0.1:1:1"))
    networks = {"inside": more}
    binding.admit(
        recorded("inside", "virtio"), Host("main", networks=networks, volumes=HOST.volumes)
    )


def test_a_recorded_boot_is_refused_a_volume_that_the_host_took_away() -> None:
    with pytest.raises(
        ConfigError, match=r"block storage: /srv/data\.img is no volume of this host"
    ):
        binding.admit(recorded(), Host("main", networks=HOST.networks))


# What two guests cannot both have.


def refused(one: Guest, other: Guest) -> str:
    """Return why two guests cannot both run; "" where they can."""
    try:
        binding.refuse_shared({"a": bound(one), "b": bound(other)})
    except ConfigError as error:
        return error.message
    return ""


def test_one_address_is_of_one_guest() -> None:
    one, other = (guest(name=name, service=on("public", "10.0.0.2/24")) for name in "ab")
    assert refused(one, other) == "guests a and b have one address 10.0.0.2 on br0"


def test_two_networks_on_one_bridge_are_one() -> None:
    one = guest(name="a", service=on("public", "10.0.0.2/24"))
    other = guest(name="b", service=on("same", "10.0.0.2/16"))
    assert refused(one, other) == "guests a and b have one address 10.0.0.2 on br0"


def test_one_address_may_be_on_two_bridges() -> None:
    one = guest(name="a", service=on("public", "10.0.0.2/24"))
    assert refused(one, guest(name="b", service=on("ours", "10.0.0.2/24"))) == ""


def test_one_mac_is_of_one_guest_on_a_bridge() -> None:
    one, other = (guest(name=name, service=on(mac=MAC)) for name in "ab")
    assert refused(one, other) == f"guests a and b have one mac {MAC} on br0"


def test_one_mac_may_be_on_two_bridges() -> None:
    one = guest(name="a", service=on("public", mac=MAC))
    assert refused(one, guest(name="b", service=on("ours", mac=MAC))) == ""


def test_a_tap_that_was_made_beforehand_is_for_one_guest() -> None:
    one, other = (guest(name=name, service=on("ready")) for name in "ab")
    assert refused(one, other) == "guests a and b have one tap tap0"


def test_a_tap_that_was_made_beforehand_is_for_one_device() -> None:
    with pytest.raises(ConfigError) as error:
        binding.refuse_shared({"a": bound(guest(service=on("ready"), other=on("ready")))})
    assert error.value.message == "guest a has tap tap0 for two of its devices"


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("tcp", "guests a and b have one address: 127.0.0.1:8080"),
        ("udp", "guests a and b have one port udp 127.0.0.1:8080"),
    ],
)
def test_a_port_of_the_host_leads_to_one_guest(protocol: str, message: str) -> None:
    nic = Nic("user", None, MAC, (f"{protocol}:127.0.0.1:8080:80",))
    boot = Boot(target="virtio", image="i", network={"s": on("inside")}, nics={"s": nic})
    with pytest.raises(ConfigError) as error:
        binding.refuse_shared({"a": boot, "b": boot})
    assert error.value.message == message


def test_guests_in_qemus_own_network_may_have_one_address() -> None:
    nic = Nic("user", None, MAC)
    network = {"s": on("inside", "10.0.2.15/24")}
    boot = Boot(target="virtio", image="i", network=network, nics={"s": nic})
    binding.refuse_shared({"a": boot, "b": boot})


def with_volume(path: str | Path, readonly: bool) -> Boot:
    return Boot(target="hvt", image="i", volumes={"storage": Volume(str(path), readonly)})


def in_domain(name: str | None) -> Boot:
    return Boot(target="xen", image="i", domain=Domain(name=name))


def test_a_domains_name_is_one_guests() -> None:
    with pytest.raises(ConfigError) as error:
        binding.refuse_shared({"a": in_domain("site"), "b": in_domain("site")})
    assert error.value.message == "guests a and b have one domain site"


def test_a_domain_may_have_the_name_that_another_guests_has_not() -> None:
    binding.refuse_shared({"a": in_domain("b"), "b": in_domain("c")})
    with pytest.raises(ConfigError):
        binding.refuse_shared({"a": in_domain("b"), "b": in_domain(None)})


# A copy that is made for a reader while another guest writes would be torn.
@pytest.mark.parametrize("readonly", [(False, False), (False, True), (True, False)])
def test_a_volume_that_a_guest_writes_is_no_other_guests(readonly: tuple[bool, bool]) -> None:
    one, other = (with_volume("/srv/data.img", each) for each in readonly)
    with pytest.raises(ConfigError, match=r"guests a and b have one volume /srv/data\.img"):
        binding.refuse_shared({"a": one, "b": other})


def test_guests_that_only_read_may_have_one_volume() -> None:
    boot = with_volume("/srv/data.img", readonly=True)
    binding.refuse_shared({"a": boot, "b": boot})


def test_one_volume_by_two_paths_is_one(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    (tmp_path / "link").symlink_to("data")
    one, other = (with_volume(tmp_path / name, readonly=False) for name in ("data", "link"))
    assert binding.contested(("a", one), ("b", other)) == f"volume {tmp_path / 'data'}"


@pytest.mark.parametrize("readonly", [(False, False), (False, True), (True, False), (True, True)])
def test_a_volume_is_torn_where_one_of_two_writes_it(readonly: tuple[bool, bool]) -> None:
    one, other = (with_volume("/srv/data.img", each) for each in readonly)
    assert binding.torn(one, other) == (readonly != (True, True))
    assert not binding.torn(one, with_volume("/srv/logs.img", readonly[1]))


def test_a_guest_cannot_have_one_volume_twice() -> None:
    volume = Volume("/srv/data.img")
    boot = Boot(target="hvt", image="i", volumes={"one": volume, "two": volume})
    with pytest.raises(ConfigError, match=r"guest a has volume /srv/data\.img for two of its"):
        binding.refuse_shared({"a": boot})


def test_what_a_running_guest_has_and_another_is_to_have_is_told_in_words() -> None:
    one, other = (bound(guest(name=name, service=on("public", "10.0.0.2/24"))) for name in "ab")
    assert binding.contested(("a", one), ("b", other)) == "address 10.0.0.2 on br0"


def test_guests_with_devices_of_their_own_are_in_nobodys_way() -> None:
    one = bound(guest(name="a", service=on("public", "10.0.0.2/24")))
    other = bound(guest(name="b", service=on("public", "10.0.0.3/24")))
    assert binding.contested(("a", one), ("b", other)) == ""


def test_what_a_guest_writes_is_known_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("data")
    boot = Boot(
        target="hvt",
        image="i",
        volumes={"one": Volume(f"{tmp_path}/link"), "two": Volume("/srv/b.img", readonly=True)},
    )
    assert binding.written(boot) == {f"{tmp_path}/data"}


def test_the_host_files_of_these_tests_could_be_written() -> None:
    text = (
        'branch = "main"\n[networks.ours]\nbridge = "br1"\ncreate = true\naddress = "10.0.0.1/24"\n'
    )
    assert host.parse(text, "host.toml").networks["ours"] == HOST.networks["ours"]
