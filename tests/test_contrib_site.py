"""The site that operators copy: what its Makefile does, with a recorder in MirageOS's place."""

import os
import re
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from mirage_hooks.boot import description
from mirage_hooks.boot.repository import Repository
from site_copy import SITE, SiteCopy, make, page_manifest
from support import run

STATIC = ("ADDR=192.0.2.10", "MASK=255.255.255.0", "GWS=192.0.2.1")
NONE = "with ADDR= MASK= GWS="


# Which image is configured.


@pytest.mark.parametrize(
    ("variant", "line"),
    [
        ("socket", "mirage configure -t unix --net=socket"),
        ("direct", "mirage configure -t unix --net=direct"),
        ("hvt", "mirage configure -t hvt --net=direct"),
        ("spt", "mirage configure -t spt --net=direct"),
        ("xen", "mirage configure -t xen --net=direct"),
    ],
)
def test_a_variant_is_one_command_line_of_mirage_configure(
    copied: SiteCopy, variant: str, line: str
) -> None:
    make(copied, f"configure.{variant}")
    assert copied.calls() == [f"{line} in mirage {NONE}"]


@pytest.mark.parametrize("variant", ["direct", "hvt", "spt", "xen"])
def test_an_address_is_compiled_in_and_there_is_no_dhcp(copied: SiteCopy, variant: str) -> None:
    make(copied, f"configure.{variant}", *STATIC)
    target = "unix" if variant == "direct" else variant
    assert copied.calls() == [
        f"mirage configure -t {target} --net=direct --no-dhcp in mirage with {' '.join(STATIC)}"
    ]


def test_a_gateway_may_be_left_out(copied: SiteCopy) -> None:
    make(copied, "configure.xen", *STATIC[:2])
    assert copied.calls()[0].endswith("--no-dhcp in mirage with " + " ".join((*STATIC[:2], "GWS=")))


def test_tls_is_a_key_of_the_configuration(copied: SiteCopy) -> None:
    make(copied, "configure.hvt", "TLS=1")
    assert copied.calls() == [f"mirage configure -t hvt --net=direct --tls in mirage {NONE}"]
    assert '[ "tls" ]' in (SITE / "mirage" / "config.ml").read_text()


@pytest.mark.parametrize(
    ("goals", "said"),
    [
        (("configure.xen", "ADDR=192.0.2.10"), "ADDR needs MASK"),
        (("configure.xen", "GWS=192.0.2.1"), "MASK and GWS go with ADDR"),
        (("configure.xen", "MASK=255.255.255.0"), "MASK and GWS go with ADDR"),
        (("configure.socket", *STATIC), "the host's own sockets take no ADDR"),
        (("configure.muen",), "No rule to make target 'configure.muen'"),
        (("build",), "nothing is configured: run `make configure.socket build`"),
        (("publish",), "nothing is built: run `make configure.xen build`"),
    ],
)
def test_what_makes_no_sense_is_refused_before_mirage_runs(
    copied: SiteCopy, goals: tuple[str, ...], said: str
) -> None:
    done = make(copied, *goals, check=False)
    assert (done.returncode, said in done.stderr, copied.configured()) == (2, True, [])


# What is built.


@pytest.mark.parametrize(
    ("variant", "image"),
    [("socket", "www"), ("direct", "www"), ("hvt", "www.hvt"), ("xen", "www.xen")],
)
def test_an_image_is_built_with_the_pages_as_they_are_now(
    copied: SiteCopy, variant: str, image: str
) -> None:
    make(copied, f"configure.{variant}", "build")
    assert [call.split()[0] for call in copied.calls()] == ["mirage", "jekyll"]
    assert (copied.folder / "mirage" / "dist" / image).read_text() == "page\n"


def test_a_configuration_that_fails_leaves_nothing_to_build(copied: SiteCopy) -> None:
    make(copied, "configure.hvt", "build")
    copied.put("mirage", "#!/bin/sh\nexit 3\n")
    assert make(copied, "configure.xen", "build", check=False).returncode == 2
    assert "nothing is configured" in make(copied, "build", check=False).stderr


def test_jobs_side_by_side_change_no_order(copied: SiteCopy) -> None:
    make(copied, "-j8", "configure.xen", "build")
    assert (copied.folder / "mirage" / "dist" / "www.xen").exists()


def test_what_is_built_is_no_change_to_the_repository(copied: SiteCopy) -> None:
    (copied.folder / "tls").mkdir()
    for name in ("server.pem", "server.key"):
        (copied.folder / "tls" / name).write_text("secret\n")
    make(copied, "configure.hvt", "build", "certificates.img")
    assert run("git", "status", "--porcelain", cwd=copied.folder).stdout == ""


def test_the_image_is_called_as_it_is_registered() -> None:
    registered = re.search(r'register "(\w+)"', (SITE / "mirage" / "config.ml").read_text())
    named = re.search(r"^NAME := (\w+)$", (SITE / "Makefile").read_text(), re.MULTILINE)
    assert registered is not None
    assert named is not None
    assert registered[1] == named[1]


# The volume with the certificate.


@pytest.fixture
def volume(copied: SiteCopy) -> Path:
    """A volume that was made of a certificate and its key."""
    (copied.folder / "tls").mkdir()
    for name in ("server.pem", "server.key"):
        (copied.folder / "tls" / name).write_text(f"{name}\n" * 100)
    make(copied, "certificates.img")
    return copied.folder / "certificates.img"


def test_the_volume_holds_the_certificate_and_its_key_at_its_top(volume: Path) -> None:
    with tarfile.open(volume) as archive:
        assert archive.getnames() == ["server.pem", "server.key"]


def test_the_volume_is_whole_sectors(volume: Path) -> None:
    assert volume.stat().st_size % 512 == 0


def test_the_volume_can_be_read_by_its_owner_alone(volume: Path) -> None:
    assert stat.S_IMODE(volume.stat().st_mode) == 0o600


def test_a_certificate_that_was_renewed_makes_another_volume(
    copied: SiteCopy, volume: Path
) -> None:
    key = copied.folder / "tls" / "server.key"
    key.write_text("renewed\n")
    os.utime(key, (volume.stat().st_mtime + 10,) * 2)
    make(copied, "certificates.img")
    assert b"renewed" in volume.read_bytes()


# The pages.


@pytest.fixture
def pages(copied: SiteCopy) -> Path:
    """The pages, as Jekyll makes them."""
    (copied.programs / "jekyll").unlink()
    if shutil.which("jekyll") is None:
        pytest.skip("there is no jekyll here (Debian: jekyll)")
    make(copied, "site")
    return copied.folder / "mirage" / "htdocs"


def test_jekyll_makes_the_pages_and_nothing_else(copied: SiteCopy, pages: Path) -> None:
    made = sorted(str(path.relative_to(pages)) for path in pages.rglob("*") if path.is_file())
    assert made == ["404.html", "about/index.html", "index.html", "style.css"]
    assert run("git", "status", "--porcelain", cwd=copied.folder).stdout == ""


def test_every_link_of_a_page_leads_to_a_page(pages: Path) -> None:
    for page in pages.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"]*)"', page.read_text()):
            target = pages / link.lstrip("/")
            assert (target / "index.html" if link.endswith("/") else target).is_file(), link


def test_a_page_has_its_title_and_its_text(pages: Path) -> None:
    page = (pages / "index.html").read_text()
    assert "<title>Welcome - A small site</title>" in page
    assert "<p>This page is part of a program" in page


# What its page says.


def test_the_manifest_of_its_page_is_one(folder: Path) -> None:
    (folder / description.NAME).write_text(page_manifest())
    run("git", "add", ".", cwd=folder)
    run("git", "commit", "-qm", "a manifest", cwd=folder)
    guests = description.describe(Repository(folder).tip("main"), {})
    assert [(guest.name, guest.image) for guest in guests or ()] == [
        ("www", "xen/{latest}/www.xen.bz2")
    ]
