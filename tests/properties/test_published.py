"""Where published images go: each guest always has what was published last for it."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirage_hooks.boot import artifact, convention, outdated, placement, provenance
from mirage_hooks.boot.provenance import Origin, Publication
from mirage_hooks.boot.revision import Revision
from strategies import FILE, FOLDER, NAMES, Objects, examples

GUESTS = st.sampled_from(["www", "api", "mir-www", "a.unix"])
COMMITS = st.sampled_from([f"{number:040x}" for number in range(1, 5)])
KEEP = st.none() | st.integers(1, 3)
STEPS = st.lists(st.tuples(GUESTS, COMMITS, KEEP), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return Objects(tmp_path_factory.mktemp("published") / "objects.git")


def tree(objects: Objects, files: dict[str, str]) -> str:
    """Write the tree that has blobs by their paths; return its id."""
    folders: dict[str, dict[str, str]] = {}
    entries = []
    for path, oid in files.items():
        name, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(name, {})[rest] = oid
        else:
            entries.append((FILE, name, oid))
    below = [(FOLDER, name, tree(objects, inner)) for name, inner in folders.items()]
    return objects.tree([*entries, *below])


class Shelves:
    """A deployment repository, as a sequence of publications leaves it."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.files: dict[str, str] = {}

    @property
    def revision(self) -> Revision:
        return self.objects.revision(tree(self.objects, self.files))

    def publish(self, guest: str, commit: str, content: bytes, keep: int | None, now: str) -> str:
        """Publish an image for a guest; return its blob."""
        revision = self.revision
        shelf = placement.find(revision, guest, "unix", None)
        place = placement.place(shelf.guest.image, commit)
        blob = self.objects.blob(content)
        published = Publication(guest, "unix", place.path, "", "", Origin(commit))
        checksum = self.objects.blob(published.checksum(now).encode())
        ours = {place.path: blob, provenance.checksum_path(place.path): checksum}
        ours |= {one: self.objects.blob(f"{commit}\n".encode()) for one in place.pointers}
        others = placement.carried(revision, shelf, place.pointers, commit, ours)
        old = outdated.find(revision, shelf, blob, keep) if keep else []
        left = {path: oid for path, oid in self.files.items() if path not in old}
        self.files = {**left, **others, **ours}
        return blob


def found(revision: Revision) -> dict[str, str]:
    """Return the blob of each guest that convention finds."""
    guests = convention.find(revision).guests
    return {one.name: artifact.locate(revision, one.image).blob.oid for one in guests}


@settings(examples(50), suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_each_guest_has_what_was_published_last_for_it(
    objects: Objects, steps: list[tuple[str, str, int | None]]
) -> None:
    shelves, last = Shelves(objects), {}
    for number, (guest, commit, keep) in enumerate(steps):
        content = f"{number}".encode()
        last[guest] = shelves.publish(guest, commit, content, keep, f"{number:04}")
        assert found(shelves.revision) == last


@settings(examples(50), suppress_health_check=[HealthCheck.too_slow])
@given(count=st.integers(1, 4), keep=st.integers(1, 3))
def test_of_its_images_the_newest_stay(objects: Objects, count: int, keep: int) -> None:
    shelves = Shelves(objects)
    blobs = [
        shelves.publish("www", f"{number:040x}", f"{number}".encode(), keep, f"{number:04}")
        for number in range(count)
    ]
    images = {oid for path, oid in shelves.files.items() if path.endswith(".bz2")}
    assert images == set(blobs[-keep:])


@settings(examples(50), suppress_health_check=[HealthCheck.too_slow])
@given(guest=NAMES)
def test_convention_tells_whatever_name_a_guest_has(objects: Objects, guest: str) -> None:
    shelves = Shelves(objects)
    blob = shelves.publish(guest, "1" * 40, b"image", None, "0001")
    assert found(shelves.revision) == {guest: blob}
