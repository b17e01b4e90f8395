"""The desired state: guests bound to this host, with their images and secrets."""

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from manifests import ALL_TARGETS, API, HOST, WWW, Read, Refusal, commit
from mirage_hooks.boot import description, manifest
from mirage_hooks.boot.artifact import Missing
from mirage_hooks.boot.desired import DesiredState
from mirage_hooks.boot.errors import ConfigError, Error, ImageError, RepositoryError
from mirage_hooks.boot.host import Host, Secrets
from mirage_hooks.boot.revision import Revision
from mirage_hooks.boot.secrets import Vault
from mirage_hooks.boot.store import Store
from support import USER


def desired_at(revision: Revision, bound: Host, store: Store, vault: Vault) -> DesiredState:
    return manifest.read(revision, bound, store, vault, "0123456789ab")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that takes images of 1 MiB."""
    return Store(tmp_path / "store", 1 << 20)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """A vault with nothing in it yet."""
    return Vault(tmp_path / "secrets")


# Images and networks.


@pytest.mark.parametrize("image", ["", "/bin/true", "../x", "a/../b", "./x", "a//b", "x/", ".."])
def test_an_image_outside_the_repository_is_refused(refusal: Refusal, image: str) -> None:
    message = f"guest www: image {image!r} is no path inside the repository"
    assert refusal(f'[guest.www]\ntarget = "unix"\nimage = "{image}"\n') == message


def test_an_address_given_in_the_arguments_too_is_refused(refusal: Refusal) -> None:
    text = f'{WWW}args = ["--ipv4=127.0.0.2/8"]\nnetwork.service.address = "127.0.0.2/8"\n'
    message = "guest www: network service: the address is given in args, too"
    assert refusal(text) == message


def test_a_network_that_the_host_does_not_have_is_refused(refusal: Refusal) -> None:
    text = f'{WWW}network.service.network = "public"\n'
    message = "guest www: network service: 'public' is not bound on this host"
    assert refusal(text) == message


def test_a_second_network_of_a_unix_guest_is_refused(refusal: Refusal) -> None:
    text = f"{WWW}network.one = {{}}\nnetwork.two = {{}}\n"
    message = "guest www: a unix guest has one network at most"
    assert refusal(text) == message


def both(www: str, api: str) -> str:
    """Return a manifest of two guests with a line of TOML each."""
    return f"{WWW}{www}\n{API}{api}\n"


@pytest.mark.parametrize(
    ("www", "api"),
    [
        ('args = ["--port=80"]', 'args = ["--port=80"]'),
        ('args = ["--port=80"]', 'args = ["--port=80", "--ipv4=127.0.0.2/8"]'),
        ('args = ["--http-port=80"]', 'args = ["--https-port=80"]'),
        ('args = ["--port=80", "--ipv4=127.0.0.2/8"]', 'args = ["--port=80", "--ipv4=0.0.0.0/0"]'),
        (
            'args = ["--port=80", "--ipv4=127.0.0.2/8"]',
            'args = ["--port=80"]\nnetwork.service.address = "127.0.0.2/24"',
        ),
    ],
)
def test_two_guests_with_one_address_are_refused(folder: Path, www: str, api: str) -> None:
    revision = commit(folder, both(www, api))
    with pytest.raises(ConfigError, match=r"^guests www and api have one address: "):
        manifest.read_guests(revision, HOST)


@pytest.mark.parametrize(
    ("www", "api"),
    [
        ('args = ["--port=80"]', 'args = ["--port=81"]'),
        (
            'args = ["--port=80", "--ipv4=127.0.0.2/8"]',
            'args = ["--port=80", "--ipv4=127.0.0.3/8"]',
        ),
        ("", ""),
    ],
)
def test_two_guests_with_an_address_each_are_taken(read: Read, www: str, api: str) -> None:
    assert set(read(both(www, api))) == {"www", "api"}


# The desired state, images and all.


def test_a_guest_with_an_image_is_ready(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    desired = desired_at(commit(folder, WWW, {"www.unix": program}), HOST, store, vault)
    assert (set(desired.guests), desired.unready) == ({"www"}, {})


def test_a_boot_is_known_by_what_the_image_unpacks_to(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    plain = desired_at(commit(folder, WWW, {"www.unix": program}), HOST, store, vault)
    packed = desired_at(
        commit(folder, WWW, {"www.unix": gzip.compress(program)}), HOST, store, vault
    )
    assert plain.guests["www"].boot.digest == packed.guests["www"].boot.digest


def test_check_and_restart_make_no_other_boot(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    plain = desired_at(commit(folder, WWW, {"www.unix": program}), HOST, store, vault)
    policies = f'{WWW}check.alive = "1s"\nrestart.on = "never"\n'
    changed = desired_at(commit(folder, policies), HOST, store, vault)
    assert plain.guests["www"].boot.digest == changed.guests["www"].boot.digest


def test_where_an_image_came_from_is_recorded(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    text = '[guest.www]\ntarget = "unix"\nimage = "{latest}/www"\n'
    packed = gzip.compress(program)
    revision = commit(folder, text, {"latest": b"f00\n", "f00/www": packed})
    provenance = desired_at(revision, HOST, store, vault).guests["www"].provenance
    assert (provenance.commit, provenance.path, provenance.pointers, provenance.compression) == (
        revision.id,
        "f00/www",
        {"latest": "f00"},
        "gzip",
    )


def test_the_address_of_a_network_is_passed_before_the_arguments(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    text = f'{WWW}args = ["--port=80"]\nnetwork.service.address = "127.0.0.2/8"\n'
    desired = desired_at(commit(folder, text, {"www.unix": program}), HOST, store, vault)
    assert desired.guests["www"].boot.arguments == ("--ipv4=127.0.0.2/8", "--port=80")


def test_a_script_is_noticed(folder: Path, store: Store, vault: Vault) -> None:
    revision = commit(folder, WWW, {"www.unix": b"#!/bin/sh\n"})
    notices = desired_at(revision, HOST, store, vault).guests["www"].notices
    assert notices == ("image www.unix is a script, not an ELF file",)


def test_all_that_was_read_is_watched(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    text = '[guest.www]\ntarget = "unix"\nimage = "{latest}/www"\n'
    revision = commit(folder, text, {"latest": b"f00\n", "f00/www": program})
    watched = desired_at(revision, HOST, store, vault).watched
    assert watched == (description.NAME, "latest", "f00/www")


def test_a_path_that_two_guests_share_is_watched_once(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    text = WWW + API.replace("api.unix", "www.unix")
    desired = desired_at(commit(folder, text, {"www.unix": program}), HOST, store, vault)
    assert desired.watched == (description.NAME, "www.unix")


def test_a_guest_whose_image_has_not_come_is_not_ready_and_no_fault(
    folder: Path, store: Store, vault: Vault
) -> None:
    unready = desired_at(commit(folder, WWW), HOST, store, vault).unready
    assert isinstance(unready["www"], Missing)


def test_an_image_that_has_not_come_is_watched(folder: Path, store: Store, vault: Vault) -> None:
    assert "www.unix" in desired_at(commit(folder, WWW), HOST, store, vault).watched


SPOILT = {
    "no image": (b"plain text", ImageError),
    "damaged": (b"\x7fELF", ImageError),
    "cut short": (gzip.compress(b"x" * 100)[:-9], ImageError),
    "empty": (b"", RepositoryError),
    "too large": (b"#!".ljust(4 << 20, b"x"), ImageError),
    "too large to be read at once": (os.urandom(4 << 20), ImageError),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_guest_with_a_spoilt_image_is_not_ready(
    folder: Path, store: Store, vault: Vault, spoilt: str
) -> None:
    data, kind = SPOILT[spoilt]
    unready = desired_at(commit(folder, WWW, {"www.unix": data}), HOST, store, vault).unready
    assert isinstance(unready["www"], kind)


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_spoilt_image_leaves_the_other_guests_ready(
    folder: Path, store: Store, vault: Vault, program: bytes, spoilt: str
) -> None:
    files = {"www.unix": SPOILT[spoilt][0], "api.unix": program}
    desired = desired_at(commit(folder, WWW + API, files), HOST, store, vault)
    assert (set(desired.guests), set(desired.unready)) == ({"api"}, {"www"})


def test_a_refused_pointer_leaves_the_other_guests_ready(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    text = f'{API}[guest.www]\ntarget = "unix"\nimage = "{{latest}}/www"\n'
    files = {"latest": b"../outside\n", "api.unix": program}
    desired = desired_at(commit(folder, text, files), HOST, store, vault)
    assert (set(desired.guests), set(desired.unready)) == ({"api"}, {"www"})


def test_every_guest_spoken_of_is_named(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    desired = desired_at(commit(folder, WWW + API, {"www.unix": program}), HOST, store, vault)
    assert desired.names == {"www", "api"}


def test_an_image_for_another_target_is_refused(
    folder: Path, store: Store, vault: Vault, tmp_path: Path
) -> None:
    note = (
        r'__asm__(".section .note.solo5.abi,\"a\",@note\n.balign 4\n.long 6, 16, 0x31494241\n"'
        r'".asciz \"Solo5\"\n.balign 4\n.long 1, 2, 0, 0\n.previous\n");'
    )
    command = ["cc", "-static", "-nostdlib", "-x", "c", "-o", str(tmp_path / "hvt"), "-"]
    subprocess.run(command, input=f"{note}\nvoid _start(void) {{}}\n".encode(), check=True)
    files = {"www.unix": (tmp_path / "hvt").read_bytes()}
    unready: dict[str, Error] = desired_at(commit(folder, WWW, files), HOST, store, vault).unready
    assert unready["www"].message == "image www.unix is for target hvt, the guest for unix"


# Secrets.


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """A file of secret arguments."""
    path = tmp_path / "www.args"
    path.write_text("--password=hunter22\n")
    path.chmod(0o600)
    return path


def hiding(path: Path) -> Host:
    """Return a host that keeps the secret arguments of www in a file."""
    return Host("main", user=USER, secrets={"www": Secrets(str(path))})


def test_secret_arguments_are_part_of_a_boot_by_their_digest_alone(
    folder: Path, store: Store, vault: Vault, program: bytes, hidden: Path
) -> None:
    revision = commit(folder, WWW, {"www.unix": program})
    boot = desired_at(revision, hiding(hidden), store, vault).guests["www"].boot
    assert boot.secrets is not None
    assert vault.read(boot.secrets) == ("--password=hunter22",)
    assert boot.arguments == ()


def test_other_secret_arguments_make_another_boot(
    folder: Path, store: Store, vault: Vault, program: bytes, hidden: Path
) -> None:
    revision = commit(folder, WWW, {"www.unix": program})
    one = desired_at(revision, hiding(hidden), store, vault).guests["www"].boot
    again = desired_at(revision, hiding(hidden), store, vault).guests["www"].boot
    hidden.write_text("--password=hunter23\n")
    other = desired_at(revision, hiding(hidden), store, vault).guests["www"].boot
    assert (one.digest == again.digest, one.digest == other.digest) == (True, False)


def test_a_secrets_file_with_no_argument_makes_no_other_boot(
    folder: Path, store: Store, vault: Vault, program: bytes, hidden: Path
) -> None:
    revision = commit(folder, WWW, {"www.unix": program})
    hidden.write_text("# none yet\n")
    without = desired_at(revision, HOST, store, vault).guests["www"].boot
    assert desired_at(revision, hiding(hidden), store, vault).guests["www"].boot == without


def test_a_guest_whose_secrets_cannot_be_read_is_not_ready_and_the_others_are(
    folder: Path, store: Store, vault: Vault, program: bytes, hidden: Path
) -> None:
    hidden.chmod(0o644)
    revision = commit(folder, WWW + API, {"www.unix": program, "api.unix": program})
    desired = desired_at(revision, hiding(hidden), store, vault)
    assert set(desired.guests) == {"api"}
    assert desired.unready["www"].message == f"secrets file {hidden} is open to others"


def test_secrets_of_a_guest_that_is_not_there_are_not_read(
    folder: Path, store: Store, vault: Vault, program: bytes, hidden: Path
) -> None:
    hidden.unlink()
    revision = commit(folder, API, {"api.unix": program})
    assert set(desired_at(revision, hiding(hidden), store, vault).guests) == {"api"}


# The host's choice of guests.


def choosing(*names: str, **guests: dict[str, object]) -> Host:
    return Host("main", user=USER, guests=names, guest=guests)


def test_a_host_runs_the_guests_that_it_chooses(read: Read) -> None:
    assert set(read(WWW + API, choosing("www"))) == {"www"}


def test_a_host_chooses_among_its_own_whole_guests_too(read: Read) -> None:
    own: dict[str, object] = {"target": "unix", "image": "own.unix"}
    assert set(read(WWW, choosing("www", own=own))) == {"www"}
    assert set(read(WWW, choosing("own", own=own))) == {"own"}


def test_a_host_can_choose_none(read: Read) -> None:
    assert read(WWW, choosing()) == {}


def test_a_chosen_guest_that_is_not_there_is_no_error(read: Read) -> None:
    assert set(read(WWW, choosing("www", "gone"))) == {"www"}


@pytest.mark.parametrize(
    "table",
    ["memory = 4096", 'target = "hvt"', 'user = "nobody"', "other = 1"],
)
def test_nothing_is_asked_of_a_guest_that_is_not_chosen(read: Read, table: str) -> None:
    other = f"[guest.api]\nimage = 'api.unix'\n{table}\n"
    assert set(read(WWW + other, choosing("www"))) == {"www"}


def test_an_address_shared_with_a_guest_that_is_not_chosen_is_no_fault(read: Read) -> None:
    text = both('args = ["--port=80"]', 'args = ["--port=80"]')
    assert set(read(text, choosing("www"))) == {"www"}


def test_the_images_of_guests_that_are_not_chosen_are_not_looked_at(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    revision = commit(folder, WWW + API, {"www.unix": program, "api.unix": b"no image"})
    desired = desired_at(revision, choosing("www"), store, vault)
    assert (set(desired.guests), desired.unready) == ({"www"}, {})
    assert desired.watched == (description.NAME, "www.unix")


def test_guests_that_are_not_chosen_are_named(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    revision = commit(folder, WWW + API, {"www.unix": program})
    desired = desired_at(revision, choosing("www", "gone"), store, vault)
    assert desired.selection == ("www", "gone")
    assert desired.unselected == {"api"}


@pytest.mark.parametrize(
    ("text", "bound", "lost"),
    [
        ("", HOST, True),
        (WWW, HOST, False),
        ("", choosing("www"), True),
        (WWW, choosing("api"), False),
        (WWW, choosing(), False),
        ("", choosing(), False),
    ],
    ids=["no guest", "a guest", "none chosen", "others", "choice of none", "none at all"],
)
def test_a_state_is_lost_where_nothing_is_described_and_nobody_chose_that(
    folder: Path, store: Store, vault: Vault, text: str, bound: Host, lost: bool
) -> None:
    assert desired_at(commit(folder, text), bound, store, vault).lost is lost


# Disk images.

DISK = f'{WWW.replace("unix", "xen")}[guest.www.block.xvda]\nimage = "fat1.img"\n'


def test_a_disk_image_is_no_path_outside_the_repository(refusal: Refusal) -> None:
    text = DISK.replace("fat1.img", "../fat1.img")
    bound = Host("main", user=USER, limits=ALL_TARGETS)
    assert "image '../fat1.img' is no path inside the repository" in refusal(text, bound)


@pytest.mark.parametrize("both", ['volume = "data"\nimage = "a.img"', "readonly = true"])
def test_a_block_device_is_either_a_volume_or_a_disk_image(refusal: Refusal, both: str) -> None:
    text = DISK.replace('image = "fat1.img"', both)
    bound = Host("main", user=USER, limits=ALL_TARGETS)
    assert "give a volume of the host's, or an image of the repository's" in refusal(text, bound)


def test_a_disk_image_that_is_not_there_yet_is_waited_for(
    folder: Path, store: Store, vault: Vault
) -> None:
    bound = Host("main", user=USER, limits=ALL_TARGETS)
    found = desired_at(commit(folder, DISK, {"www.xen": b"?"}), bound, store, vault)
    assert isinstance(found.unready["www"], Missing)
    assert "fat1.img" in found.watched
