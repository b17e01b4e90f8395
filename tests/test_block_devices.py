"""Guests with disks, end to end: files of the host's, bound by logical names."""

from pathlib import Path

import pytest

from networked import NetSite, on

DEVICES = {"storage": "BLOCK_BASIC", "service": "NET_BASIC"}


@pytest.fixture
def disk(net: NetSite, tmp_path: Path) -> Path:
    """A disk on the host; the guest's image takes one."""
    path = tmp_path / "disk"
    path.write_bytes(b"first line\nsecond".ljust(4096, b"\0"))
    path.chmod(0o666)
    net.tell_host(volumes={"data": {"path": str(path)}})
    net.tables = '[guest.www.block.storage]\nvolume = "data"'
    image = net.built.image(net.target, "with disk", devices=DEVICES)
    net.publish(image=image.read_bytes())
    return path


def refused(net: NetSite, code: int, *words: str) -> None:
    """Deploy what is to be refused before anything of the guest that runs is touched."""
    live = net.live()
    deploy = net.command("deploy", check=False)
    said = deploy.stdout + deploy.stderr
    assert deploy.returncode == code, said
    assert [word for word in words if word not in said] == [], said
    assert net.live() == live


@on("spt", "hvt", "virtio")
def test_a_guest_reads_the_disk_that_is_bound(net: NetSite, disk: Path) -> None:
    net.pull()
    assert net.page() == "with disk"
    assert "storage: first line" in net.command("logs", "www").stdout


@on("spt", "virtio")
def test_a_guest_has_the_disk_itself_open(net: NetSite, disk: Path) -> None:
    net.pull()
    assert opened(net) & {disk, net.state.folder} == {disk}


@on("spt", "hvt")
def test_a_solo5_guest_has_a_copy_of_what_is_to_be_read_only(net: NetSite, disk: Path) -> None:
    disk.chmod(0o400)
    net.tables += "\nreadonly = true"
    net.publish()
    net.pull()
    copy = net.state.generation_folder("www", 1) / "storage.img"
    assert "storage: first line" in net.command("logs", "www").stdout
    assert opened(net) & {disk, copy} == {copy}
    assert copy.read_bytes() == disk.read_bytes()
    net.command("reboot")
    assert not copy.exists()
    net.command("stop", "www")
    assert list(net.state.folder.rglob("*.img")) == []


@on("virtio")
def test_qemu_opens_what_is_to_be_read_only_so(net: NetSite, disk: Path) -> None:
    net.tables += "\nreadonly = true"
    net.publish()
    net.pull()
    tender = net.monitor().tender
    assert tender is not None
    for number in Path(f"/proc/{tender.pid}/fd").iterdir():
        if number.resolve() == disk:
            flags = Path(f"/proc/{tender.pid}/fdinfo", number.name).read_text().split()[3]
            assert int(flags, 8) & 0o3 == 0
    assert "storage: first line" in net.command("logs", "www").stdout


def add_other(net: NetSite) -> None:
    """Describe a second guest, with the disk of the first."""
    tables = net.tables.replace("www", "other")
    other = net.table("other", 'address = "10.0.0.3/24"', [], "ping = true")
    net.more = other.replace(net.tables, tables)


def opened(net: NetSite) -> set[Path]:
    """Return the files that the guest's tender has open."""
    tender = net.monitor().tender
    assert tender is not None
    return {number.resolve() for number in Path(f"/proc/{tender.pid}/fd").iterdir()}


@on("spt")
def test_a_disk_that_is_missing_or_in_parts_of_sectors_is_refused(net: NetSite, disk: Path) -> None:
    net.pull()
    disk.rename(disk.with_name("moved"))
    net.publish(image=net.built.image("spt", "two", devices=DEVICES).read_bytes())
    net.pull()
    refused(net, 6, f"volume {disk} does not exist")
    disk.write_bytes(bytes(4097))
    refused(net, 6, f"volume {disk} has 4097 bytes", f"truncate --size=%512 {disk}")
    disk.unlink()
    disk.with_name("moved").rename(disk)
    net.command("deploy")
    assert net.page() == "two"


@on("spt")
def test_a_disk_that_is_closed_to_the_guests_user_is_refused(net: NetSite, disk: Path) -> None:
    disk.chmod(0o600)
    net.pull()
    refused(net, 6, f"{disk} is closed to user nobody")


@on("spt")
def test_two_guests_share_a_disk_only_where_neither_writes(net: NetSite, disk: Path) -> None:
    net.pull()
    add_other(net)
    net.publish()
    net.pull()
    refused(net, 3, f"guests www and other have one volume {disk}")
    assert net.page() == "with disk"
    net.tables += "\nreadonly = true"
    add_other(net)
    net.publish()
    net.pull()
    changed = f"replace: volumes {disk} -> {disk} (read only)"
    refused(net, 6, changed, "the copy would be torn", "mirage-hooks stop")
    net.command("stop", "www")
    net.command("start", "www")
    assert (net.page(), net.page("10.0.0.3")) == ("with disk", "with disk")


@on("spt")
def test_a_disk_of_a_guest_that_stays_is_in_use(net: NetSite, disk: Path) -> None:
    net.pull()
    add_other(net)
    net.more = net.more.replace("www.spt", "other.spt")
    (net.upstream / "www.spt").rename(net.upstream / "other.spt")
    net.tables = ""
    net.publish(image=b"what cannot be booted")
    net.pull()
    refused(net, 6, f"other: volume {disk} is still that of www")
    assert net.page() == "with disk"


@on("spt", "hvt", "virtio")
def test_a_guest_reads_a_disk_image_of_the_repositorys(net: NetSite) -> None:
    (net.upstream / "fat1.img").write_bytes(b"from the repository\n".ljust(4096, b"\0"))
    net.tables = '[guest.www.block.storage]\nimage = "fat1.img"'
    image = net.built.image(net.target, "with disk", devices=DEVICES)
    net.publish(image=image.read_bytes())
    net.pull()
    assert "storage: from the repository" in net.command("logs", "www").stdout
    net.command("stop", "www")
    assert list(net.state.folder.rglob("*.img")) == []
