"""Volumes of guests in Xen domains, with a stand-in for xl: it refuses what would be torn."""

from pathlib import Path

import pytest

import stand_in_xl
from networked import NetSite, on
from stand_in_xen import Folder
from support import wait_for

pytestmark = on("xen")


@pytest.fixture
def volume(net: NetSite) -> Path:
    """A volume that the host binds as `data`."""
    path = net.xen / "data.img"
    path.write_bytes(bytes(4096))
    net.tell_host(volumes={"data": {"path": str(path)}})
    return path


def bring(net: NetSite, tables: str, page: str) -> str:
    """Pull a commit with `www`, with `other`, which is booted after it, and further tables."""
    other = net.table("other", 'address = "10.0.0.3/24"', [], "ping = true")
    other = other.replace("[guest.other]", "[guest.other]\nstartup = 1")
    net.more = f"{other}\n{tables}\n"
    net.publish(page)
    said = net.pull().stderr
    wait_for(lambda: sorted(net.domains()) == ["other", "www"], 20)
    return said


def of(guest: str, *, readonly: bool = False) -> str:
    """Return the table that gives a guest the volume."""
    return f'[guest.{guest}.block.xvda]\nvolume = "data"\nreadonly = {str(readonly).lower()}'


def holders(net: NetSite) -> list[str]:
    """Return the names of the domains that have a disk."""
    return [domain.name for domain in Folder(net.xen).now().domains if domain.config["disk"]]


def faults(net: NetSite) -> list[str]:
    """Return what went wrong, of all that was ever told."""
    lines = net.state.events.read_text().splitlines()
    return [line for line in lines if '"guest.fault"' in line or '"guest.unhealthy"' in line]


@pytest.mark.parametrize(("one", "next_one"), [("www", "other"), ("other", "www")])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_volume_moves_from_one_guest_to_another_in_one_pull(
    net: NetSite, volume: Path, one: str, next_one: str, readonly: bool
) -> None:
    assert volume.exists()
    bring(net, of(one), "one")
    stand_in_xl.fail(net.xen, destroy={"seconds": 2})
    said = bring(net, of(next_one, readonly=readonly), "two")
    assert (holders(net), faults(net)) == ([next_one], []), said
    assert (net.page(), net.page("10.0.0.3")) == ("two", "two")
    assert net.outcomes() == net.outcomes("other") == ["ended", "healthy"]
    stand_in_xl.fail(net.xen)


@pytest.mark.parametrize("readonly", [(False, False), (False, True), (True, False), (True, True)])
def test_a_guest_and_the_next_one_have_one_volume(
    net: NetSite, volume: Path, readonly: tuple[bool, bool]
) -> None:
    assert volume.exists()
    for page, each in zip(("one", "two"), readonly, strict=True):
        net.tables = of("www", readonly=each)
        net.publish(page)
        said = net.pull().stderr
        assert (faults(net), net.page()) == ([], page), said
    wait_for(lambda: list(net.domains()) == ["www"])


def test_a_domain_that_is_adopted_may_write_what_the_guest_reads(
    net: NetSite, volume: Path
) -> None:
    theirs = net.xen / "theirs.cfg"
    theirs.write_text(
        'name = "www"\nkernel = "/bin/sleep"\nmemory = 32\n'
        f'disk = ["format=raw,vdev=xvda,access=rw,target={volume}"]\n'
    )
    net.host.run(net.xen / "xl", "create", "-p", theirs)
    net.tables = of("www", readonly=True)
    net.publish("two")
    net.git("pull", "-q")
    net.command("deploy", "--adopt", "www", "--yes")
    assert net.page() == "two"
    wait_for(lambda: list(net.domains()) == ["www"])
