"""The xen target: what a domain is told, and what is refused before one is made."""

import json
from dataclasses import replace

import pytest

from mirage_hooks.boot import xlsyntax
from mirage_hooks.boot.device import NetworkConfig, Nic, Volume
from mirage_hooks.boot.errors import ConfigError, ImageError
from mirage_hooks.boot.guest import Boot, Domain, Guest
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.targets.tending import Others, Start, Tending
from mirage_hooks.boot.targets.xen import Xen, command_of

PV, PVH = Image("xen", modes=("pv",)), Image("xen", abi=2, modes=("pvh",))
BOTH = Image("xen", modes=("pv", "pvh"))
# A site of MirageOS's own: its triple ADDR GWS MASK.
SITE = NetworkConfig(network="public", address="46.43.42.137/25", gateway="46.43.42.129", mac=None)
MAC = "02:00:00:00:00:02"


def guest(domain: Domain = Domain(), mirage: str | None = None) -> Guest:  # noqa: B008
    network = {"net0": SITE}
    return Guest("mort.io", "xen", "i", network=network, domain=domain, mirage=mirage)


def boot(asked: Guest, image: Image) -> Boot:
    """Return what boots a guest, settled by its image."""
    unsettled = Boot(
        target="xen",
        image="0" * 64,
        memory=256,
        network=asked.network,
        nics={"net0": Nic("bridge", "xenbr0", MAC)},
        domain=asked.domain,
    )
    return Xen().settle(asked, unsettled, image)


START = Start(
    "mort.io",
    "/store/0",
    Tending("/usr/bin/sudo", ("-n", "/usr/sbin/xl")),
    taps={"net0": "mh0123456789ab"},
    generation=7,
    alias="mirage-hooks:0123456789ab:mort.io:7",
    file="/state/domain.cfg",
    others=Others(("u1",), ("u2",)),
)


def order(booted: Boot, start: Start = START) -> dict[str, object]:
    """Return what the tender of a domain is told."""
    told: dict[str, object] = json.loads(Xen().command(booted, start)[1][-1])
    return told


def config(booted: Boot, start: Start = START) -> dict[str, object]:
    """Return the configuration of a domain, as xl reads it."""
    return {one.key: one.value for one in xlsyntax.parse(str(order(booted, start)["config"]))}


def test_an_image_for_pv_gets_its_address_without_dashes() -> None:
    told = config(boot(guest(), PV))
    assert told["type"] == "pv"
    assert told["extra"] == "ipv4=46.43.42.137/25 ipv4-gateway=46.43.42.129"


def test_an_image_for_pvh_gets_its_address_with_dashes() -> None:
    told = config(boot(guest(), PVH))
    assert told["type"] == "pvh"
    assert told["extra"] == "--ipv4=46.43.42.137/25 --ipv4-gateway=46.43.42.129 --ipv4-only=true"


def test_the_form_of_the_arguments_can_be_set() -> None:
    told = config(boot(guest(Domain(arguments="dashed"), mirage="3.5"), PV))
    assert told["extra"] == "--ipv4=46.43.42.137/25 --ipv4-gateway=46.43.42.129"


def test_the_type_can_be_set_where_the_image_has_both() -> None:
    assert config(boot(guest(Domain(type="pv")), BOTH))["type"] == "pv"
    assert config(boot(guest(), BOTH))["type"] == "pvh"


def test_a_type_that_the_image_has_not_is_refused() -> None:
    with pytest.raises(ImageError, match="it can be booted as pv, and not as pvh"):
        Xen().fit(boot(guest(Domain(type="pvh")), PV), PV)


def test_a_vif_has_its_mac_its_bridge_and_a_name() -> None:
    told = config(boot(guest(), PV))
    assert told["vif"] == (f"mac={MAC},bridge=xenbr0,vifname=mh0123456789ab",)


def test_a_vif_of_hvm_has_no_emulated_nic_beside_it() -> None:
    told = config(boot(guest(Domain(type="hvm")), PVH))
    assert told["vif"] == (f"type=vif,mac={MAC},bridge=xenbr0,vifname=mh0123456789ab",)


def test_a_disk_is_told_by_its_name_in_the_domain() -> None:
    booted = boot(guest(), PV)
    volumes = {"xvdb": Volume("/srv/a,b.img", readonly=True)}
    start = replace(START, volumes={"xvdb": "/srv/a,b.img"})
    told = config(Boot(**{**_fields(booted), "volumes": volumes}), start)  # type: ignore[arg-type]
    assert told["disk"] == ("format=raw,vdev=xvdb,access=ro,target=/srv/a,b.img",)


def _fields(booted: Boot) -> dict[str, object]:
    return {name: getattr(booted, name) for name in booted.__struct_fields__}


def test_whatever_ends_a_domain_it_is_gone_then() -> None:
    told = config(boot(guest(), PV))
    ends = ("poweroff", "reboot", "watchdog", "crash", "soft_reset")
    assert {told[f"on_{end}"] for end in ends} == {"destroy"}


def test_the_uuid_of_a_domain_is_that_of_its_generation() -> None:
    booted = boot(guest(), PV)
    again = replace(START, alias="mirage-hooks:0123456789ab:mort.io:8")
    assert order(booted)["uuid"] == order(booted)["uuid"] == config(booted)["uuid"]
    assert order(booted)["uuid"] != order(booted, again)["uuid"]


def test_a_domain_waits_by_another_name_than_it_runs_by() -> None:
    told = order(boot(guest(Domain(name="mort")), PV))
    assert (told["name"], told["temporary"]) == ("mort", "mort.7")


def test_a_domain_waits_for_the_end_of_one_whose_volume_would_be_torn() -> None:
    booted = boot(guest(), PV)
    told = [
        order(booted, replace(START, others=Others(torn=torn)))["alone"] for torn in (False, True)
    ]
    assert told == [False, True]


def test_xl_is_started_by_what_the_host_says() -> None:
    assert order(boot(guest(), PV))["xl"] == ["/usr/bin/sudo", "-n", "/usr/sbin/xl"]


def test_a_prefix_is_found_on_the_path() -> None:
    path, *rest = command_of(Tenders(xen=("env", "xl")))
    assert (path.endswith("/env"), rest) == (True, ["xl"])


def test_more_arguments_than_a_pv_domain_takes_are_refused() -> None:
    booted = boot(guest(), PV)
    long = Boot(**{**_fields(booted), "arguments": ("a" * 1100,)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a PV domain takes 1023"):
        Xen().command(long, START)


def test_the_hosts_own_sockets_are_refused() -> None:
    with pytest.raises(ConfigError, match="xen has no sockets of the host's"):
        Xen().check(Guest("www", "xen", "i", network={"net0": NetworkConfig()}))


def test_what_is_for_domains_is_refused_for_other_targets() -> None:
    with pytest.raises(ValueError, match="template and domain are for target xen"):
        Guest("www", "hvt", "i", domain=Domain(vcpus=2))
