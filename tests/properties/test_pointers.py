"""Any bytes as a pointer: the image beside it, or a refusal; never anything elsewhere."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirage_hooks.boot import artifact
from mirage_hooks.boot.artifact import Artifact, Missing
from mirage_hooks.boot.errors import RepositoryError
from strategies import AWKWARD, FILE, FOLDER, LINK, Objects, assert_told, examples

# What each template makes of a pointer's text, below the folder the pointer is in.
TEMPLATES = {
    "unix/{latest}/www": "{}/www",
    "unix/{latest}": "{}",
    "unix/www-{latest}.unix": "www-{}.unix",
    "unix/.{latest}": ".{}",
    "unix/{latest}{latest}/www": "{0}{0}/www",
}
LETTERS = st.text(st.sampled_from(AWKWARD + "af0"), max_size=6)
CONTENTS = (
    st.binary(max_size=12)
    | LETTERS.map(str.encode)
    | st.text(st.characters(codec="utf-8"), max_size=300).map(str.encode)
    | st.builds(str.__add__, LETTERS, st.sampled_from(["\n", "\r\n", "\r", "\n\n"])).map(str.encode)
    | st.from_regex(rb"[0-9a-f]{40}\n?", fullmatch=True)
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """A repository whose objects are written by hand."""
    return Objects(tmp_path_factory.mktemp("repository") / "bare.git")


def names(data: bytes) -> str | None:
    """Return what a pointer names, None where it may name nothing: the rules, written anew."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    for end in ("\n", "\r"):
        text = text[:-1] if text.endswith(end) else text
    plain = all(char.isprintable() and char != "/" for char in text)
    sound = 0 < len(text.encode()) <= 255 and text not in {".", ".."} and text[0] != "-"
    return text if plain and sound else None


def follow(objects: Objects, data: bytes, template: str) -> tuple[Artifact | None, bool]:
    """Follow a pointer in a repository full of bait; return the image, and whether it was refused.

    The image stands where the pointer says, if git can hold a name like that.
    """
    image, outside = objects.blob(b"image"), objects.blob(b"outside")
    bait = [(FILE, "www", outside), (LINK, "link", objects.blob(b"../www"))]
    inside = {"latest": (FILE, "latest", objects.blob(data))}
    named = names(data)
    if named is not None:
        first, *rest = TEMPLATES[template].format(named).split("/")
        if first != "latest":
            tree = objects.tree((FILE, name, image) for name in rest)
            inside[first] = (FOLDER, first, tree) if rest else (FILE, first, image)
    unix = objects.tree([*inside.values(), *(one for one in bait if one[1] not in inside)])
    revision = objects.revision(objects.tree([*bait, (FOLDER, "unix", unix)]))
    try:
        return artifact.locate(revision, template), False
    except Missing as missing:
        assert_told(missing)
        return None, False
    except RepositoryError as error:
        assert_told(error)
        return None, True


@examples(120)
@given(CONTENTS, st.sampled_from(list(TEMPLATES)))
@example(b".", "unix/.{latest}")
@example(b"..", "unix/{latest}")
@example(b"../www", "unix/{latest}")
@example(b"www\0", "unix/{latest}")
@example(b"\n", "unix/{latest}{latest}/www")
@example(b"{latest}", "unix/{latest}{latest}/www")
@example(b"{0}", "unix/www-{latest}.unix")
@example(b"latest\n", "unix/{latest}")
@example("\u202egpj".encode(), "unix/{latest}/www")
@example(b"a" * 255 + b"\r\n", "unix/{latest}/www")
@example(b"a" * 256, "unix/{latest}/www")
@example(b"x" * 1025, "unix/{latest}/www")
def test_a_pointer_leads_to_what_it_names_beside_it_or_is_refused(
    objects: Objects, data: bytes, template: str
) -> None:
    found, refused = follow(objects, data, template)
    named = names(data)
    if named is None or len(data) > 1024:
        assert refused
        return
    if found is None:
        # git keeps names for itself: they can be written by hand, and are not read.
        assert refused or named == "latest"
        return
    assert found.pointers == {"unix/latest": named}
    assert found.blob.path == f"unix/{TEMPLATES[template].format(named)}"
    assert found.watched == ("unix/latest", found.blob.path)
    if named != "latest":
        assert found.blob.oid == objects.blob(b"image")


@examples(60)
@given(CONTENTS, CONTENTS)
def test_a_pointer_to_a_pointer_never_leaves_the_folder_of_the_first(
    objects: Objects, outer: bytes, inner: bytes
) -> None:
    image = objects.blob(b"image")
    one, two = names(outer), names(inner)
    root = [(FILE, "latest", objects.blob(outer)), (FILE, "www", image)]
    if one not in {None, "latest", "www"}:
        folder = [(FILE, "latest", objects.blob(inner))]
        if two not in {None, "latest"}:
            folder.append((FOLDER, str(two), objects.tree([(FILE, "www", image)])))
        root.append((FOLDER, str(one), objects.tree(folder)))
    revision = objects.revision(objects.tree(root))
    try:
        found = artifact.locate(revision, "{latest}/{latest}/www")
    except (Missing, RepositoryError) as error:
        assert_told(error)
        return
    assert found.blob.path == f"{one}/{two}/www"
    assert found.pointers == {"latest": one, f"{one}/latest": two}
