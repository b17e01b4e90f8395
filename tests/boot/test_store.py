"""Unpacking: every compression, every damage, and nothing left behind."""

import bz2
import gzip
import hashlib
import os
import resource
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_hooks.boot.errors import HostError, ImageError
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Blob
from mirage_hooks.boot.store import Store
from mirage_hooks.boot.unpack import Unpacked, unpack
from support import PACKERS, run

LIMIT = 1 << 20
COMPRESSIONS = [name for name in PACKERS if name != "none"]
SCRIPT = b"#!/bin/sh\nexec sleep 1000\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that takes images of 1 MiB."""
    return Store(tmp_path / "store", LIMIT)


def commit(folder: Path, data: bytes, name: str = "www") -> Blob:
    """Commit an image; return its blob."""
    (folder / name).write_bytes(data)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "--allow-empty", "-m", "change", cwd=folder)
    blob = Repository(folder).tip("main").find(name)
    assert blob is not None
    return blob


def files(folder: Path) -> list[str]:
    """Return the name of every file below a folder, hidden ones too."""
    return sorted(path.name for path in folder.rglob("*") if not path.is_dir())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file that this process writes grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# What serves.


@pytest.mark.parametrize("name", PACKERS)
def test_an_image_is_unpacked_whatever_it_was_packed_with(
    folder: Path, store: Store, program: bytes, name: str
) -> None:
    stored = store.add(commit(folder, PACKERS[name](program)))
    assert store.path(stored.sha256).read_bytes() == program


@pytest.mark.parametrize("name", PACKERS)
def test_the_store_knows_what_an_image_was(
    folder: Path, store: Store, program: bytes, name: str
) -> None:
    packed = PACKERS[name](program)
    assert store.add(commit(folder, packed)) == Unpacked(
        sha256=hashlib.sha256(program).hexdigest(),
        size=len(program),
        packed_size=len(packed),
        compression=name,
        target="unix",
        script=False,
    )


def test_the_compression_is_told_from_the_bytes_and_not_from_the_name(
    folder: Path, store: Store, program: bytes
) -> None:
    assert store.add(commit(folder, gzip.compress(program), "www.xen.bz2")).compression == "gzip"


def test_the_same_image_packed_in_different_ways_is_stored_once(
    folder: Path, store: Store, program: bytes, tmp_path: Path
) -> None:
    found = {store.add(commit(folder, pack(program))).sha256 for pack in PACKERS.values()}
    assert found == {path.name for path in (tmp_path / "store").iterdir() if not path.is_dir()}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_an_image_packed_in_several_streams_is_unpacked_whole(
    folder: Path, store: Store, program: bytes, name: str
) -> None:
    pack, middle = PACKERS[name], len(program) // 2
    stored = store.add(commit(folder, pack(program[:middle]) + pack(program[middle:])))
    assert stored.sha256 == hashlib.sha256(program).hexdigest()


def test_a_script_is_known_for_one(folder: Path, store: Store) -> None:
    assert store.add(commit(folder, gzip.compress(SCRIPT))).script


def test_a_stored_image_is_executable_and_read_only(
    folder: Path, store: Store, program: bytes
) -> None:
    stored = store.add(commit(folder, program))
    assert stat.S_IMODE(store.path(stored.sha256).stat().st_mode) == 0o555


def test_a_stored_image_can_be_executed(folder: Path, store: Store, program: bytes) -> None:
    stored = store.add(commit(folder, bz2.compress(program)))
    assert subprocess.run([store.path(stored.sha256)], check=False).returncode == 0


@pytest.mark.parametrize("name", PACKERS)
def test_an_image_as_large_as_the_limit_is_taken(folder: Path, store: Store, name: str) -> None:
    data = SCRIPT.ljust(LIMIT, b"#")
    assert store.add(commit(folder, PACKERS[name](data))).size == LIMIT


# The index.


def inode(store: Store, stored: Unpacked) -> int:
    """Return what tells one unpacking of an image from the next."""
    return store.path(stored.sha256).stat().st_ino


def test_a_blob_is_unpacked_once(folder: Path, store: Store, program: bytes) -> None:
    blob = commit(folder, gzip.compress(program))
    first = inode(store, store.add(blob))
    assert inode(store, store.add(blob)) == first


def test_a_blob_that_was_unpacked_before_gives_the_same_answer(
    folder: Path, store: Store, program: bytes
) -> None:
    blob = commit(folder, gzip.compress(program))
    assert store.add(blob) == store.add(blob)


def test_the_index_is_read_by_the_next_process(
    folder: Path, store: Store, program: bytes, tmp_path: Path
) -> None:
    blob = commit(folder, gzip.compress(program))
    first = inode(store, store.add(blob))
    again = Store(tmp_path / "store", LIMIT)
    assert inode(again, again.add(blob)) == first


def test_an_image_that_is_gone_from_the_store_is_unpacked_anew(
    folder: Path, store: Store, program: bytes
) -> None:
    blob = commit(folder, program)
    store.path(store.add(blob).sha256).unlink()
    assert store.path(store.add(blob).sha256).read_bytes() == program


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"{}", b"\xff\xfe", b'{"sha256": 1}'])
def test_a_damaged_index_is_made_anew(
    folder: Path, store: Store, program: bytes, tmp_path: Path, text: bytes
) -> None:
    blob = commit(folder, program)
    stored = store.add(blob)
    index = tmp_path / "store" / "blobs" / f"{blob.oid}.json"
    before = index.read_bytes()
    index.write_bytes(text)
    assert (store.add(blob), index.read_bytes()) == (stored, before)


def test_a_limit_that_was_lowered_holds_for_what_is_stored_already(
    folder: Path, store: Store, program: bytes, tmp_path: Path
) -> None:
    blob = commit(folder, program)
    store.add(blob)
    with pytest.raises(ImageError, match="unpacks to more than"):
        Store(tmp_path / "store", len(program) - 1).add(blob)


# What is refused.


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_an_image_cut_short_is_refused_as_that(
    folder: Path, store: Store, program: bytes, name: str
) -> None:
    packed = PACKERS[name](program)
    with pytest.raises(ImageError) as error:
        store.add(commit(folder, packed[: len(packed) // 2]))
    assert error.value.message == f"image www is cut short: its {name} data ends early"


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_an_image_cut_anywhere_is_refused(
    folder: Path, store: Store, program: bytes, tmp_path: Path, name: str
) -> None:
    packed = PACKERS[name](program)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 16) | st.integers(0, len(packed) - 1))
    def property_holds(length: int) -> None:
        blob = commit(folder, packed[:length])
        with pytest.raises(ImageError):
            store.add(blob)
        assert all(name.endswith(".json") for name in files(tmp_path / "store"))

    property_holds()


@pytest.mark.parametrize("name", PACKERS)
def test_an_image_with_bytes_flipped_is_refused_or_named_by_what_it_is(
    folder: Path, store: Store, program: bytes, name: str
) -> None:
    packed = PACKERS[name](program)
    places = st.integers(0, 32) | st.integers(0, len(packed) - 1)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=3))
    def property_holds(flips: list[tuple[int, int]]) -> None:
        changed = bytearray(packed)
        for place, bits in flips:
            changed[place] ^= bits
        blob = commit(folder, bytes(changed))
        try:
            stored = store.add(blob)
        except ImageError:
            return
        assert store.verify(stored.sha256).stat().st_size == stored.size

    property_holds()


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_header_with_nothing_sound_behind_it_is_refused(
    folder: Path, store: Store, name: str
) -> None:
    start = PACKERS[name](b"x" * 100)[:6]
    with pytest.raises(ImageError, match=r"^image www is "):
        store.add(commit(folder, start + b"\xff" * 1000))


def test_an_empty_image_is_refused(folder: Path, store: Store) -> None:
    with pytest.raises(ImageError, match="image www unpacks to nothing"):
        store.add(commit(folder, b""))


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_an_image_that_unpacks_to_nothing_is_refused(folder: Path, store: Store, name: str) -> None:
    with pytest.raises(ImageError, match="image www unpacks to nothing"):
        store.add(commit(folder, PACKERS[name](b"")))


@pytest.mark.parametrize("name", PACKERS)
def test_what_is_no_image_is_refused_by_its_path(folder: Path, store: Store, name: str) -> None:
    with pytest.raises(ImageError, match=r"^image www: it is neither an ELF file nor a script"):
        store.add(commit(folder, PACKERS[name](b"plain text")))


def test_an_image_packed_twice_is_refused(folder: Path, store: Store, program: bytes) -> None:
    with pytest.raises(ImageError, match="neither an ELF file nor a script"):
        store.add(commit(folder, gzip.compress(bz2.compress(program))))


@pytest.mark.parametrize("name", PACKERS)
def test_an_image_one_byte_larger_than_the_limit_is_refused(
    folder: Path, store: Store, name: str
) -> None:
    with pytest.raises(ImageError, match="image www unpacks to more than 1 MiB"):
        store.add(commit(folder, PACKERS[name](SCRIPT.ljust(LIMIT + 1, b"#"))))


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_an_image_that_unpacks_to_far_too_much_is_never_written_beyond_the_limit(
    folder: Path, store: Store, name: str
) -> None:
    blob = commit(folder, PACKERS[name](SCRIPT.ljust(64 * LIMIT, b"#")))
    with files_of_at_most(LIMIT), pytest.raises(ImageError, match="unpacks to more than 1 MiB"):
        store.add(blob)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"plain text", id="no image"),
        pytest.param(b"\x7fELF", id="damaged"),
        pytest.param(SCRIPT.ljust(LIMIT + 1, b"#"), id="too large"),
        pytest.param(gzip.compress(SCRIPT.ljust(8 * LIMIT, b"#")), id="unpacks to too much"),
        pytest.param(gzip.compress(SCRIPT)[:-1], id="cut short"),
    ],
)
def test_nothing_of_a_refused_image_is_left_in_the_store_but_why(
    folder: Path, store: Store, tmp_path: Path, data: bytes
) -> None:
    blob = commit(folder, data)
    with pytest.raises(ImageError):
        store.add(blob)
    assert files(tmp_path / "store") == [f"{blob.oid}.json"]


def test_nothing_but_the_image_and_its_index_is_left_in_the_store(
    folder: Path, store: Store, program: bytes, tmp_path: Path
) -> None:
    blob = commit(folder, gzip.compress(program))
    stored = store.add(blob)
    assert files(tmp_path / "store") == sorted([stored.sha256, f"{blob.oid}.json"])


def test_an_image_refused_half_read_leaves_the_repository_readable(
    folder: Path, store: Store, program: bytes
) -> None:
    commit(folder, os.urandom(4 * LIMIT), "large")
    commit(folder, program)
    revision = Repository(folder).tip("main")
    large, www = revision.find("large"), revision.find("www")
    assert large is not None
    assert www is not None
    # The refusal is kept, as it is for the report: with it the half-read stream stays alive.
    with pytest.raises(ImageError) as kept:
        store.add(large)
    assert store.add(www).size == len(program)
    assert kept.value.message


# What was refused before.

CUT_SHORT = gzip.compress(SCRIPT)[:-1]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the blobs that are unpacked, from here on."""
    seen: list[str] = []

    def counting(blob: Blob, path: Path, limit: int) -> Unpacked:
        seen.append(blob.path)
        return unpack(blob, path, limit)

    monkeypatch.setattr("mirage_hooks.boot.store.unpack", counting)
    return seen


def refuse(store: Store, blob: Blob) -> str:
    """Have a blob refused; return why."""
    with pytest.raises(ImageError) as refused:
        store.add(blob)
    return str(refused.value)


def test_a_refused_image_is_refused_for_the_same_without_being_unpacked_again(
    folder: Path, store: Store, tmp_path: Path, reads: list[str]
) -> None:
    blob = commit(folder, PACKERS["gzip"](SCRIPT.ljust(LIMIT + 1, b"#")))
    first = refuse(store, blob)
    assert refuse(Store(tmp_path / "store", LIMIT), blob) == first
    assert reads == ["www"]


def test_a_refused_image_is_unpacked_again_under_another_limit(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    blob = commit(folder, SCRIPT.ljust(LIMIT + 1, b"#"))
    refuse(store, blob)
    raised = Store(tmp_path / "store", LIMIT + 1)
    assert raised.add(blob).size == LIMIT + 1
    assert raised.add(blob).size == LIMIT + 1


def test_a_refused_image_is_refused_by_the_path_that_it_is_asked_for(
    folder: Path, store: Store
) -> None:
    refuse(store, commit(folder, CUT_SHORT))
    assert "image other" in refuse(store, commit(folder, CUT_SHORT, "other"))


@pytest.mark.parametrize(("later", "count"), [(86_399, 1), (86_401, 2), (-3_600, 2)])
def test_a_refused_image_is_unpacked_again_a_day_later(
    folder: Path,
    store: Store,
    reads: list[str],
    monkeypatch: pytest.MonkeyPatch,
    later: float,
    count: int,
) -> None:
    blob, now = commit(folder, CUT_SHORT), time.time()
    refuse(store, blob)
    monkeypatch.setattr(time, "time", lambda: now + later)
    refuse(store, blob)
    assert len(reads) == count


def test_why_an_image_was_refused_is_kept_while_it_counts(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    refuse(store, commit(folder, CUT_SHORT))
    assert store.unneeded(set()).entries == []
    monkeypatch.setattr(time, "time", lambda: now + 86_401)
    assert len(store.unneeded(set()).entries) == 1


def test_why_an_image_was_refused_may_be_lost_to_a_full_disk(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    blob = commit(folder, CUT_SHORT)
    with files_of_at_most(len(SCRIPT)):
        assert "cut short" in refuse(store, blob)
    assert files(tmp_path / "store") == []


# The host's own faults.


def test_a_store_that_cannot_be_made_is_a_fault_of_the_host(
    folder: Path, tmp_path: Path, program: bytes
) -> None:
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(HostError, match="www cannot be unpacked into"):
        Store(tmp_path / "store", LIMIT).add(commit(folder, program))


def test_an_index_that_cannot_be_read_is_a_fault_of_the_host(
    folder: Path, store: Store, tmp_path: Path, program: bytes
) -> None:
    blob = commit(folder, program)
    (tmp_path / "store" / "blobs" / f"{blob.oid}.json").mkdir(parents=True)
    with pytest.raises(HostError):
        store.add(blob)


def test_a_file_that_may_not_grow_is_a_fault_of_the_host(
    folder: Path, store: Store, tmp_path: Path, program: bytes
) -> None:
    blob = commit(folder, program)
    with files_of_at_most(len(program) - 1), pytest.raises(HostError, match="cannot be unpacked"):
        store.add(blob)
    assert files(tmp_path / "store") == []


# Verifying.


def test_a_sound_image_is_verified(folder: Path, store: Store, program: bytes) -> None:
    stored = store.add(commit(folder, program))
    assert store.verify(stored.sha256) == store.path(stored.sha256)


def damage(path: Path) -> None:
    """Flip a bit of a stored image, as a failing disk would."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o755)
    path.write_bytes(data)


def test_a_damaged_image_is_a_fault_of_the_host(folder: Path, store: Store, program: bytes) -> None:
    stored = store.add(commit(folder, program))
    damage(store.path(stored.sha256))
    with pytest.raises(HostError, match="was damaged on this host's disk, and is removed"):
        store.verify(stored.sha256)


def test_a_damaged_image_is_removed(folder: Path, store: Store, program: bytes) -> None:
    stored = store.add(commit(folder, program))
    damage(store.path(stored.sha256))
    with pytest.raises(HostError):
        store.verify(stored.sha256)
    assert not store.path(stored.sha256).exists()


def test_a_damaged_image_is_unpacked_anew_after_it_was_found_out(
    folder: Path, store: Store, program: bytes
) -> None:
    blob = commit(folder, program)
    stored = store.add(blob)
    damage(store.path(stored.sha256))
    with pytest.raises(HostError):
        store.verify(stored.sha256)
    assert store.verify(store.add(blob).sha256).read_bytes() == program


def test_an_image_cut_short_on_disk_is_found_out(
    folder: Path, store: Store, program: bytes
) -> None:
    stored = store.add(commit(folder, program))
    store.path(stored.sha256).chmod(0o755)
    os.truncate(store.path(stored.sha256), len(program) // 2)
    with pytest.raises(HostError, match="was damaged"):
        store.verify(stored.sha256)


def test_an_image_that_is_not_stored_is_a_fault_of_the_host(store: Store) -> None:
    with pytest.raises(HostError, match="cannot be read: No such file or directory"):
        store.verify("0" * 64)


# Disk images.


@pytest.mark.parametrize("name", PACKERS)
def test_a_disk_image_is_unpacked_whatever_it_was_packed_with(
    folder: Path, store: Store, name: str
) -> None:
    disk = b"FAT".ljust(1024, b"\0")
    stored = store.add_disk(commit(folder, PACKERS[name](disk), "fat1.img"))
    assert store.path(stored.sha256).read_bytes() == disk
    assert stored.sha256 == hashlib.sha256(disk).hexdigest()


def test_a_disk_image_that_is_no_number_of_sectors_is_refused(folder: Path, store: Store) -> None:
    with pytest.raises(ImageError, match="has 513 bytes: not a number of whole sectors"):
        store.add_disk(commit(folder, bytes(513), "fat1.img"))


def test_a_disk_image_that_was_taken_for_an_image_is_still_a_disk_image(
    folder: Path, store: Store
) -> None:
    blob = commit(folder, bytes(512), "fat1.img")
    with pytest.raises(ImageError):
        store.add(blob)
    assert store.add_disk(blob) == store.add_disk(blob)


def test_a_disk_image_that_is_needed_stays(folder: Path, store: Store) -> None:
    disk = store.add_disk(commit(folder, bytes(512), "fat1.img"))
    assert store.unneeded({disk.sha256}) == ([], [], [])
    assert len(store.unneeded(frozenset()).entries) == 1
