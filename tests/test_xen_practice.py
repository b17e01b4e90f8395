"""Deployment repositories as MirageOS's own sites have them: cloned, installed, pulled."""

import bz2
from pathlib import Path
from typing import cast

import pytest

from mirage_hooks.boot import host
from networked import NetSite, on
from practice import BAKED_XL_CONF_IN
from stand_in_xen import Folder
from support import run, wait_for

pytestmark = on("xen")


def publish(
    net: NetSite,
    page: str,
    address: str = "10.0.0.2/24",
    site: str = "mortio",
    above: str = "xen",
) -> None:
    """Commit an image as CI does: packed, in a folder of its own, and the pointer moved to it."""
    net.count += 1
    image = net.built.image("xen", page, address=address).read_bytes()
    folder = net.upstream / above / f"{net.count:040x}"
    folder.mkdir(parents=True)
    (folder / f"{site}.xen.bz2").write_bytes(bz2.compress(image))
    (folder / "config.ml").write_text("open Mirage\n")
    (folder.parent / "latest").write_text(f"{folder.name}\n")
    net.commit(f"adding {folder.name} for xen")


@pytest.fixture
def practice(net: NetSite) -> NetSite:
    """A host with the bridge of the practice, and its repository, not installed in yet."""
    run("git", "rm", "-q", "-r", ".", cwd=net.upstream)
    (net.upstream / "xl.conf.in").write_text(BAKED_XL_CONF_IN)
    publish(net, "one")
    net.git("pull", "-q")
    net.command("uninstall", "--yes")
    net.host.run("ip", "link", "add", "xenbr0", "type", "bridge")
    net.host.run("ip", "address", "add", "10.0.0.1/24", "dev", "xenbr0")
    net.host.run("ip", "link", "set", "xenbr0", "up")
    return net


def install(net: NetSite, name: str) -> str:
    """Install for a site, whose file has its name without dots; return what was said."""
    image = f"xen/{{latest}}/{name.replace('.', '')}.xen.bz2"
    done = net.command("install", "--guest", name, "--target", "xen", "--image", image)
    net.tell_host(tenders={"xen": str(net.xen / "xl")}, limits={"targets": ["xen"]})
    return done.stdout


def find(net: NetSite, origin: str = "deployment") -> str:
    """Install by convention, in a clone of a repository of that name; return what was said."""
    net.state.folder.mkdir(mode=0o700)
    net.state.host_file.write_text(
        f'branch = "main"\n[limits]\ntargets = ["xen"]\n[tenders]\nxen = "{net.xen / "xl"}"\n'
    )
    net.state.host_file.chmod(0o600)
    net.git("config", "remote.origin.url", f"https://example.org/{origin}.git")
    said = net.command("install").stdout
    net.git("config", "remote.origin.url", str(net.upstream))
    return said


def guests_of(net: NetSite) -> dict[str, dict[str, object]]:
    return host.load(net.state.host_file)[0].guest


def test_a_site_has_the_dots_of_its_repositorys_name(practice: NetSite) -> None:
    said = find(practice, "mort.io-deployment")
    assert "found by convention: guest mort.io (xen), image xen/{latest}/mortio.xen.bz2" in said
    assert "its domain, is called mort.io, as the repository is" in said
    practice.command("deploy")
    assert practice.page() == "one"
    wait_for(lambda: list(practice.domains()) == ["mort.io"])


def test_a_site_whose_dots_nobody_tells_is_called_as_its_image_and_can_be_named(
    practice: NetSite,
) -> None:
    said = find(practice)
    assert "found by convention: guest mortio (xen)" in said
    option = "--guest SITE --target xen --image 'xen/{latest}/mortio.xen.bz2'"
    assert f"if it has other dots: mirage-hooks install {option}" in said
    assert "guest mortio is called mort.io from now on" in install(practice, "mort.io")
    again = practice.command("install").stdout
    assert ("found" in again, list(guests_of(practice))) == (False, ["mort.io"])


def test_an_image_of_an_older_mirage_is_found_below_a_pointer_at_the_root(
    practice: NetSite,
) -> None:
    run("git", "rm", "-q", "-r", "xen", cwd=practice.upstream)
    publish(practice, "root", site="mir-mortio", above="")
    practice.git("pull", "-q")
    said = find(practice, "mort.io")
    assert "guest mort.io (xen), image {latest}/mir-mortio.xen.bz2" in said
    assert "mort.io has the template xl.conf.in" in said
    practice.command("deploy")
    assert practice.page() == "root"
    publish(practice, "two", site="mir-mortio", above="")
    practice.pull()
    assert practice.page() == "two"


def test_several_sites_are_found_and_one_is_called_as_the_repository(practice: NetSite) -> None:
    add_beside(practice, "decks", "10.0.0.3/24")
    practice.git("pull", "-q")
    said = find(practice, "mort.io")
    assert "its domain, is called decks, as its image is" in said
    practice.command("deploy")
    assert (practice.page(), practice.page("10.0.0.3")) == ("one", "decks")
    wait_for(lambda: sorted(practice.domains()) == ["decks", "mort.io"])


def test_a_site_is_found_and_each_pull_deploys_it(practice: NetSite) -> None:
    said = install(practice, "mort.io")
    assert "mort.io has the template xl.conf.in" in said
    assert "network xenbr0: guests may be on that bridge, as xl.conf.in has it" in said
    practice.command("deploy")
    assert practice.page() == "one"
    wait_for(lambda: list(practice.domains()) == ["mort.io"])
    publish(practice, "two")
    pull = practice.pull()
    assert practice.page() == "two", pull.stderr
    assert "baked" in pull.stderr


def test_a_template_that_changes_boots_the_guest_anew(practice: NetSite) -> None:
    install(practice, "mortio")
    practice.command("deploy")
    (practice.upstream / "xl.conf.in").write_text(BAKED_XL_CONF_IN.replace("256", "128"))
    practice.commit("less memory")
    assert "memory 256 -> 128 MiB" in practice.pull().stderr


def test_a_template_with_an_unknown_key_changes_nothing(practice: NetSite) -> None:
    install(practice, "mortio")
    practice.command("deploy")
    (practice.upstream / "xl.conf.in").write_text(
        f"{BAKED_XL_CONF_IN}device_model_override='/tmp/x'\n"
    )
    practice.commit("evil")
    said = practice.pull().stderr
    assert "xl.conf.in: line 8: device_model_override is no setting that a template may" in said
    assert practice.page() == "one"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"disk=['phy:/dev/vg/www,xvda,w']", "line 8: disk: /dev/vg/www is no volume of this host"),
        (b"cpus='1'", "line 8: cpus is no setting that a template may have here"),
        (b"# the g\xfcest book", "is not UTF-8 text"),
    ],
)
def test_a_template_that_does_not_do_is_said_and_keeps_no_host_from_being_installed(
    practice: NetSite, bad: bytes, said: str
) -> None:
    (practice.upstream / "xl.conf.in").write_bytes(BAKED_XL_CONF_IN.encode() + bad + b"\n")
    practice.commit("the site's own")
    practice.git("pull", "-q")
    told = install(practice, "mortio")
    assert "mortio cannot be deployed yet: xl.conf.in" in told
    assert said in told
    assert guests_of(practice)["mortio"]["template"] == "xl.conf.in"
    deploy = practice.command("deploy", check=False)
    assert (deploy.returncode != 0, said in deploy.stderr) == (True, True)


XL_IN = """\
name = '@NAME@'
kernel = '@KERNEL@'
memory = @MEMORY@
disk = [ 'format=raw, vdev=xvda, access=rw, target=@BLOCK:fat1.img@' ]
vif = [ 'bridge=xenbr0' ]
"""


def put_beside(net: NetSite, file: str, data: bytes) -> None:
    """Put a file beside the newest image."""
    (net.upstream / "xen" / f"{net.count:040x}" / file).write_bytes(data)
    net.commit(f"adding {file}")
    net.git("pull", "-q")


def test_a_disk_image_beside_an_image_is_said(practice: NetSite) -> None:
    put_beside(practice, "fat1.img.bz2", bz2.compress(bytes(4096)))
    assert "beside it: the disk xen/{latest}/fat1.img.bz2." in find(practice)


def test_a_template_that_mirage_has_written_brings_the_disk_image(practice: NetSite) -> None:
    put_beside(practice, "mortio.xl.in", XL_IN.encode())
    put_beside(practice, "fat1.img.bz2", bz2.compress(b"FAT".ljust(4096, b"\0")))
    assert "mortio has the template xen/{latest}/mortio.xl.in" in find(practice)
    practice.command("deploy")
    assert practice.page() == "one"
    [domain] = Folder(practice.xen).now().domains
    [disk] = cast("list[str]", domain.config["disk"])
    how, _, path = disk.rpartition(",target=")
    assert how == "format=raw,vdev=xvda,access=ro"
    assert Path(path).read_bytes() == b"FAT".ljust(4096, b"\0")


def add_beside(net: NetSite, site: str, address: str) -> None:
    """Commit an image of another site to the folder of the newest, as a second job does."""
    image = net.built.image("xen", site, address=address).read_bytes()
    here = net.upstream / "xen" / f"{net.count:040x}"
    (here / f"{site}.xen.bz2").write_bytes(bz2.compress(image))
    net.commit("the other job")


def name_domain(net: NetSite, name: str) -> None:
    """Commit a template that has one name for all."""
    (net.upstream / "xl.conf.in").write_text(BAKED_XL_CONF_IN.replace("@NAME@", name))
    net.commit(f"called {name}")
    net.git("pull", "-q")


def test_two_sites_cannot_have_one_domains_name(practice: NetSite) -> None:
    add_beside(practice, "decks", "10.0.0.3/24")
    name_domain(practice, "site")
    find(practice)
    deploy = practice.command("deploy", check=False)
    assert deploy.returncode == 3
    assert "guests decks and mortio have one domain site" in deploy.stderr
    assert "--adopt" not in deploy.stderr


@pytest.mark.parametrize("killed", [False, True], ids=["looked after", "left"])
def test_a_site_that_gets_its_dots_later_has_the_place_of_its_domain(
    practice: NetSite, killed: bool
) -> None:
    name_domain(practice, "mort.io")
    install(practice, "mortio")
    practice.command("deploy")
    wait_for(lambda: list(practice.domains()) == ["mort.io"])
    if killed:
        monitor = practice.monitor("mortio")
        assert monitor.tender is not None
        monitor.monitor.kill()
        monitor.tender.kill()
        monitor.tender.wait_gone(5)
    install(practice, "mort.io")
    practice.command("deploy")
    wait_for(lambda: list(practice.domains()) == ["mort.io"])
    assert practice.live("mort.io") is not None
    assert practice.page() == "one"
