"""Bad input: one clear message, a documented exit code, and nothing that runs is lost.

What a single module refuses is told in that module's own tests; here is what an operator meets.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import USER, Site, free_port

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount and change owners")


def refused(site: Site, code: int, *words: str) -> None:
    """Bring a commit in by a pull, then by hand: it is refused in words, and the guest lives on."""
    pull = site.pull()
    deploy = site.command("deploy", check=False)
    said = deploy.stdout + deploy.stderr
    assert deploy.returncode == code, said
    for word in words:
        assert word in said
        assert word in pull.stderr
    assert "Traceback" not in said + pull.stderr
    assert site.page() == "one"
    assert site.outcomes() == ["healthy"]


def write_manifest(site: Site, text: str) -> None:
    (site.upstream / "mirage-hooks.toml").write_text(text)
    site.commit("another manifest")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("target =", "traget =", ["guest www", "unknown key 'traget'"]),
        ("[guest.www.check]", "[guest.www.chekc]", ["guest www", "unknown key 'chekc'"]),
        ('"unix"', "7", ["guest www", "target"]),
        ("within =", "withn =", ["guest www", "check", "unknown key 'withn'"]),
        ("[guest.www", '[guest."../www"', ["'../www'", "cannot name a guest"]),
        ("[guest.www", '[guest."-www"', ["'-www'", "cannot name a guest"]),
        ("[guest.www", '[guest."w\\u0000w"', ["cannot name a guest"]),
        ("unix/{latest}", "../{latest}", ["guest www", "no path inside the repository"]),
        ("[guest.www]", "[guest.www", ["no valid TOML"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_manifest_that_cannot_be_is_refused(
    deployed: Site, old: str, new: str, words: list[str]
) -> None:
    write_manifest(deployed, deployed.manifest().replace(old, new))
    refused(deployed, 3, *words)


def test_a_manifest_that_is_gone_stops_nothing(deployed: Site) -> None:
    (deployed.upstream / "mirage-hooks.toml").unlink()
    deployed.commit("lost it")
    refused(deployed, 3, "no guest is described", "www runs", "--allow-empty")


def test_a_manifest_that_is_meant_to_be_gone_stops_everything(deployed: Site) -> None:
    (deployed.upstream / "mirage-hooks.toml").unlink()
    deployed.commit("on purpose")
    deployed.pull()
    deployed.command("deploy", "--allow-empty")
    assert deployed.live() is None


def test_two_guests_with_one_address_are_refused(deployed: Site) -> None:
    twin = deployed.manifest().replace("guest.www", "guest.twin")
    write_manifest(deployed, deployed.manifest() + twin)
    refused(deployed, 3, "guests www and twin have one address", f"127.0.0.1:{deployed.port}")


@pytest.mark.parametrize("pointer", ["../secret", "a/b", "..", "-rf", "a\nb", "a\0b", ""])
def test_a_pointer_that_leads_elsewhere_is_refused(deployed: Site, pointer: str) -> None:
    (deployed.upstream / "unix" / "latest").write_text(pointer)
    deployed.commit("astray")
    refused(deployed, 4, "pointer unix/latest holds")


def test_a_pointer_to_nothing_is_skipped_and_said(deployed: Site) -> None:
    (deployed.upstream / "unix" / "latest").write_text("not-there-yet\n")
    deployed.commit("pointer first")
    pull = deployed.pull()
    deploy = deployed.command("deploy")
    assert "there is no image unix/not-there-yet/www.unix yet" in pull.stderr
    assert "there is no image unix/not-there-yet/www.unix yet" in deploy.stdout
    assert deployed.page() == "one"
    folder = deployed.upstream / "unix" / "not-there-yet"
    folder.mkdir()
    shutil.copy(deployed.compiled("two"), folder / "www.unix")
    deployed.commit("image second")
    deployed.pull()
    assert deployed.page() == "two"


def as_link(image: Path) -> None:
    image.unlink()
    image.symlink_to("/bin/true")


def as_folder(image: Path) -> None:
    image.unlink()
    image.mkdir()
    (image / "file").touch()
    (image / "file").write_text("x")


def as_empty(image: Path) -> None:
    image.write_bytes(b"")


def as_cut_short(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:5000])


def as_cut_short_archive(image: Path) -> None:
    packed = subprocess.run(["bzip2", "-c", image], capture_output=True, check=True).stdout
    image.write_bytes(packed[: len(packed) // 2])


def as_corrupt_archive(image: Path) -> None:
    packed = subprocess.run(["bzip2", "-c", image], capture_output=True, check=True).stdout
    image.write_bytes(packed[:2000] + b"\xff" * 64 + packed[2064:])


def as_bomb(image: Path) -> None:
    zeros = subprocess.Popen(["head", "-c", "300M", "/dev/zero"], stdout=subprocess.PIPE)
    with zeros, image.open("wb") as output:
        subprocess.run(["gzip", "-1"], stdin=zeros.stdout, stdout=output, check=True)


def as_wrong_machine(image: Path) -> None:
    data = bytearray(image.read_bytes())
    data[18:20] = (8).to_bytes(2, "little")  # e_machine: MIPS
    image.write_bytes(data)


def as_text(image: Path) -> None:
    image.write_text("not found\n")


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (as_link, 4, ["www.unix is a symbolic link"]),
        (as_folder, 4, ["www.unix is a folder"]),
        (as_empty, 4, ["is empty"]),
        (as_cut_short, 5, ["cut short"]),
        (as_cut_short_archive, 5, ["cut short: its bzip2 data ends early"]),
        (as_corrupt_archive, 5, ["no sound bzip2 file"]),
        (as_bomb, 5, ["unpacks to more than 256 MiB", "raise `image`"]),
        (as_wrong_machine, 5, ["for another machine"]),
        (as_text, 5, ["neither an ELF file nor a script"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_image_that_cannot_serve_is_refused(
    deployed: Site, spoil: Callable[[Path], None], code: int, words: list[str]
) -> None:
    deployed.publish("two")
    spoil(next((deployed.upstream / "unix").glob(f"{deployed.count:040x}/www.unix")))
    deployed.commit("spoilt")
    refused(deployed, code, *words)


def test_an_image_that_is_a_submodule_is_refused(deployed: Site) -> None:
    deployed.publish("two")
    path = f"unix/{deployed.count:040x}/www.unix"
    (deployed.upstream / path).unlink()
    git = ["git", "-C", str(deployed.upstream)]
    subprocess.run([*git, "rm", "-q", "--cached", path], check=True)
    link = f"160000,{'1' * 40},{path}"
    subprocess.run([*git, "update-index", "--add", "--cacheinfo", link], check=True)
    subprocess.run([*git, "commit", "-qm", "a submodule"], check=True)
    refused(deployed, 4, "www.unix is a submodule")


def test_a_script_is_accepted_with_a_notice(deployed: Site) -> None:
    deployed.check = 'alive = "200ms"'
    deployed.publish(image=b"#!/bin/sh\nexec sleep 1000\n")
    assert "is a script, not an ELF file" in deployed.pull().stderr
    assert deployed.outcomes() == ["ended", "healthy"]


def test_a_port_in_use_is_found_before_the_guest_is_touched(deployed: Site) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        write_manifest(
            deployed,
            deployed.manifest().replace(f"--port={deployed.port}", f"--port={port}"),
        )
        pull = deployed.pull()
        deploy = deployed.command("deploy", check=False)
    assert deploy.returncode == 6
    assert f"127.0.0.1:{port} is in use by " in pull.stderr
    assert deployed.page() == "one"
    assert deployed.outcomes() == ["healthy"]


def test_an_unknown_guest_is_refused(deployed: Site) -> None:
    reboot = deployed.command("reboot", "nobody", check=False)
    assert reboot.returncode == 3
    assert "there is no guest 'nobody'" in reboot.stderr
    assert deployed.outcomes() == ["healthy"]


@pytest.mark.parametrize("file", ["generation.json", "monitor.json"])
def test_a_damaged_record_is_named_and_keeps_nothing_from_deploying(
    deployed: Site, file: str
) -> None:
    path = deployed.state.generation_folder("www", 1) / file
    path.write_text("{")
    deployed.publish("two")
    assert str(path) in deployed.pull().stderr
    assert deployed.page() == "two"
    assert deployed.outcomes() == ["ended", "healthy"]


def test_a_branch_that_is_gone_is_said(deployed: Site) -> None:
    deployed.git("checkout", "-q", "--detach")
    deployed.git("branch", "-q", "-D", "main")
    deploy = deployed.command("deploy", check=False)
    assert deploy.returncode == 4
    assert "branch main of" in deploy.stderr
    assert deployed.page() == "one"


@needs_root
def test_somebody_elses_state_is_left_alone(deployed: Site) -> None:
    os.chown(deployed.state.folder, 12345, 12345)
    try:
        deployed.publish("two")
        pull = deployed.pull()
        deploy = deployed.command("deploy", check=False)
    finally:
        os.chown(deployed.state.folder, 0, 0)
    assert deploy.returncode == 6
    assert "the guests here are 12345's: a trigger is left" in pull.stderr
    assert "belongs to user 12345" in deploy.stderr
    assert deployed.page() == "one"


@pytest.fixture
def mounted(deployed: Site) -> Iterator[Callable[[Path, str], None]]:
    """Mount a tmpfs over a folder, with what was in it."""
    mounts: list[Path] = []

    def mount(path: Path, options: str) -> None:
        kept = path.with_name(f"{path.name}.kept")
        shutil.copytree(path, kept)
        command = ["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs", str(path)]
        subprocess.run(command, check=True)
        mounts.append(path)
        shutil.copytree(kept, path, dirs_exist_ok=True)

    yield mount
    for path in mounts:
        subprocess.run(["umount", "-l", path], check=True)
    del deployed


@needs_root
def test_a_disk_that_fills_while_an_image_is_unpacked_loses_nothing(
    deployed: Site, mounted: Callable[[Path, str], None]
) -> None:
    store = deployed.state.store
    mounted(store, "size=1500k")
    deployed.publish("two")
    pull = deployed.pull()
    deploy = deployed.command("deploy", check=False)
    assert deploy.returncode == 6
    assert "no space left while unpacking" in pull.stderr
    assert deployed.page() == "one"
    assert [path.name for path in store.iterdir() if path.name.startswith(".")] == []
    subprocess.run(["mount", "-o", "remount,size=10m", store], check=True)
    deployed.command("deploy")
    assert deployed.page() == "two"


@needs_root
def test_a_read_only_state_folder_loses_nothing(
    deployed: Site, mounted: Callable[[Path, str], None]
) -> None:
    folder = deployed.state.folder
    mounted(folder, "size=10m")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    deployed.publish("two")
    pull = deployed.pull()
    deploy = deployed.command("deploy", check=False)
    assert pull.returncode == 0
    assert deploy.returncode == 6
    assert "Read-only file system" in pull.stderr
    assert "Traceback" not in pull.stderr + deploy.stderr
    assert deployed.page() == "one"


def test_a_host_file_that_cannot_be_is_refused(deployed: Site) -> None:
    host_file = deployed.state.host_file
    host_file.write_text(host_file.read_text() + "\n[limist]\nmemory = 3\n")
    deployed.publish("two")
    refused(deployed, 3, "host.toml", "unknown key 'limist'")


@pytest.mark.skipif(USER is None, reason="only root has to name a user")
def test_root_runs_no_native_code_without_a_user(deployed: Site) -> None:
    host_file = deployed.state.host_file
    host_file.write_text(host_file.read_text().replace(f'user = "{USER}"\n', ""))
    deployed.publish("two")
    refused(deployed, 3, "guest www", "root does not run it as root", "host.toml")
