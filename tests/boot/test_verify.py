"""Whether revisions are fit to be deployed: what is found, once, and nothing unpacked twice."""

import hashlib
import platform
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from guests_built import Built
from mirage_hooks.boot import verify
from mirage_hooks.boot.errors import ConfigError, Error, HostError, ImageError, RepositoryError
from mirage_hooks.boot.host import Host, Limits
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Blob, UnreadableError
from mirage_hooks.boot.store import Store
from mirage_hooks.boot.unpack import Unpacked, unpack
from mirage_hooks.boot.verify import Finding, Verifier, installation
from support import PACKERS, run

GUEST = '[guest.www]\ntarget = "unix"\nimage = "unix/{latest}/www.unix"\n'
SCRIPT = b"#!/bin/sh\nexec sleep 1000\n"
LIMIT = 1 << 20
MACHINES = {"x86_64": 62, "aarch64": 183}


def files(image: bytes, name: str = "f00", manifest: str = GUEST) -> dict[str, bytes]:
    """Return the files of a deployment repository whose pointer names a folder with an image."""
    return {
        "mirage-hooks.toml": manifest.encode(),
        "unix/latest": f"{name}\n".encode(),
        f"unix/{name}/www.unix": image,
    }


def plain(image: bytes, target: str = "unix") -> dict[str, bytes]:
    """Return the files of a deployment repository without a pointer."""
    manifest = f'[guest.www]\ntarget = "{target}"\nimage = "www"\n'
    return {"mirage-hooks.toml": manifest.encode(), "www": image}


def commit(folder: Path, *changes: dict[str, bytes]) -> str:
    """Commit changes, files by their paths, one after the other; return the last commit."""
    for change in changes:
        for path, data in change.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        run("git", "add", "-A", cwd=folder)
        run("git", "commit", "-q", "--allow-empty", "-m", "change", cwd=folder)
    return Repository(folder).tip("main").id


def find(folder: Path, *names: str, bound: Host | None = None) -> list[Finding]:
    """Return what is found of revisions: of HEAD, where none is named."""
    return list(Verifier(Repository(folder), bound).verify(names or ["HEAD"]))


def texts(found: Iterable[Finding]) -> list[tuple[str | None, str]]:
    return [(one.guest, one.text) for one in found]


def broken(folder: Path, bound: Host | None = None) -> tuple[type[Error], str | None, str]:
    """Return the one thing that is found of HEAD: its kind, its guest and its first line."""
    (found,) = find(folder, bound=bound)
    assert found.error is not None
    return type(found.error), found.guest, found.text.partition("\n")[0]


def unikernel(owner: bytes, kind: int, *words: int, machine: int | None = None) -> bytes:
    """Return the smallest program with one note in it."""
    described = struct.pack(f"<{len(words)}I", *words)
    name = (owner + b"\0").ljust((len(owner) + 4) // 4 * 4, b"\0")
    note = struct.pack("<III", len(owner) + 1, len(described), kind) + name + described
    size = 64 + 2 * 56
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    known = MACHINES[platform.machine()] if machine is None else machine
    header = struct.pack("<HHIQQQIHHHHHH", 2, known, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096)
    noted = struct.pack("<IIQQQQQQ", 4, 4, size, 0, 0, len(note), len(note), 4)
    return ident + header + load + noted + note


def solo5(target: int) -> bytes:
    """Return an image for a target of Solo5, by its number."""
    return unikernel(b"Solo5", 0x31494241, target, 2, 0, 0)


XEN = unikernel(b"Xen", 18, 0x100000)
HVT = solo5(1)


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of every image that is unpacked, in turn."""
    paths: list[str] = []
    really = unpack

    def count(blob: Blob, path: Path, limit: int) -> Unpacked:
        paths.append(blob.path)
        return really(blob, path, limit)

    monkeypatch.setattr(verify, "unpack", count)
    return paths


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go. Nothing is left there, whatever was found."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


# What is sound.


@pytest.mark.parametrize("compression", PACKERS)
def test_an_image_is_sound_whatever_it_was_packed_with(
    folder: Path, program: bytes, compression: str
) -> None:
    commit(folder, files(PACKERS[compression](program)))
    (found,) = find(folder)
    assert (found.guest, found.error) == ("www", None)
    assert found.text.startswith("image unix/f00/www.unix is sound: ")


@pytest.mark.parametrize(
    ("target", "image"),
    [("hvt", HVT), ("spt", solo5(2)), ("virtio", solo5(3)), ("xen", XEN)],
)
def test_an_image_that_only_another_host_could_run_is_sound(
    folder: Path, target: str, image: bytes
) -> None:
    commit(folder, plain(image, target))
    assert [one.error for one in find(folder)] == [None]


def test_devices_that_are_not_the_images_own_are_found(folder: Path, built: Built) -> None:
    image = built.image("spt").read_bytes()
    commit(folder, plain(image, "spt"))
    assert texts(find(folder)) == [
        (
            "www",
            "image www: devices do not match: service is not configured\n"
            "  the image's own: service (network); configured: none",
        )
    ]


def test_what_a_host_binds_is_not_asked_of_a_commit(folder: Path, built: Built) -> None:
    device = '[guest.www.network.service]\nnetwork = "public"\naddress = "10.0.0.2/24"\n'
    image = built.image("hvt").read_bytes()
    commit(folder, files(image, manifest=GUEST.replace('"unix"', '"hvt"') + device))
    assert [one.error for one in find(folder)] == [None]


def test_a_finding_names_commit_guest_image_digest_and_sizes(folder: Path) -> None:
    packed = PACKERS["bzip2"](SCRIPT)
    head = commit(folder, files(packed))
    (found,) = find(folder)
    digest = hashlib.sha256(SCRIPT).hexdigest()[:7]
    assert str(found) == (
        f"{head[:7]}: www: image unix/f00/www.unix is sound: {digest} "
        f"({len(packed) / 1024:.1f} KiB bzip2, {len(SCRIPT) / 1024:.1f} KiB)"
    )


def test_a_tree_that_no_commit_has_is_verified(folder: Path) -> None:
    commit(folder, files(SCRIPT))
    (folder / "unix/f00/www.unix").write_bytes(b"plain text")
    run("git", "add", "-A", cwd=folder)
    tree = run("git", "write-tree", cwd=folder).stdout.strip()
    (found,) = find(folder, tree)
    assert (found.revision, found.guest) == (tree, "www")
    assert isinstance(found.error, ImageError)


def test_a_repository_in_which_nobody_describes_a_guest_has_nothing_to_be_found(
    folder: Path,
) -> None:
    commit(folder, {"README": b"words\n"})
    assert find(folder) == []


def test_a_guest_that_is_told_by_convention_is_verified(folder: Path) -> None:
    images = {"xen/latest": b"f00\n", "xen/f00/mir-www.xen.bz2": PACKERS["bzip2"](XEN)}
    commit(folder, images)
    (found,) = find(folder)
    assert (found.guest, found.error) == ("www", None)


def test_what_the_work_tree_holds_is_not_looked_at(folder: Path) -> None:
    commit(folder, files(SCRIPT))
    (folder / "unix/f00/www.unix").write_bytes(b"plain text")
    assert [one.error for one in find(folder)] == [None]


# What is not there: no fault, but worth a word.


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("unix/latest", "there is no pointer unix/latest yet"),
        ("unix/f00/www.unix", "there is no image unix/f00/www.unix yet"),
    ],
)
def test_what_is_not_there_yet_is_said_and_no_error(folder: Path, missing: str, text: str) -> None:
    there = files(SCRIPT)
    del there[missing]
    head = commit(folder, there)
    assert find(folder) == [Finding(head, "www", text)]


def test_nor_is_a_template_that_is_not_there_yet(folder: Path) -> None:
    table = '[guest.www]\ntarget = "xen"\nimage = "www.xen"\ntemplate = "www.xl.in"\n'
    head = commit(folder, {"mirage-hooks.toml": table.encode(), "www.xen": XEN})
    assert find(folder) == [Finding(head, "www", "there is no image www.xl.in")]


# What is broken.


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ("[guest.www\n", "mirage-hooks.toml is no valid TOML: "),
        ("[gest.www]\n", "mirage-hooks.toml: unknown key 'gest'"),
        (f"{GUEST}colour = 1\n", "mirage-hooks.toml: guest www: unknown key 'colour'"),
        (f'{GUEST}user = "root"\n', "mirage-hooks.toml: guest www: unknown key 'user'"),
        ('[guest.www]\ntarget = "unix"\n', "mirage-hooks.toml: guest www: Object missing"),
        (GUEST.replace('"unix"', '"vax"'), "mirage-hooks.toml: guest www target: Invalid"),
        (GUEST.replace("unix/{", "../{"), "mirage-hooks.toml: guest www: image '../{latest}/"),
        (GUEST.replace("www]", '"w w"]'), "mirage-hooks.toml: 'w w' cannot name a guest"),
    ],
    ids=["TOML", "table", "key", "host's key", "no image", "target", "path", "name"],
)
def test_a_broken_manifest_is_found_with_file_and_reason(
    folder: Path, manifest: str, reason: str
) -> None:
    commit(folder, files(SCRIPT, manifest=manifest))
    kind, guest, text = broken(folder)
    assert (kind, guest, text[: len(reason)]) == (ConfigError, None, reason)


def test_a_manifest_that_is_no_text_is_found(folder: Path) -> None:
    commit(folder, {"mirage-hooks.toml": b"\xff\xfe"})
    assert broken(folder) == (RepositoryError, None, "mirage-hooks.toml is not UTF-8 text")


def test_a_pointer_that_leads_outside_is_found(folder: Path) -> None:
    commit(folder, {**files(SCRIPT), "unix/latest": b"../..\n"})
    assert broken(folder) == (RepositoryError, "www", "pointer unix/latest holds '../..\\n'")


@pytest.mark.parametrize(
    ("image", "kind", "reason"),
    [
        (b"", RepositoryError, "image www is empty"),
        (PACKERS["gzip"](b""), ImageError, "image www unpacks to nothing"),
        (
            PACKERS["bzip2"](SCRIPT)[:-9],
            ImageError,
            "image www is cut short: its bzip2 data ends early",
        ),
        (
            PACKERS["gzip"](SCRIPT.ljust(LIMIT + 1, b"#")),
            ImageError,
            "image www unpacks to more than 1 MiB",
        ),
        (
            unikernel(b"Other", 1, 0, machine=243),
            ImageError,
            "image www: it is for another machine: 64 bit riscv64; "
            f"this host is 64 bit {platform.machine()}",
        ),
        (
            b"plain text",
            ImageError,
            "image www: it is neither an ELF file nor a script: it starts with b'plai'",
        ),
        (HVT, ConfigError, "image www is for target hvt, the guest for unix"),
    ],
    ids=["empty", "nothing in it", "cut short", "bomb", "machine", "no image", "target"],
)
def test_a_broken_image_is_found_with_guest_file_and_reason(
    folder: Path, image: bytes, kind: type[Error], reason: str
) -> None:
    commit(folder, plain(image))
    bound = Host("main", limits=Limits(image=LIMIT >> 20))
    assert broken(folder, bound) == (kind, "www", reason)


def test_an_image_of_which_git_lost_the_bytes_is_found(folder: Path) -> None:
    commit(folder, plain(SCRIPT))
    lost = run("git", "rev-parse", "HEAD:www", cwd=folder).stdout.strip()
    (folder / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
    kind, guest, text = broken(folder)
    assert (kind, guest) == (UnreadableError, "www")
    assert text.startswith("git cannot read www: ")


def test_a_broken_guest_keeps_none_of_the_others_from_being_verified(folder: Path) -> None:
    other = '[guest.other]\ntarget = "unix"\nimage = "other"\n'
    commit(folder, {**files(b"plain text", manifest=GUEST + other), "other": SCRIPT})
    assert [(one.guest, one.error is None) for one in find(folder)] == [
        ("www", False),
        ("other", True),
    ]


def test_a_folder_for_temporary_files_that_takes_none_is_the_hosts_fault(
    folder: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(folder, plain(SCRIPT))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    kind, guest, text = broken(folder)
    assert (kind, guest) == (HostError, "www")
    assert str(temporary / "gone") in text


def test_what_is_no_revision_is_refused_by_its_name(folder: Path) -> None:
    commit(folder, {})
    with pytest.raises(RepositoryError, match="has no commit 'nothing'"):
        find(folder, "nothing")


# Of several revisions.


def test_every_commit_of_a_range_is_verified(folder: Path) -> None:
    first, middle, last = (
        commit(folder, files(image, name))
        for name, image in (("a", SCRIPT), ("b", b"plain text"), ("c", SCRIPT))
    )
    found = find(folder, first, middle, last)
    assert [(one.revision, one.error is None) for one in found] == [
        (first, True),
        (middle, False),
        (last, True),
    ]


def test_what_is_found_of_an_image_is_said_once(folder: Path) -> None:
    first = commit(folder, files(SCRIPT))
    second = commit(folder, {"README": b"words\n"})
    assert [one.revision for one in find(folder, first, second)] == [first]


def test_what_is_found_of_a_manifest_is_said_once(folder: Path) -> None:
    first = commit(folder, files(SCRIPT, manifest="[guest.www\n"))
    second = commit(folder, {"README": b"words\n"})
    assert [one.revision for one in find(folder, first, second)] == [first]


def test_the_same_words_of_another_guest_are_said(folder: Path) -> None:
    manifest = GUEST + GUEST.replace("www]", "two]")
    commit(folder, files(SCRIPT, manifest=manifest))
    assert [one.guest for one in find(folder)] == ["www", "two"]


@pytest.mark.parametrize("image", [SCRIPT, b"plain text"], ids=["sound", "broken"])
def test_a_blob_is_unpacked_once_however_many_commits_and_guests_have_it(
    folder: Path, unpacked: list[str], image: bytes
) -> None:
    manifest = GUEST + GUEST.replace("www]", "two]")
    first = commit(folder, files(image, manifest=manifest))
    second = commit(folder, {"README": b"words\n"})
    third = commit(folder, files(image, "another", manifest))
    find(folder, first, second, third)
    assert unpacked == ["unix/f00/www.unix"]


def test_a_broken_blob_is_named_by_the_path_that_each_commit_has_it_at(folder: Path) -> None:
    first = commit(folder, files(b"plain text", "a"))
    second = commit(folder, files(b"plain text", "b"))
    assert ["unix/a/www.unix" in one.text for one in find(folder, first, second)] == [True, False]
    assert ["unix/b/www.unix" in one.text for one in find(folder, first, second)] == [False, True]


# On a host where mirage-hooks is installed.


def test_what_the_store_knows_is_not_unpacked(
    folder: Path, tmp_path: Path, unpacked: list[str]
) -> None:
    commit(folder, files(PACKERS["gzip"](SCRIPT)))
    repository = Repository(folder)
    blob = repository.tip("main").find("unix/f00/www.unix")
    assert blob is not None
    store = Store(tmp_path / "store", LIMIT)
    store.add(blob)
    (found,) = Verifier(repository, store=store).verify(["HEAD"])
    assert (found.error, unpacked) == (None, [])


def test_what_the_store_knows_is_held_against_its_guest_all_the_same(
    folder: Path, tmp_path: Path
) -> None:
    commit(folder, plain(SCRIPT, "hvt"))
    repository = Repository(folder)
    blob = repository.tip("main").find("www")
    assert blob is not None
    store = Store(tmp_path / "store", LIMIT)
    store.add(blob)
    (found,) = Verifier(repository, store=store).verify(["HEAD"])
    assert isinstance(found.error, ConfigError)


def test_nothing_comes_into_the_store(folder: Path, tmp_path: Path) -> None:
    commit(folder, files(SCRIPT))
    store = Store(tmp_path / "store", LIMIT)
    list(Verifier(Repository(folder), store=store).verify(["HEAD"]))
    assert not (tmp_path / "store").exists()


def test_a_guest_of_the_host_file_is_verified(folder: Path) -> None:
    commit(folder, {"www": b"plain text"})
    bound = Host("main", guest={"www": {"target": "unix", "image": "www"}})
    kind, guest, _ = broken(folder, bound)
    assert (kind, guest) == (ImageError, "www")


def test_a_guest_of_the_host_file_is_verified_beside_those_of_the_manifest(folder: Path) -> None:
    commit(folder, {**files(SCRIPT), "own": SCRIPT})
    bound = Host("main", guest={"own": {"target": "unix", "image": "own"}})
    assert {one.guest for one in find(folder, bound=bound)} == {"own", "www"}


def test_the_hosts_word_on_a_guest_that_the_manifest_lacks_describes_none(folder: Path) -> None:
    commit(folder, files(SCRIPT))
    bound = Host("main", guest={"gone": {"memory": 64}})
    assert [one.guest for one in find(folder, bound=bound)] == ["www"]


def test_the_hosts_own_limit_holds(folder: Path) -> None:
    commit(folder, plain(SCRIPT.ljust(2 * LIMIT, b"#")))
    assert broken(folder, Host("main", limits=Limits(image=1)))[0] is ImageError
    assert find(folder, bound=Host("main", limits=Limits(image=2)))[0].error is None


def install(folder: Path, host_file: str) -> State:
    """Leave what an installation leaves, as far as verifying goes."""
    state = State(folder / ".git")
    state.folder.mkdir(mode=0o700)
    state.host_file.write_text(host_file)
    return state


def test_an_installation_gives_its_host_file_and_its_store(folder: Path) -> None:
    install(folder, 'branch = "live"\n')
    bound, store = installation(folder / ".git")
    assert (bound and bound.branch, type(store)) == ("live", Store)


def test_a_repository_without_an_installation_gives_none(folder: Path) -> None:
    assert installation(folder / ".git") == (None, None)


def test_a_damaged_host_file_gives_none(folder: Path) -> None:
    install(folder, "branch = \n")
    assert installation(folder / ".git") == (None, None)
