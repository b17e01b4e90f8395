"""How the guests that tests boot end, and what they take and touch."""

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from guests_built import STATIC, Built, BuiltTarget, Start, each_target, needs_qemu, qemu
from mirage_hooks.boot.elf import inspect
from namespace import Namespace
from support import free_port, get, wait_for


@pytest.mark.parametrize("target", ["unix", "spt", "virtio"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("--ipv4=10.0.0.2",),
        ("--ipv4=10.0.0.2/24", "--ipv4=10.0.0.3/24"),
        ("--ipv4=10.0.0.256/24",),
        ("--ipv4=10.0.0.2/33",),
        ("--ipv4-gateway=here",),
        ("--ipv4-only=yes",),
        ("--ipv6=fd00::1::2/64",),
        ("--nonsense",),
        ("--port=",),
    ],
    ids=" ".join,
)
@needs_qemu
def test_a_bad_argument_ends_a_guest_with_64(
    target: BuiltTarget, arguments: tuple[str, ...], start: Start, console: Path
) -> None:
    ended = start(target, *arguments)
    # QEMU keeps the guest's exit code to itself.
    assert ended.wait(10) == (83 if target == "virtio" else 64)
    assert arguments[-1] in console.read_text()
    assert target == "unix" or "solo5_exit(64)" in console.read_text()


@pytest.mark.parametrize(
    ("target", "arguments", "code"),
    [
        ("unix", ("--exit=7",), 7),
        ("spt", ("--exit=7",), 7),
        ("hvt", ("--exit=7",), 7),
        pytest.param("virtio", ("--exit=7",), 83, marks=needs_qemu),
        ("unix", ("--help",), 63),
        ("spt", ("--help",), 63),
        ("unix", ("--crash-after=10",), -signal.SIGABRT),
        ("spt", ("--crash-after=10",), 255),
        ("hvt", ("--crash-after=10",), 255),
        pytest.param("virtio", ("--crash-after=10",), 83, marks=needs_qemu),
    ],
)
def test_how_a_guest_ends(
    target: BuiltTarget, arguments: tuple[str, ...], code: int, start: Start
) -> None:
    assert start(target, *arguments).wait(10) == code


@pytest.mark.parametrize("target", ["unix", "spt"])
def test_a_broken_image_ends_when_it_starts(target: BuiltTarget, start: Start) -> None:
    assert start(target, *STATIC, broken=True).wait(10) == 2


def test_a_hanging_guest_answers_nothing(bridge: Namespace, start: Start) -> None:
    hanging = start("spt", *STATIC, "--hang-after=2500")
    wait_for(lambda: bridge.pings("10.0.0.2", 0.1))
    wait_for(lambda: not bridge.pings("10.0.0.2", 0.3))
    assert hanging.poll() is None


def test_a_delayed_guest_answers_later(bridge: Namespace, start: Start) -> None:
    started = time.monotonic()
    start("spt", *STATIC, "--delay=700")
    wait_for(lambda: bridge.pings("10.0.0.2", 0.1))
    assert time.monotonic() - started >= 0.7


def test_a_unix_guest_makes_its_tap(namespace: Namespace, built: Built, console: Path) -> None:
    command = built.command("unix", built.image("unix"), "new0", *STATIC)
    guest = namespace.popen(*command, console=console)
    wait_for(lambda: namespace.links() == ["new0"])
    guest.kill()
    wait_for(lambda: namespace.links() == [])


def test_a_unix_guest_fails_where_its_tap_is_in_use(start: Start, console: Path) -> None:
    start("unix", *STATIC)
    wait_for(lambda: "assembled" in console.read_text())
    assert start("unix", *STATIC).wait(10) == 2


@needs_qemu
def test_a_kernel_is_reached_through_qemus_own_network(built: Built, console: Path) -> None:
    port = free_port()
    network = f"user,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:80"
    command = qemu(built.image("virtio", "alone"), network, "--ipv4=10.0.2.15/24 --ipv4-only=true")
    started = time.monotonic()
    with console.open("wb") as output:
        guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output)
    try:
        wait_for(lambda: get(port) == "alone", 20)
        print(f"first reply of a virtio guest after {time.monotonic() - started:.3f} s")
    finally:
        guest.kill()
        guest.wait()


@needs_qemu
def test_a_kernel_reads_its_disk(built: Built, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"first line\nsecond".ljust(4096, b"\0"))
    devices = {"storage": "BLOCK_BASIC", "service": "NET_BASIC"}
    image = built.image("virtio", devices=devices)
    command = qemu(image, "user,restrict=on", "--exit=0", disk=disk)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert "\nstorage: first line\n" in done.stdout


@needs_qemu
def test_a_kernel_refuses_devices_that_are_not_in_its_manifest(
    built: Built, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    command = qemu(built.image("virtio"), "user,restrict=on", disk=disk)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 83
    assert "solo5_abort() called" in done.stdout


@each_target
def test_an_image_is_what_it_says(target: BuiltTarget, built: Built) -> None:
    assert inspect(built.image(target)).target == target


@pytest.mark.skipif(
    shutil.which("solo5-elftool") is None, reason="solo5-elftool is not on PATH: nothing to compare"
)
@pytest.mark.parametrize("target", ["spt", "hvt", "virtio"])
def test_solo5_reads_the_same_in_an_image(target: BuiltTarget, built: Built) -> None:
    image = built.image(target, devices={"service": "NET_BASIC", "storage": "BLOCK_BASIC"})
    abi, manifest = (
        subprocess.run(["solo5-elftool", query, image], capture_output=True, check=True).stdout
        for query in ("query-abi", "query-manifest")
    )
    assert f'"target": "{target}"'.encode() in abi
    assert re.findall(rb'"name": "(\w+)", "type": "(\w+)"', manifest) == [
        (b"service", b"NET_BASIC"),
        (b"storage", b"BLOCK_BASIC"),
    ]


def test_solo5s_images_are_no_programs(built: Built) -> None:
    with pytest.raises(FileNotFoundError):
        subprocess.run([built.image("spt")], check=False)
