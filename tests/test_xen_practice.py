"""Deployment repositories as MirageOS's own sites have them: cloned, installed, pulled."""

import bz2

import pytest

from networked import NetSite, on
from support import run, wait_for

pytestmark = on("xen")

XL_CONF_IN = """\
name='@NAME@'
memory='256'
kernel='@KERNEL@'
vif=['bridge=xenbr0']
on_crash='restart'
@DISK@
"""


def publish(net: NetSite, page: str, address: str = "10.0.0.2/24", site: str = "mortio") -> None:
    """Commit an image as CI does: packed, in a folder of its own, and the pointer moved to it."""
    net.count += 1
    image = net.built.image("xen", page, address=address).read_bytes()
    folder = net.upstream / "xen" / f"{net.count:040x}"
    folder.mkdir(parents=True)
    (folder / f"{site}.xen.bz2").write_bytes(bz2.compress(image))
    (folder / "config.ml").write_text("open Mirage\n")
    (folder.parent / "latest").write_text(f"{folder.name}\n")
    net.commit(f"adding {folder.name} for xen")


@pytest.fixture
def practice(net: NetSite) -> NetSite:
    """A host with the bridge of the practice, and its repository, not installed in yet."""
    run("git", "rm", "-q", "-r", ".", cwd=net.upstream)
    (net.upstream / "xl.conf.in").write_text(XL_CONF_IN)
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
    (practice.upstream / "xl.conf.in").write_text(XL_CONF_IN.replace("256", "128"))
    practice.commit("less memory")
    assert "memory 256 -> 128 MiB" in practice.pull().stderr


def test_a_template_with_an_unknown_key_changes_nothing(practice: NetSite) -> None:
    install(practice, "mortio")
    practice.command("deploy")
    (practice.upstream / "xl.conf.in").write_text(f"{XL_CONF_IN}device_model_override='/tmp/x'\n")
    practice.commit("evil")
    said = practice.pull().stderr
    assert "xl.conf.in: line 7: device_model_override is no setting that a template may" in said
    assert practice.page() == "one"


def test_several_sites_in_one_repository_share_the_template(practice: NetSite) -> None:
    publish(practice, "decks", "10.0.0.3/24", "decks")
    image = practice.built.image("xen", "one", address="10.0.0.2/24").read_bytes()
    here = practice.upstream / "xen" / f"{practice.count:040x}"
    (here / "mortio.xen.bz2").write_bytes(bz2.compress(image))
    practice.commit("the other job")
    practice.git("pull", "-q")
    for name in ("mort.io", "decks"):
        install(practice, name)
    practice.command("deploy")
    assert (practice.page(), practice.page("10.0.0.3")) == ("one", "decks")
    wait_for(lambda: sorted(practice.domains()) == ["decks", "mort.io"])
