"""Which image a guest has at a revision, and how two boots differ."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirage_hooks.boot.artifact import (
    Missing,
    Provenance,
    check_template,
    difference,
    locate,
    mebibytes,
)
from mirage_hooks.boot.device import NetworkConfig, Nic, Volume
from mirage_hooks.boot.errors import ConfigError, RepositoryError
from mirage_hooks.boot.guest import Boot
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Revision
from support import run

TEMPLATE = "unix/{latest}/www.unix"


def commit(folder: Path, files: dict[str, bytes] | None = None) -> Revision:
    """Commit files by their paths; return the revision."""
    for path, data in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "--allow-empty", "-m", "change", cwd=folder)
    return Repository(folder).tip("main")


# From a pointer to an image.


def test_a_plain_path_is_a_plain_path(folder: Path) -> None:
    found = locate(commit(folder, {"www.unix": b"image"}), "www.unix")
    assert (found.blob.path, found.pointers, found.watched) == ("www.unix", {}, ("www.unix",))


def test_a_pointer_leads_to_the_image(folder: Path) -> None:
    found = locate(commit(folder, {"unix/latest": b"f00\n", "unix/f00/www.unix": b"i"}), TEMPLATE)
    assert found.blob.path == "unix/f00/www.unix"


def test_a_pointer_and_what_it_leads_to_are_watched(folder: Path) -> None:
    found = locate(commit(folder, {"unix/latest": b"f00\n", "unix/f00/www.unix": b"i"}), TEMPLATE)
    assert found.watched == ("unix/latest", "unix/f00/www.unix")


def test_what_a_pointer_said_is_recorded(folder: Path) -> None:
    found = locate(commit(folder, {"unix/latest": b"f00\n", "unix/f00/www.unix": b"i"}), TEMPLATE)
    assert found.pointers == {"unix/latest": "f00"}


def test_a_pointer_at_the_root_leads_to_the_image(folder: Path) -> None:
    found = locate(commit(folder, {"latest": b"f00", "f00/www.xen": b"i"}), "{latest}/www.xen")
    assert found.blob.path == "f00/www.xen"


def test_a_pointer_can_be_a_part_of_a_component(folder: Path) -> None:
    found = locate(commit(folder, {"latest": b"f00", "www-f00.unix": b"i"}), "www-{latest}.unix")
    assert found.blob.path == "www-f00.unix"


def test_a_pointer_can_stand_twice_in_a_component(folder: Path) -> None:
    found = locate(commit(folder, {"latest": b"a", "a-a": b"i"}), "{latest}-{latest}")
    assert found.blob.path == "a-a"


def test_a_pointer_can_lead_to_another(folder: Path) -> None:
    files = {"latest": b"v2\n", "v2/latest": b"f00\n", "v2/f00/www": b"i"}
    found = locate(commit(folder, files), "{latest}/{latest}/www")
    assert found.pointers == {"latest": "v2", "v2/latest": "f00"}


def test_a_pointer_that_holds_a_placeholder_is_taken_by_its_letters(folder: Path) -> None:
    found = locate(commit(folder, {"latest": b"{latest}\n", "{latest}/www": b"i"}), "{latest}/www")
    assert found.blob.path == "{latest}/www"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_pointer_may_end_its_line_or_not(folder: Path, end: bytes) -> None:
    found = locate(commit(folder, {"latest": b"f00" + end, "f00/www": b"i"}), "{latest}/www")
    assert found.pointers == {"latest": "f00"}


@pytest.mark.parametrize("name", ["0" * 40, "v1.2", "with space", "ünï", "a" * 255, ".hidden"])
def test_a_pointer_may_name_any_folder(folder: Path, name: str) -> None:
    files = {"latest": f"{name}\n".encode(), f"{name}/www": b"i"}
    assert locate(commit(folder, files), "{latest}/www").blob.path == f"{name}/www"


# What is not there yet.


def test_without_a_pointer_there_is_no_image_yet(folder: Path) -> None:
    with pytest.raises(Missing) as missing:
        locate(commit(folder), TEMPLATE)
    assert missing.value.message == "there is no pointer unix/latest yet"


def test_a_pointer_that_is_missing_is_watched(folder: Path) -> None:
    with pytest.raises(Missing) as missing:
        locate(commit(folder), TEMPLATE)
    assert missing.value.watched == ("unix/latest",)


def test_a_pointer_to_nothing_says_which_image_is_missing(folder: Path) -> None:
    with pytest.raises(Missing) as missing:
        locate(commit(folder, {"unix/latest": b"f00\n"}), TEMPLATE)
    assert missing.value.message == "there is no image unix/f00/www.unix yet"


def test_a_pointer_to_nothing_and_the_missing_image_are_watched(folder: Path) -> None:
    with pytest.raises(Missing) as missing:
        locate(commit(folder, {"unix/latest": b"f00\n"}), TEMPLATE)
    assert missing.value.watched == ("unix/latest", "unix/f00/www.unix")


def test_a_pointer_to_a_folder_without_the_image_leads_to_nothing(folder: Path) -> None:
    files = {"unix/latest": b"f00\n", "unix/f00/config.ml": b"only this was kept"}
    with pytest.raises(Missing, match=r"there is no image unix/f00/www\.unix yet"):
        locate(commit(folder, files), TEMPLATE)


def test_a_plain_path_to_nothing_says_so(folder: Path) -> None:
    with pytest.raises(Missing) as missing:
        locate(commit(folder), "www.unix")
    assert missing.value.message == "there is no image www.unix"


def test_a_path_through_a_file_leads_to_nothing(folder: Path) -> None:
    with pytest.raises(Missing, match=r"there is no image www\.unix/x"):
        locate(commit(folder, {"www.unix": b"i"}), "www.unix/x")


def test_the_pointers_that_led_to_a_missing_one_are_watched_with_it(folder: Path) -> None:
    with pytest.raises(Missing) as missing:
        locate(commit(folder, {"latest": b"v2\n"}), "{latest}/{latest}/www")
    assert missing.value.watched == ("latest", "v2/latest")


# What is refused.

REFUSED = [
    *(b"", b"\n", b"\n\n", b".", b"..", b"..\n", b"/", b"/etc/passwd", b"a/b", b"../a", b"a/../b"),
    *(b"-", b"-f00", b"--output=x", b"a\0b", b"\0", b"a\nb", b"f00\n\n", b"\nf00", b"a\tb"),
    *(b"a\x1bb", b"\x7f", b"a" * 256, "é".encode() * 128, "a\u202eb".encode(), b"\r\n"),
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_pointer_that_is_no_plain_name_is_refused(folder: Path, text: bytes) -> None:
    with pytest.raises(RepositoryError, match=r"^pointer unix/latest holds "):
        locate(commit(folder, {"unix/latest": text}), TEMPLATE)


def test_what_a_refused_pointer_holds_is_shown_without_its_control_characters(folder: Path) -> None:
    with pytest.raises(RepositoryError) as error:
        locate(commit(folder, {"unix/latest": b"a\x1b[2J\nb"}), TEMPLATE)
    assert error.value.message == r"pointer unix/latest holds 'a\x1b[2J\nb'"


def test_a_pointer_that_is_no_text_is_refused(folder: Path) -> None:
    with pytest.raises(RepositoryError, match="unix/latest is not UTF-8 text"):
        locate(commit(folder, {"unix/latest": b"\xff\xfe"}), TEMPLATE)


def test_a_pointer_as_long_as_a_file_is_refused(folder: Path) -> None:
    with pytest.raises(RepositoryError, match="unix/latest has 2000 bytes, more than 1024"):
        locate(commit(folder, {"unix/latest": b"a" * 2000}), TEMPLATE)


def test_a_pointer_that_is_a_symbolic_link_is_refused(folder: Path) -> None:
    (folder / "latest").symlink_to("f00")
    with pytest.raises(RepositoryError, match="latest is a symbolic link, no file"):
        locate(commit(folder, {"f00/www": b"i"}), "{latest}/www")


def test_a_pointer_that_is_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(RepositoryError, match="latest is a folder, no file"):
        locate(commit(folder, {"latest/www": b"i"}), "{latest}/www")


def test_an_image_that_is_a_symbolic_link_is_refused(folder: Path) -> None:
    (folder / "www.unix").symlink_to("/bin/true")
    with pytest.raises(RepositoryError, match=r"www\.unix is a symbolic link, no file"):
        locate(commit(folder), "www.unix")


def test_an_image_that_is_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(RepositoryError, match=r"www\.unix is a folder, no file"):
        locate(commit(folder, {"www.unix/x": b"i"}), "www.unix")


def test_an_image_that_is_a_submodule_is_refused(folder: Path) -> None:
    linked = commit(folder).id
    run("git", "update-index", "--add", "--cacheinfo", f"160000,{linked},www.unix", cwd=folder)
    run("git", "commit", "-q", "-m", "submodule", cwd=folder)
    with pytest.raises(RepositoryError, match=r"www\.unix is a submodule, no file"):
        locate(Repository(folder).tip("main"), "www.unix")


def test_an_image_in_a_submodule_is_refused(folder: Path) -> None:
    linked = commit(folder).id
    run("git", "update-index", "--add", "--cacheinfo", f"160000,{linked},unix", cwd=folder)
    run("git", "commit", "-q", "-m", "submodule", cwd=folder)
    with pytest.raises(RepositoryError, match="unix is a submodule, no file"):
        locate(Repository(folder).tip("main"), TEMPLATE)


def test_an_empty_image_is_refused(folder: Path) -> None:
    with pytest.raises(RepositoryError, match=r"image www\.unix is empty"):
        locate(commit(folder, {"www.unix": b""}), "www.unix")


def test_any_pointer_names_one_thing_beside_it_or_is_refused(folder: Path) -> None:
    # Bait: a pointer that escaped would find it.
    commit(folder, {"www": b"outside", "unix/www": b"outside"})

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=12)
        | st.text(alphabet="./-a\\\0\n\r\u2028", max_size=6).map(str.encode)
        | st.text(st.characters(codec="utf-8")).map(str.encode)
    )
    @example(b"..")
    @example(b"../unix")
    @example(b".\r\n")
    def property_holds(data: bytes) -> None:
        revision = commit(folder, {"unix/latest": data})
        with pytest.raises((Missing, RepositoryError)) as error:
            locate(revision, "unix/{latest}/www")
        if isinstance(error.value, Missing):
            root, name, image = error.value.watched[-1].split("/")
            assert (root, image) == ("unix", "www")
            assert name not in {"", ".", ".."}
            assert name.isprintable()
            assert not name.startswith("-")

    property_holds()


# Image paths.


@pytest.mark.parametrize("template", ["www", "a/b/c", TEMPLATE, "a b", "ünï/www", "...", "a..b"])
def test_a_path_inside_the_repository_is_taken(template: str) -> None:
    assert check_template(template) == template


@pytest.mark.parametrize(
    "template",
    [
        *("", "/", "/etc/passwd", "a/", "a//b", ".", "./a", "..", "../a", "a/../b", "a/..", "a/."),
        *("a\0b", "a\nb", "a\tb", "\x1b", "a\u2028b"),
    ],
)
def test_a_path_that_may_leave_the_repository_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="is no path inside the repository"):
        check_template(template)


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text(alphabet="./a{latest}"))
def test_any_path_that_is_taken_stays_below_where_it_starts(template: str) -> None:
    try:
        check_template(template)
    except ConfigError:
        return
    assert not Path(template).is_absolute()
    assert not {"", ".", ".."} & set(template.split("/"))


# In words.

BOOT = Boot(target="unix", image="a" * 64, arguments=("--port=80",))


def differ(**changes: object) -> str:
    """Return how a boot with some fields changed differs from BOOT."""
    return difference(BOOT, msgspec.structs.replace(BOOT, **changes), "unix/…/www.unix", "1.0 MiB")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "b" * 64}, "image unix/…/www.unix aaaaaaa -> bbbbbbb (1.0 MiB)"),
        ({"target": "hvt"}, "target unix -> hvt"),
        ({"memory": 64}, "memory 32 -> 64 MiB"),
        ({"user": "www"}, "user None -> www"),
        ({"arguments": ("--port=81",)}, "arguments --port=80 -> --port=81"),
        ({"arguments": ()}, "arguments --port=80 -> none"),
        ({"secrets": "c" * 64}, "secrets changed"),
    ],
    ids=["image", "target", "memory", "user", "arguments", "no arguments", "secrets"],
)
def test_a_change_is_told_in_words(changes: dict[str, object], words: str) -> None:
    unchanged = "" if {"arguments", "target"} & changes.keys() else "; network unchanged"
    assert differ(**changes) == words + unchanged


def test_several_changes_are_told_in_one_line() -> None:
    assert differ(image="b" * 64, memory=64) == (
        "image unix/…/www.unix aaaaaaa -> bbbbbbb (1.0 MiB); memory 32 -> 64 MiB; network unchanged"
    )


def test_a_change_of_the_network_is_told_by_its_addresses() -> None:
    network = {"service": NetworkConfig(address="10.0.0.2/24")}
    assert differ(network=network) == "network none -> service 10.0.0.2/24"


def test_a_change_of_the_gateway_alone_is_told() -> None:
    one, two = (
        NetworkConfig(network="public", address="10.0.0.2/24", gateway=gateway)
        for gateway in ("10.0.0.1", "10.0.0.254")
    )
    old = msgspec.structs.replace(BOOT, network={"service": one})
    new = msgspec.structs.replace(BOOT, network={"service": two})
    assert "10.0.0.254" in difference(old, new, "www.unix", "1.0 MiB")


@pytest.mark.parametrize(
    ("field", "before", "after", "words"),
    [
        (
            "volumes",
            Volume("/srv/x.img"),
            Volume("/srv/x.img", readonly=True),
            "volumes /srv/x.img -> /srv/x.img (read only)",
        ),
        (
            "nics",
            Nic("user", mac="02:00:00:00:00:01"),
            Nic("user", mac="02:00:00:00:00:01", forward=("127.0.0.1:8080:80",)),
            "network bound to user 02:00:00:00:00:01 -> user 02:00:00:00:00:01 127.0.0.1:8080:80",
        ),
        (
            "network",
            NetworkConfig("public", dhcp=True),
            NetworkConfig("inner", dhcp=True),
            "network service on public -> service on inner",
        ),
    ],
)
def test_the_two_sides_of_a_change_never_read_the_same(
    field: str, before: object, after: object, words: str
) -> None:
    both = {"network": {"service": NetworkConfig("public")}}
    old = msgspec.structs.replace(BOOT, **{**both, field: {"service": before}})
    new = msgspec.structs.replace(BOOT, **{**both, field: {"service": after}})
    assert words in difference(old, new, "www.unix", "1.0 MiB")


def test_arguments_that_changed_with_the_network_are_told_too() -> None:
    network = {"service": NetworkConfig(address="10.0.0.2/24")}
    arguments = ("--ipv4=10.0.0.2/24", "--port=81")
    assert "--port=81" in differ(network=network, arguments=arguments)


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0.0 KiB"), (1024, "1.0 KiB"), (2**20, "1.0 MiB"), (2**20 // 2, "0.5 MiB")],
)
def test_a_size_is_told_as_people_read_it(size: int, words: str) -> None:
    assert mebibytes(size) == words


def test_a_compressed_image_is_told_with_both_sizes() -> None:
    provenance = Provenance("c", "www.unix.bz2", "b", {}, "bzip2", 2**20, 3 * 2**20)
    assert provenance.describe() == "1.0 MiB bzip2, 3.0 MiB"


def test_an_image_as_it_is_is_told_with_its_size() -> None:
    assert Provenance("c", "www.unix", "b", {}, "none", 2**20, 2**20).describe() == "1.0 MiB"
