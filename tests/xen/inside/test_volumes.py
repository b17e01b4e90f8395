"""Volumes on a real Xen, whose hotplug script refuses a block device that would be torn."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit

from in_dom0 import in_dom0
from practice import SECONDS, Practice
from support import get, run, wait_for

pytestmark = in_dom0

# The guests, by the last number of their addresses.
NUMBERS = {"one": 57, "other": 58}
GUEST = """\
[guest.{name}]
target = "xen"
image = "{image}"
[guest.{name}.network.net0]
network = "public"
address = "10.0.0.{number}/24"
"""
DISK = '[guest.{name}.block.xvda]\nvolume = "data"\nreadonly = {readonly}\n'


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[str]:
    """A block device of the host's."""
    file = tmp_path / "data.img"
    file.write_bytes(bytes(1 << 20))
    device = run("losetup", "--find", "--show", file, cwd=tmp_path).stdout.strip()
    yield device
    run("losetup", "--detach", device, cwd=tmp_path)


@pytest.fixture
def site(volume: str, mort_io: Practice) -> Practice:
    """A clone on a host with a network and a volume; its manifest is still to come."""
    mort_io.command("install")
    host = tomllib.loads(mort_io.state.host_file.read_text())
    host.pop("guest")
    host["networks"] = {"public": {"bridge": "xenbr0"}}
    host["volumes"] = {"data": {"path": volume}}
    mort_io.state.host_file.write_text(tomlkit.dumps(host))
    return mort_io


def bring(site: Practice, holder: str, *, readonly: bool = False) -> None:
    """Pull two guests of which one has the volume; all is as it should be then."""
    guests = [
        GUEST.format(name=name, image=site.image, number=number) for name, number in NUMBERS.items()
    ]
    disk = DISK.format(name=holder, readonly=str(readonly).lower())
    (site.upstream / "mirage-hooks.toml").write_text("".join([*guests, disk]))
    site.publish("unused")
    said = site.pull()
    assert "not as it should be" not in said, said
    addresses = [f"10.0.0.{number}" for number in NUMBERS.values()]
    wait_for(lambda: None not in [get(80, address=one) for one in addresses], SECONDS)


def test_a_volume_is_read_that_was_written_and_moves_to_another_guest(site: Practice) -> None:
    bring(site, "one")
    bring(site, "one", readonly=True)
    bring(site, "other")
    assert site.command("deploy").count("not as it should be") == 0
