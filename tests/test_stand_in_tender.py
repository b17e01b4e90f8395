"""The stand-in for Solo5's tenders takes and refuses what they do."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guests_built import MAC, STATIC, Built, BuiltTarget, Start
from namespace import Namespace
from support import wait_for

# What the tenders refuse, as arguments with {names} of the images and files below.
REFUSED = [
    "",
    "--help",
    "/nonexistent",
    f"{sys.executable}",
    "{hvt}",
    "{old}",
    "{image}",
    "--nonsense {image}",
    "--mem=x {image}",
    "--mem=0 {image}",
    "--mem=1 --net:service=tap0 {image}",
    "--net:service {image}",
    "--net:other=tap0 {image}",
    "--net:service=missing {image}",
    "--net:service=a-name-that-is-too-long {image}",
    "--net:service=idle {image}",
    "--net:service=busy {image}",
    "--net:service=@3 {image}",
    "--net:service=tap0 --net-mac:other=02:00:00:00:00:01 {image}",
    "--net:service=tap0 --net-mac:service=nonsense {image}",
    "--net:service=tap0 --block:service={whole} {image}",
    "--net:service=tap0 {disk}",
    "--net:service=tap0 --block:storage=/nonexistent {disk}",
    "--net:service=tap0 --block:storage={odd} {disk}",
    "--net:service=tap0 --block:storage={whole} --block-sector-size:storage=500 {disk}",
    "--net:service=tap0 --block:storage={whole} --block-sector-size:storage=8192 {disk}",
]


@pytest.fixture(params=["stand-in", "solo5-spt"])
def spt(request: pytest.FixtureRequest, built: Built) -> Path:
    """The stand-in, and the real tender where it is installed: both are to refuse the same."""
    if request.param == "stand-in":
        return built.tender("spt")
    real = shutil.which("solo5-spt")
    if real is None:
        pytest.skip("solo5-spt is not on PATH: only its stand-in is tried")
    return Path(real)


@pytest.mark.parametrize("arguments", REFUSED)
def test_a_tender_refuses(
    arguments: str, spt: Path, bridge: Namespace, start: Start, built: Built, tmp_path: Path
) -> None:
    (tmp_path / "whole").write_bytes(bytes(4096))
    (tmp_path / "odd").write_bytes(bytes(4097))
    filled = arguments.format(
        image=built.image("spt"),
        hvt=built.image("hvt"),
        old=built.image("spt", abi=1),
        disk=built.image("spt", devices={"service": "NET_BASIC", "storage": "BLOCK_BASIC"}),
        whole=tmp_path / "whole",
        odd=tmp_path / "odd",
    )
    if "idle" in arguments:
        bridge.tap("idle")
        bridge.run("ip", "link", "set", "idle", "down")
    if "busy" in arguments:
        bridge.tap("busy")
        holder = built.command("unix", built.image("unix"), "busy")
        bridge.popen(*holder, console=tmp_path / "holder")
        wait_for(lambda: "plugging" in (tmp_path / "holder").read_text())
    done = bridge.run(str(spt), *filled.split(), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr


def test_a_tender_tells_its_version(spt: Path) -> None:
    done = subprocess.run([spt, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"solo5-spt tender, version .*\nABI version 2\n", done.stderr)


def test_a_tender_attaches_what_the_manifest_says(
    bridge: Namespace, built: Built, console: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"first line\nsecond".ljust(4096, b"\0"))
    image = built.image("spt", devices={"service": "NET_BASIC", "storage": "BLOCK_BASIC"})
    options = (
        "--mem=32",
        "--net:service=tap0",
        f"--block:storage={disk}",
        f"--net-mac:service={MAC}",
    )
    bridge.popen(built.tender("spt"), *options, "--", image, *STATIC, console=console)
    wait_for(lambda: bridge.pings("10.0.0.2"))
    assert "storage: first line\n" in console.read_text()


def test_a_tender_without_privilege_needs_a_tap_of_its_own(
    bridge: Namespace, built: Built, console: Path
) -> None:
    bridge.tap("own", "br0", user="nobody")
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    image = built.image("spt")
    refused = built.command("spt", image, "tap0", *STATIC)
    assert bridge.run(*as_nobody, *refused, check=False).returncode == 1
    bridge.popen(*as_nobody, *built.command("spt", image, "own", *STATIC), console=console)
    wait_for(lambda: bridge.pings("10.0.0.2"))


@pytest.mark.parametrize(("target", "code"), [("spt", -signal.SIGTERM), ("hvt", 1)])
def test_how_a_tender_is_ended(
    target: BuiltTarget, code: int, bridge: Namespace, start: Start
) -> None:
    guest = start(target, *STATIC)
    wait_for(lambda: bridge.pings("10.0.0.2"))
    guest.terminate()
    assert guest.wait(5) == code
