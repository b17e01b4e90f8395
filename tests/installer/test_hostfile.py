"""What `install` finds in a repository without a manifest, and what it makes of it."""

from pathlib import Path

import pytest

from mirage_hooks.boot import host
from support import COMMAND, Site, run

SHA = "0123456789012345678901234567890123456789"
WWW = "unix/{latest}/mir-www.unix.bz2"


@pytest.fixture
def bare_site(site: Site) -> Site:
    """A clone of a repository without a manifest: one unix image and one xen image."""
    (site.upstream / "mirage-hooks.toml").unlink()
    run("git", "rm", "-rq", "unix", cwd=site.upstream)
    add(site, "unix", "mir-www.unix.bz2")
    add(site, "xen", "mortio.xen.bz2")
    site.commit("the convention")
    site.pull()
    return site


def add(site: Site, folder: str, name: str, sha: str = SHA) -> None:
    """Put an image, a packed one by its name, and its pointer into the upstream's work tree."""
    place = site.upstream / folder / sha
    place.mkdir(parents=True, exist_ok=True)
    image = place / name.removesuffix(".bz2")
    image.write_bytes(site.compiled("one").read_bytes())
    if name.endswith(".bz2"):
        run("bzip2", "-9", str(image), cwd=place)
    (place.parent / "latest").write_text(f"{sha}\n")


def guests_of(site: Site) -> dict[str, dict[str, object]]:
    return host.load(site.state.host_file)[0].guest


def test_a_guest_that_is_found_is_described_in_the_host_file(bare_site: Site) -> None:
    bare_site.install()
    assert guests_of(bare_site) == {"www": {"target": "unix", "image": WWW}}


def test_install_says_what_it_found(bare_site: Site) -> None:
    said = bare_site.install().stdout
    assert f"found by convention: guest www (unix), image {WWW}" in said


def test_what_this_host_does_not_run_is_said_and_not_taken(bare_site: Site) -> None:
    said = bare_site.install().stdout
    assert (
        "found, but not taken: mortio (xen), image xen/{latest}/mortio.xen.bz2: "
        "`targets` in [limits] of host.toml does not have xen" in said
    )


def test_the_dry_run_shows_the_first_plan(bare_site: Site) -> None:
    bare_site.install()
    said = bare_site.command("deploy", "--dry-run").stdout
    assert "www: start: first boot of image unix/…/mir-www.unix.bz2" in said
    assert bare_site.live() is None


def test_a_guest_that_was_found_is_deployed_by_a_pull(bare_site: Site) -> None:
    bare_site.install()
    with bare_site.state.host_file.open("a") as file:
        file.write(f'args = ["--ipv4=127.0.0.1/8", "--port={bare_site.port}"]\n')
    add(bare_site, "unix", "mir-www.unix.bz2", sha="1" * 40)
    bare_site.commit("the next")
    bare_site.pull()
    assert bare_site.page() == "one"


def test_a_second_install_takes_nothing_that_the_operator_took_out(bare_site: Site) -> None:
    bare_site.install()
    host_file = bare_site.state.host_file
    host_file.write_text(host_file.read_text().replace("[guest.www]", "[guest.other]"))
    said = bare_site.install().stdout
    assert list(guests_of(bare_site)) == ["other"]
    assert f"to take it: mirage-hooks install --guest www --target unix --image '{WWW}'" in said


def test_what_a_second_install_says_takes_what_came_later(bare_site: Site) -> None:
    bare_site.install()
    add(bare_site, "unix", "blog.unix")
    bare_site.commit("a second image")
    bare_site.pull()
    said = bare_site.install().stdout
    command = said.partition("to take it: mirage-hooks ")[2].partition("\n")[0]
    run("sh", "-c", f"{COMMAND} {command}", cwd=bare_site.clone)
    assert sorted(guests_of(bare_site)) == ["blog", "www"]


def test_guests_that_are_named_are_not_looked_for(bare_site: Site) -> None:
    bare_site.install("--guest", "mine", "--target", "unix", "--image", WWW)
    assert list(guests_of(bare_site)) == ["mine"]


def test_a_repository_with_a_manifest_has_only_its_guests(site: Site) -> None:
    said = site.install().stdout
    assert "found" not in said
    assert guests_of(site) == {}


def test_a_damaged_pointer_is_said_and_the_rest_is_found(bare_site: Site) -> None:
    (bare_site.upstream / "xen" / "latest").write_text("one\ntwo\n")
    bare_site.commit("a pointer of two lines")
    bare_site.pull()
    said = bare_site.install().stdout
    assert "passed over: pointer xen/latest holds 'one\\ntwo\\n'" in said
    assert list(guests_of(bare_site)) == ["www"]


def test_names_are_found_in_history_where_the_image_is_still_to_come(bare_site: Site) -> None:
    (bare_site.upstream / "unix" / "latest").write_text(f"{'2' * 40}\n")
    bare_site.commit("the pointer before its image")
    bare_site.pull()
    bare_site.install()
    assert guests_of(bare_site) == {"www": {"target": "unix", "image": WWW}}
    said = bare_site.command("deploy", "--dry-run").stdout
    assert "www: skip: there is no image" in said


def test_doctor_names_an_image_that_is_no_guest_s(bare_site: Site) -> None:
    bare_site.install()
    said = bare_site.command("doctor").stdout
    assert f"xen/{SHA}/mortio.xen.bz2 is the image of no guest here" in said


def test_an_empty_bare_repository_waits_for_its_first_push(tmp_path: Path) -> None:
    run("git", "init", "-q", "--bare", "host.git", cwd=tmp_path)
    said = run(COMMAND, "install", "host.git", cwd=tmp_path).stdout
    assert "From now on a pull or a push of main deploys it." in said
