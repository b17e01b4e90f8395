"""The guests that tests boot do what is said of them, or tests that use them would show nothing."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guests_built import Built, BuiltTarget, qemu
from mirage_hooks.boot.elf import inspect
from namespace import Namespace
from support import free_port, get, wait_for

STATIC = ("--ipv4=10.0.0.2/24", "--ipv4-gateway=10.0.0.1", "--ipv4-only=true")
MAC = "02:00:00:00:00:02"
ALL: tuple[BuiltTarget, ...] = ("unix", "spt", "hvt", "virtio")
ON_TAPS = ("unix", "spt", "virtio")

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None,
    reason="QEMU is not installed: apt-get install qemu-system-x86",
)
each_target = pytest.mark.parametrize(
    "target", [pytest.param(each, marks=needs_qemu if each == "virtio" else ()) for each in ALL]
)

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def console(tmp_path: Path) -> Path:
    """Where guests write to."""
    return tmp_path / "console"


@pytest.fixture
def bridge(namespace: Namespace) -> Namespace:
    """A namespace with a bridge, and the tap `tap0` on it."""
    namespace.bridge("br0", "10.0.0.1/24", "fd00::1/64")
    namespace.tap("tap0", "br0")
    return namespace


@pytest.fixture
def start(bridge: Namespace, built: Built, console: Path) -> Start:
    """Return a function that boots a guest on the bridge."""

    def boot(
        target: BuiltTarget, *arguments: str, page: str = "hello", **options: bool
    ) -> subprocess.Popen[bytes]:
        image = built.image(target, page, **options)  # type: ignore[arg-type]
        return bridge.popen(*built.command(target, image, "tap0", *arguments), console=console)

    return boot


@each_target
def test_a_guest_is_reached_at_its_address(
    target: BuiltTarget, bridge: Namespace, start: Start, console: Path
) -> None:
    start(target, *STATIC, page="one")
    wait_for(lambda: bridge.get("10.0.0.2") == "one")
    assert bridge.pings("10.0.0.2")
    assert re.search(
        r"INFO \[tcpip-stack-direct\] Dual TCP/IP stack assembled: mac=([0-9a-f:]+),ip=10.0.0.2/24",
        console.read_text(),
    )
    if target != "unix":
        assert MAC in bridge.run("ip", "neighbour").stdout


@each_target
def test_a_guest_announces_its_address(
    target: BuiltTarget, bridge: Namespace, start: Start, console: Path
) -> None:
    # On the tap, not on the bridge: Linux may need longer to set the bridge's port going than a
    # guest to boot. And every protocol: what a port gets is the bridge's before it is ARP's.
    every = 3
    with bridge.entered():
        watch = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(every))
    with watch:
        watch.bind(("tap0", every))
        watch.settimeout(10)
        start(target, *STATIC)
        while not _is_announcement(frame := watch.recv(2048)):
            pass
    sender = frame[22:28].hex(":")
    wait_for(lambda: f"[ARP] Sending gratuitous ARP for 10.0.0.2 ({sender})" in console.read_text())


@each_target
def test_connections_are_served_however_many_there_are(
    target: BuiltTarget, bridge: Namespace, start: Start
) -> None:
    start(target, *STATIC)
    wait_for(lambda: bridge.get("10.0.0.2"))

    def ask(_: int) -> str | None:
        return bridge.get("10.0.0.2")

    with ThreadPoolExecutor(10) as threads:
        assert set(threads.map(ask, range(300))) == {"hello"}


def test_a_request_may_come_in_pieces(bridge: Namespace, start: Start) -> None:
    start("unix", *STATIC)
    wait_for(lambda: bridge.get("10.0.0.2"))
    with bridge.entered():
        connection = socket.create_connection(("10.0.0.2", 80), 5)
    with connection:
        connection.sendall(b"GET / HTTP/1.0\r\n")
        time.sleep(0.05)
        connection.sendall(b"Host: guest\r\n\r\n")
        assert connection.makefile("rb").read().endswith(b"hello\n")


def test_a_connection_may_end_without_a_request(bridge: Namespace, start: Start) -> None:
    start("unix", *STATIC)
    wait_for(lambda: bridge.get("10.0.0.2"))
    with bridge.entered():
        connection = socket.create_connection(("10.0.0.2", 80), 5)
    with connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_a_closed_port_refuses(bridge: Namespace, start: Start) -> None:
    start("unix", *STATIC)
    wait_for(lambda: bridge.get("10.0.0.2"))
    with bridge.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("10.0.0.2", 81), 5)


def test_a_connection_with_an_earlier_boot_is_reset(bridge: Namespace, start: Start) -> None:
    first = start("spt", *STATIC)
    wait_for(lambda: bridge.get("10.0.0.2"))
    with bridge.entered():
        connection = socket.create_connection(("10.0.0.2", 80), 5)
    first.kill()
    first.wait()
    start("spt", *STATIC)
    wait_for(lambda: bridge.get("10.0.0.2"))
    with connection, pytest.raises(ConnectionResetError):
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        connection.recv(1)


@each_target
def test_every_datagram_to_port_7_comes_back(
    target: BuiltTarget, bridge: Namespace, start: Start
) -> None:
    start(target, *STATIC)
    wait_for(lambda: bridge.get("10.0.0.2"))
    with bridge.entered():
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with probe:
        probe.settimeout(2)
        probe.connect(("10.0.0.2", 7))
        for number in range(500):
            probe.send(number.to_bytes(4, "big"))
            assert probe.recv(2048) == number.to_bytes(4, "big")
            time.sleep(0.001)


@each_target
def test_an_ipv6_address_answers_ping(target: BuiltTarget, bridge: Namespace, start: Start) -> None:
    start(target, "--ipv4=10.0.0.2/24", "--ipv6=fd00::2/64", "--ipv6-gateway=fd00::1")
    wait_for(lambda: bridge.pings("fd00::2"))


def test_without_ipv4_only_the_first_reply_is_a_second_late(
    bridge: Namespace, start: Start
) -> None:
    started = time.monotonic()
    start("unix", "--ipv4=10.0.0.2/24")
    wait_for(lambda: bridge.pings("10.0.0.2", 0.1))
    assert 1 <= time.monotonic() - started < 3


@each_target
@pytest.mark.skipif(
    shutil.which("dnsmasq") is None, reason="dnsmasq is missing: apt-get install dnsmasq-base"
)
def test_an_image_built_with_dhcp_gets_a_lease(
    target: BuiltTarget, bridge: Namespace, start: Start, console: Path, tmp_path: Path
) -> None:
    bridge.popen(
        "dnsmasq",
        *("--keep-in-foreground", "--port=0", "--interface=br0", "--bind-interfaces"),
        *("--dhcp-range=10.0.0.50,10.0.0.50,2m", "--no-ping", "--log-facility=-", "--user=root"),
        *("--conf-file=/dev/null", f"--dhcp-leasefile={tmp_path / 'leases'}", "--pid-file="),
        console=tmp_path / "dnsmasq",
    )
    start(target, "--ipv4-only=true", dhcp=True)
    wait_for(lambda: bridge.get("10.0.0.50") == "hello")
    text = console.read_text()
    assert "[dhcp_client_lwt] Lease obtained! IP: 10.0.0.50, routers: 10.0.0.1\n" in text
    assert "ip=10.0.0.50/24" in text


def test_a_guest_without_a_dhcp_server_goes_on_asking(bridge: Namespace, start: Start) -> None:
    with bridge.entered():
        watch = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    with watch:
        watch.bind(("br0", 0x0800))
        watch.settimeout(5)
        start("unix", "--dhcp")
        times: list[float] = []
        while len(times) < 3:
            frame = watch.recv(2048)
            if frame[34:38] == bytes([0, 68, 0, 67]):
                times.append(time.monotonic())
    assert times[2] - times[0] == pytest.approx(2, abs=0.5)


def test_two_guests_talk_over_one_bridge(
    bridge: Namespace, start: Start, built: Built, tmp_path: Path
) -> None:
    start("spt", *STATIC)
    bridge.tap("tap1", "br0")
    other = ("--ipv4=10.0.0.3/24", "--ipv4-only=true", "--peer=10.0.0.2")
    command = built.command("unix", built.image("unix"), "tap1", *other)
    bridge.popen(*command, console=tmp_path / "other")
    wait_for(lambda: "[application] 10.0.0.2 answers" in (tmp_path / "other").read_text())


@pytest.mark.parametrize("target", ON_TAPS)
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


def _is_announcement(frame: bytes) -> bool:
    # RFC 5227: the address is asked for by the address itself.
    asked = frame[28:32] == frame[38:42] == bytes([10, 0, 0, 2])
    return frame[:6] == b"\xff" * 6 and frame[12:14] == b"\x08\x06" and asked
