"""Any tree, any image path, any name, time and address: a plain answer, or a plain refusal."""

import math
import posixpath
import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import PurePosixPath
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirage_hooks.boot import artifact
from mirage_hooks.boot.artifact import Missing
from mirage_hooks.boot.device import HOST_NETWORK, NetworkConfig
from mirage_hooks.boot.errors import ConfigError, Error, RepositoryError
from mirage_hooks.boot.guest import check_name, seconds, split_address, split_url
from strategies import (
    ANY_TEXT,
    FILE,
    FOLDER,
    LINK,
    NAMES,
    PROGRAM,
    SUBMODULE,
    Objects,
    assert_told,
    examples,
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """A repository whose objects are written by hand."""
    return Objects(tmp_path_factory.mktemp("repository") / "bare.git")


# Trees. What a tree holds is known here as a dictionary: a folder is one, too.


@dataclass(frozen=True)
class Leaf:
    """What is no folder: its mode, and what it holds."""

    mode: int
    data: bytes = b"image"


Folder = dict[str, "Leaf | Folder"]

COMPONENTS = st.sampled_from(
    ["latest", "a", "b", "www", "a b", "ü", "{latest}", "a\\b", "...", "\n"]
)
POINTED = st.sampled_from(
    [b"a\n", b"b", b"a b\r\n", "ü".encode(), b"{latest}", b"...", b"../a", b""]
)
LEAVES = st.builds(Leaf, st.sampled_from([FILE, PROGRAM]), st.just(b"image") | POINTED) | st.builds(
    Leaf, st.sampled_from([LINK, SUBMODULE, FILE]), st.sampled_from([b"a", b"../www", b""])
)
POINTERS = st.builds(Leaf, st.just(FILE), POINTED)
TREES: st.SearchStrategy[Folder] = st.recursive(
    st.dictionaries(COMPONENTS, LEAVES, max_size=3),
    lambda inner: st.builds(
        lambda folder, pointer: {**folder, **({"latest": pointer} if pointer else {})},
        st.dictionaries(COMPONENTS, inner | LEAVES, min_size=1, max_size=4),
        st.none() | POINTERS,
    ),
    max_leaves=8,
)
TEMPLATES = st.lists(
    COMPONENTS | st.sampled_from(["{latest}", "x{latest}", "{latest}{latest}"]),
    min_size=1,
    max_size=4,
).map("/".join)


def write(objects: Objects, folder: Folder) -> str:
    """Write a tree; return its id."""
    entries = []
    for name, node in folder.items():
        if isinstance(node, dict):
            entries.append((FOLDER, name, write(objects, node)))
        elif node.mode == SUBMODULE:
            entries.append((SUBMODULE, name, "1" * 40))  # a commit that is not here
        else:
            entries.append((node.mode, name, objects.blob(node.data)))
    return objects.tree(entries)


def at(folder: Folder, path: str) -> "Leaf | Folder | None":
    """Return what stands at a path, None where nothing does."""
    node: Leaf | Folder | None = folder
    for name in path.split("/"):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def ways(path: str) -> list[str]:
    """Return the paths that a path leads through, itself the last."""
    parts = path.split("/")
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def spoilt(folder: Folder, path: str, *, pointer: bool) -> bool:
    """Whether a path leads to or through what can be no image, or no pointer."""
    *through, node = (at(folder, way) for way in ways(path))
    if any(isinstance(one, Leaf) and one.mode in {LINK, SUBMODULE} for one in (*through, node)):
        return True
    if isinstance(node, dict) or node is None:
        return isinstance(node, dict)
    return node.data in {b"", b"../a", b"../www"} if pointer else not node.data


@examples(200)
@given(TREES, TEMPLATES)
@example({"a": Leaf(SUBMODULE)}, "a/www")
@example({"latest": Leaf(LINK, b"a"), "a": {"www": Leaf(FILE)}}, "{latest}/www")
@example({"latest": Leaf(FILE, b"a"), "a": Leaf(LINK, b"b"), "b": Leaf(FILE)}, "{latest}")
@example({"latest": Leaf(FILE, b"\n")}, "{latest}")
def test_an_image_is_a_file_at_exactly_the_path_that_is_said(
    objects: Objects, tree: Folder, template: str
) -> None:
    revision = objects.revision(write(objects, tree))
    try:
        found = artifact.locate(revision, template)
    except Missing as missing:
        assert_told(missing)
        assert at(tree, missing.watched[-1]) is None
        return
    except RepositoryError as error:
        assert_told(error)
        return
    node = at(tree, found.blob.path)
    assert isinstance(node, Leaf)
    assert node.mode in {FILE, PROGRAM}
    assert found.blob.oid == objects.blob(node.data)
    with found.blob.open() as stream:
        assert stream.read() == node.data
    # The path is the template's, word by word, with what the pointers say.
    texts = iter(found.pointers.items())
    said: dict[str, str] = {}
    for place, component in zip(ways(found.blob.path), template.split("/"), strict=True):
        pointer = posixpath.join(posixpath.dirname(place), "latest")
        if "{latest}" in component:
            said = dict([next(texts)])
            held = at(tree, pointer)
            assert isinstance(held, Leaf)
            assert said == {pointer: held.data.decode().rstrip("\r\n")}
        expected = component.replace("{latest}", said.get(pointer, ""))
        assert posixpath.basename(place) == expected
    assert next(texts, None) is None


@examples(150)
@given(TREES, st.lists(COMPONENTS, min_size=1, max_size=3).map("/".join))
def test_a_plain_path_is_refused_only_for_what_stands_in_the_tree(
    objects: Objects, tree: Folder, path: str
) -> None:
    path = path.replace("{latest}", "a")
    revision = objects.revision(write(objects, tree))
    try:
        found: str | None = artifact.locate(revision, path).blob.path
    except Missing:
        found = None
    except RepositoryError as error:
        assert_told(error)
        assert spoilt(tree, path, pointer=False)
        return
    assert not spoilt(tree, path, pointer=False)
    assert (found is None) == (at(tree, path) is None)


@examples(100)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "a b", "ü", "a\\b", "..."]), st.booleans()), max_size=4
    )
)
def test_an_image_behind_any_row_of_folders_and_pointers_is_found(
    objects: Objects, steps: list[tuple[str, bool]]
) -> None:
    tree: Folder = {"image": Leaf(PROGRAM)}
    for name, by_pointer in reversed(steps):
        tree = {name: tree, **({"latest": Leaf(FILE, name.encode())} if by_pointer else {})}
    template = ["{latest}" if by_pointer else name for name, by_pointer in steps]
    revision = objects.revision(write(objects, tree))
    found = artifact.locate(revision, "/".join([*template, "image"]))
    assert found.blob.path == "/".join([*(name for name, _ in steps), "image"])
    assert len(found.pointers) == sum(by_pointer for _, by_pointer in steps)


ENTRY = st.builds(
    lambda mode, name, oid: mode + b" " + name + b"\0" + oid,
    st.sampled_from([b"100644", b"100755", b"40000", b"120000", b"160000", b"0", b"777777", b"8"])
    | st.binary(max_size=7),
    st.sampled_from([b"www", b"latest", b"a", b"..", b".git", b"a/b", b"\xff", b""]) | st.binary(),
    st.binary(min_size=18, max_size=21) | st.just(b"\1" * 20),
)
SOUND = re.compile(rb"([0-7]{5,6} [^\0/]+\0.{20})*", re.DOTALL)


@examples(100)
@example(b"100644 www\0" + b"\1" * 20, "www")
@example(b"\0" + b"100644 www\0" + b"\1" * 20, "www")
@given(
    st.lists(ENTRY | st.binary(max_size=9), max_size=4).map(b"".join),
    st.sampled_from(["www", "a/www", "{latest}/www"]),
)
def test_a_damaged_tree_is_no_file_or_an_error(
    objects: Objects, content: bytes, template: str
) -> None:
    revision = objects.revision(objects.write("tree", content))
    try:
        found = artifact.locate(revision, template)
    except Error as error:
        assert_told(error)
    else:  # What is thrown together may be a sound tree.
        assert SOUND.fullmatch(content)
        assert b" www\0" + bytes.fromhex(found.blob.oid) in content


@pytest.mark.parametrize("kind", ["blob", "commit", "tag"])
def test_a_folder_that_is_another_object_is_no_folder(objects: Objects, kind: str) -> None:
    other = objects.write(kind, b"tree " + b"1" * 40 + b"\n")
    with pytest.raises(RepositoryError) as error:
        artifact.locate(objects.revision(objects.tree([(FOLDER, "a", other)])), "a/www")
    assert_told(error.value)


@examples(40)
@given(st.binary(max_size=80))
@example(b"")
@example(b"tree")
@example(b"tree aa")
@example(b"tree " + b"z" * 40 + b"\nauthor A <a> 0 +0000\ncommitter A <a> 0 +0000\n\n")
@example(b"tree " + b"1" * 40 + b"\nparent " + b"z" * 40 + b"\n")
def test_a_damaged_commit_is_an_error(objects: Objects, content: bytes) -> None:
    with pytest.raises(Error) as error:
        artifact.locate(objects.commit(content), "www")
    assert_told(error.value)


@examples(40)
@given(st.binary(max_size=20), st.binary(max_size=20), st.binary(max_size=40))
@example(b"A <a> 0 +0000", b"klingon", b"\xff")
@example(b"A <a> 99999999999999999999 +9999999", b"hex", b"gpgsig x\n y")
@example(b"\xff", b"\xff\xfe", b"")
def test_whoever_made_a_commit_its_tree_is_read(
    objects: Objects, who: bytes, encoding: bytes, rest: bytes
) -> None:
    tree = objects.tree([(FILE, "www", objects.blob(b"image"))]).encode()
    # A line that starts with a line end would be the end of the headers.
    lines = [b"tree " + tree, b"author " + who, b"committer " + who, b"encoding " + encoding, rest]
    found = artifact.locate(objects.commit(b"\n".join(lines)), "www")
    assert found.blob.oid == objects.blob(b"image")


@examples(200)
@given(ANY_TEXT | TEMPLATES | st.lists(st.sampled_from(["..", ".", "", "a", "\n"])).map("/".join))
def test_an_image_path_that_is_taken_stays_where_it_is(template: str) -> None:
    try:
        artifact.check_template(template)
    except ConfigError as error:
        assert_told(error)
        return
    path = PurePosixPath("/root") / template
    assert posixpath.normpath(path).startswith("/root/")
    assert str(path) == f"/root/{template}"
    assert template.isprintable()


# Names.


@examples(200)
@given(ANY_TEXT | NAMES | st.builds(str.__add__, NAMES, ANY_TEXT))
@example("www\n")
@example("a" * 101)
@example("ａ")
@example("w\u0301")
def test_any_text_that_names_a_guest_is_plain_ascii(name: str) -> None:
    try:
        assert check_name(name) == name
    except ValueError as error:
        assert "cannot name a guest" in str(error)
        return
    assert name.isascii()
    assert name.isprintable()
    assert len(name) <= 100
    assert not set(name) & set("/ \\\"'$`*?[]~:")
    assert name[0].isalpha()


# Times.


@examples(200)
@given(
    ANY_TEXT
    | st.from_regex(r"\d{1,12}(\.\d{1,12})?(ms|s|m|h)\n?", fullmatch=True)
    | st.text("0123456789.+-e_ smhµ", max_size=8)
)
@example("٣s")
@example("1_0s")
@example("1s\n")
def test_any_text_is_a_time_as_it_reads_or_refused(text: str) -> None:
    try:
        found = seconds(text)
    except ValueError as error:
        assert "is no duration" in str(error)
        return
    number = text.rstrip("msh")
    unit = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[text[len(number) :]]
    assert set(number) <= set("0123456789.")
    assert found == pytest.approx(float(number) * unit)
    assert math.isfinite(found)


# Addresses.

PORTS = st.integers(-1, 70_000) | st.sampled_from([0, 80, 65_535, 65_536, 10**30])
HOSTS = st.ip_addresses().map(str) | st.sampled_from(["localhost", "a.b-c.example", "münchen.de"])
BAD_HOSTS = ANY_TEXT | st.sampled_from(["", ".", "a..b", "a" * 64, "xn--", "[::1", "::1]", "٣.٣"])


@examples(200)
@given(
    ANY_TEXT | st.builds("{}:{}".format, HOSTS | BAD_HOSTS, PORTS) | st.text("[]:.0a%", max_size=9)
)
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        host, port = split_address(text)
    except ValueError as error:
        assert "is no address" in str(error)
        return
    assert 0 < port < 65_536
    assert host
    assert host.isprintable()
    assert text.endswith(f":{port:d}") or int(text.rpartition(":")[2]) == port


@examples(100)
@given(st.ip_addresses(), st.integers(1, 65_535))
def test_every_address_is_split_into_what_it_was_made_of(address: object, port: int) -> None:
    host = str(address)
    shown = f"[{host}]" if ":" in host else host
    assert split_address(f"{shown}:{port}") == (host, port)
    assert split_url(f"http://{shown}:{port}/x?y") == (host, port)


URLS = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "https", "ftp", "HTTP", "", "file"]) | ANY_TEXT,
    st.sampled_from(["", "me@", "me:you@"]),
    HOSTS | BAD_HOSTS | st.ip_addresses(v=6).map("[{}]".format),
    st.just("") | PORTS.map(":{}".format) | ANY_TEXT,
    ANY_TEXT.map(lambda text: "/" + quote(text, errors="replace")) | ANY_TEXT,
)


@examples(200)
@given(ANY_TEXT | URLS | st.text("htps:/[]@?#%.0a", max_size=14))
@example("http://[::1")
@example("http://a\u2100b/")
@example("http://10.0.0.2:٣/")
def test_any_text_is_a_page_to_ask_for_or_refused(text: str) -> None:
    try:
        host, port = split_url(text)
    except ValueError as error:
        assert "is no address" in str(error)
        return
    assert 0 < port < 65_536
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert re.match("https?://", text, re.IGNORECASE)
    assert host.casefold() in text.casefold()


def test_a_page_at_port_0_is_refused_as_an_address_at_it_is() -> None:
    with pytest.raises(ValueError, match="is no address"):
        split_address("10.0.0.2:0")
    with pytest.raises(ValueError, match="is no address"):
        split_url("http://10.0.0.2:0/")


ADDRESSES = (
    ANY_TEXT
    | st.builds("{}/{}".format, st.ip_addresses(), st.integers(-1, 130) | st.ip_addresses(v=4))
    | st.builds("{}%{}/{}".format, st.ip_addresses(v=6), ANY_TEXT, st.integers(0, 128))
)
GATEWAYS = (
    st.none()
    | ANY_TEXT
    | st.ip_addresses().map(str)
    | st.builds("{}%{}".format, st.ip_addresses(v=6), ANY_TEXT)
)


@examples(300)
@given(
    st.sampled_from([HOST_NETWORK, "public"]) | ANY_TEXT,
    st.none() | ADDRESSES,
    GATEWAYS,
    st.booleans(),
    st.booleans(),
)
@example("public", "fd00::2/64", "fd00::1%\x1b[2J", False, False)
@example("public", "10.0.0.2/24", "fd00::1", False, False)
@example("public", "10.0.0.2/24", "10.0.0.1\n", False, False)
def test_any_network_is_one_that_a_guest_can_be_told_or_refused(
    network: str, address: str | None, gateway: str | None, dhcp: bool, baked: bool
) -> None:
    try:
        config = NetworkConfig(network, address, gateway, dhcp, baked)
    except ValueError as error:
        assert str(error)
        return
    assert (address is not None) + dhcp + baked <= 1
    if address is not None:
        assert config.interfaces == (ip_interface(address),)
        assert address.isascii()
        assert address.isprintable()
        assert "/" in address
    if gateway is not None:
        assert ip_address(gateway) in config.interfaces[0].network
        assert re.fullmatch("[0-9a-fA-F.:]+", gateway)
    if network == HOST_NETWORK:
        assert not dhcp
        assert gateway is None
