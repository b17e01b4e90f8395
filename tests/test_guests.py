"""The guests that tests boot do what is said of them, or tests that use them would show nothing."""

import re
import shutil
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guests_built import MAC, STATIC, Built, BuiltTarget, Start, each_target
from namespace import Namespace
from support import wait_for


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


def test_what_is_sent_again_is_answered_again(bridge: Namespace, start: Start) -> None:
    start("spt", *STATIC)
    wait_for(lambda: bridge.get("10.0.0.2"))
    every = 3
    with bridge.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(every))
    with wire:
        wire.bind(("tap0", every))
        wire.settimeout(5)

        def ask(flags: int, sequence: int, acknowledged: int, data: bytes = b"") -> bytes:
            wire.send(_segment(flags, sequence, acknowledged, data))
            # Both directions are seen here: what comes from the guest comes from port 80.
            while (frame := wire.recv(2048))[34:36] != b"\0\x50" or frame[23] != socket.IPPROTO_TCP:
                pass
            return frame[34:]

        opened = ask(_SYN, 100, 0)
        assert ask(_SYN, 100, 0) == opened
        ours = int.from_bytes(opened[4:8], "big") + 1
        page = ask(_ACK, 101, ours, b"GET / HTTP/1.0\r\n\r\n")
        assert page.endswith(b"hello\n")
        assert ask(_ACK, 101, ours, b"GET / HTTP/1.0\r\n\r\n") == page


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


@pytest.mark.parametrize(
    ("arguments", "least", "most"),
    [((), 1, 3), (("--ipv4-only=false",), 1, 3), (("--ipv4-only=true", "--port=80"), 0, 1)],
)
def test_without_ipv4_only_a_guest_is_a_second_late(
    arguments: tuple[str, ...], least: float, most: float, start: Start, console: Path
) -> None:
    started = time.monotonic()
    start("unix", *arguments)
    wait_for(lambda: "stack assembled" in console.read_text())
    assert least <= time.monotonic() - started < most


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


def _is_announcement(frame: bytes) -> bool:
    # RFC 5227: the address is asked for by the address itself.
    asked = frame[28:32] == frame[38:42] == bytes([10, 0, 0, 2])
    return frame[:6] == b"\xff" * 6 and frame[12:14] == b"\x08\x06" and asked


_SYN, _ACK = 2, 16


def _segment(flags: int, sequence: int, acknowledged: int, data: bytes) -> bytes:
    # From a host that nobody else is. The guest checks no checksums.
    ethernet = bytes.fromhex(MAC.replace(":", "")) + bytes([2, 0, 0, 0, 0, 77]) + b"\x08\x00"
    addresses = bytes([10, 0, 0, 77, 10, 0, 0, 2])
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0, 64, socket.IPPROTO_TCP, 0)
    tcp = struct.pack("!HHIIBBHHH", 4000, 80, sequence, acknowledged, 5 << 4, flags, 4096, 0, 0)
    return ethernet + ip + addresses + tcp + data
