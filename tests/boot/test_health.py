"""Checks: what is found healthy, what is not, and how long it takes to say so."""

import http.server
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from mirage_hooks.boot.console import ConsoleLog
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.guest import Check
from mirage_hooks.boot.health import Subject, Verdict, examine
from mirage_hooks.boot.process import identify
from mirage_hooks.boot.tender import explain_exit
from support import free_port


class Guest:
    """A guest that runs, and what its monitor would say of it. This process is the monitor."""

    def __init__(self, image: Path, folder: Path, port: int, *arguments: str) -> None:
        self.port = port
        self.console = ConsoleLog(str(folder / "console.log"), 1 << 20)
        self._console_path = str(folder / "console.log")
        command = [str(image), "--ipv4=127.0.0.1/8", f"--port={port}", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self._tender = identify(self.process.pid)
        self._started = time.time()

    def state(self) -> MonitorState:
        """Return what its monitor would say."""
        me = identify(os.getpid())
        state = MonitorState("running", me, self._tender, "", self._started)
        if (status := self.process.poll()) is not None:
            state.phase = "exited"
            state.exit, state.exit_code = explain_exit(status)
        return state

    def examine(self, check: Check, ports: tuple[int, ...] | None = None) -> Verdict:
        """Try a check; the guest was told its own port, where nothing else is said."""
        told = (self.port,) if ports is None else ports
        return examine(check, Subject(self.state, self._console_path, told, list))


@pytest.fixture
def boot(compiled: Callable[[str], Path], tmp_path: Path) -> Iterator[Callable[..., Guest]]:
    """Return a function that boots a guest with arguments, by default on a free port."""
    guests = []

    def start(*arguments: str, port: int | None = None) -> Guest:
        guests.append(Guest(compiled("one"), tmp_path, port or free_port(), *arguments))
        return guests[-1]

    yield start
    for guest in guests:
        guest.process.kill()
        guest.process.wait()


@pytest.fixture
def answer() -> Iterator[Callable[[Callable[[socket.socket], object]], int]]:
    """Return a function that answers each connection in its own way, and returns its port."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(how: Callable[[socket.socket], object]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        how(connection)

        listeners.append(listener)
        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def say_ok(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")


def url(guest: Guest, path: str = "/") -> str:
    return f"http://127.0.0.1:{guest.port}{path}"


# Alive.


def test_a_guest_that_lives_long_enough_is_healthy(boot: Callable[..., Guest]) -> None:
    verdict = boot().examine(Check(alive="200ms", within="5s"))
    assert (verdict.healthy, verdict.reason) == (True, "alive for 200ms")


def test_a_guest_has_to_live_as_long_as_it_is_asked_to(boot: Callable[..., Guest]) -> None:
    guest = boot()
    began = time.monotonic()
    guest.examine(Check(alive="300ms", within="5s"))
    assert time.monotonic() - began >= 0.25


def test_a_guest_is_to_live_for_two_seconds_where_nothing_else_is_asked() -> None:
    assert Check().alive_seconds == 2.0


def test_a_guest_that_dies_is_not_healthy(boot: Callable[..., Guest]) -> None:
    verdict = boot("--crash-after=100").examine(Check(alive="5s", within="6s"))
    assert (verdict.healthy, verdict.reason) == (False, "the guest was killed by SIGABRT")


def test_a_guest_that_dies_is_not_waited_for(boot: Callable[..., Guest]) -> None:
    verdict = boot("--exit=3").examine(Check(alive="5s", within="6s"))
    assert verdict.seconds < 3


def test_a_guest_that_died_is_not_healthy_though_its_console_was(
    boot: Callable[..., Guest],
) -> None:
    guest = boot("--exit=3")
    guest.console.write(b"ready\n")
    guest.process.wait()
    assert guest.examine(Check(console="ready")).reason == "the guest exited with 3"


# TCP.


def test_a_guest_that_takes_connections_is_healthy(boot: Callable[..., Guest]) -> None:
    guest = boot("--delay=100")
    verdict = guest.examine(Check(tcp=f"127.0.0.1:{guest.port}"))
    assert (verdict.healthy, verdict.reason) == (True, f"tcp 127.0.0.1:{guest.port}")


def test_a_guest_is_healthy_as_soon_as_it_takes_connections(boot: Callable[..., Guest]) -> None:
    guest = boot("--delay=100")
    verdict = guest.examine(Check(tcp=f"127.0.0.1:{guest.port}", within="5s"))
    assert 0.05 <= verdict.seconds < 2


def test_a_guest_that_takes_no_connection_in_time_is_not_healthy(
    boot: Callable[..., Guest],
) -> None:
    guest = boot("--delay=60000")
    verdict = guest.examine(Check(tcp=f"127.0.0.1:{guest.port}", within="300ms"))
    assert (verdict.healthy, verdict.reason) == (
        False,
        f"no connection to 127.0.0.1:{guest.port} (Connection refused) within 300ms",
    )


def test_a_guest_gets_all_its_time(boot: Callable[..., Guest]) -> None:
    guest = boot("--delay=60000")
    verdict = guest.examine(Check(tcp=f"127.0.0.1:{guest.port}", within="300ms"))
    assert 0.3 <= verdict.seconds < 2


# HTTP.


def test_a_guest_that_answers_is_healthy(boot: Callable[..., Guest]) -> None:
    guest = boot()
    verdict = guest.examine(Check(http=url(guest)))
    assert (verdict.healthy, verdict.reason) == (True, f"http {url(guest)}")


@pytest.mark.parametrize("status", [200, 204, 302, 399])
def test_a_status_below_400_is_healthy(boot: Callable[..., Guest], status: int) -> None:
    guest = boot(f"--status={status}")
    assert guest.examine(Check(http=url(guest))).healthy


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_status_from_400_on_is_not_healthy(boot: Callable[..., Guest], status: int) -> None:
    guest = boot(f"--status={status}")
    verdict = guest.examine(Check(http=url(guest), within="300ms"))
    assert (verdict.healthy, verdict.reason) == (
        False,
        f"{url(guest)} answered {status}, and nothing better within 300ms",
    )


def test_an_answer_that_is_no_http_is_not_healthy(
    boot: Callable[..., Guest], answer: Callable[..., int]
) -> None:
    port = answer(lambda connection: connection.sendall(b"220 mail.example.org\r\n"))
    verdict = boot().examine(Check(http=f"http://127.0.0.1:{port}/", within="300ms"))
    assert (verdict.healthy, verdict.reason[:24]) == (False, "no answer from http://12")


def test_an_answer_that_ends_before_it_began_is_not_healthy(
    boot: Callable[..., Guest], answer: Callable[..., int]
) -> None:
    port = answer(lambda connection: None)
    assert not boot().examine(Check(http=f"http://127.0.0.1:{port}/", within="300ms")).healthy


def test_path_and_query_are_asked_for_as_they_are_written(boot: Callable[..., Guest]) -> None:
    asked = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        check = Check(http=f"http://127.0.0.1:{server.server_port}/ready?deep=yes&x")
        boot().examine(check)
        server.shutdown()
        thread.join()
    assert asked == ["/ready?deep=yes&x"]


def test_a_silent_server_does_not_stretch_the_time_of_a_check(
    boot: Callable[..., Guest], answer: Callable[..., int]
) -> None:
    ended = threading.Event()
    port = answer(lambda connection: ended.wait(4))
    verdict = boot().examine(Check(http=f"http://127.0.0.1:{port}/", within="300ms"))
    ended.set()
    assert verdict.seconds < 1.5


def test_a_server_that_never_comes_to_an_end_does_not_stretch_the_time_of_a_check(
    boot: Callable[..., Guest], answer: Callable[..., int]
) -> None:
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\nX: ")
        for _ in range(60):
            if ended.wait(0.1):
                break
            connection.sendall(b"x")

    port = answer(drip)
    verdict = boot().examine(Check(http=f"http://127.0.0.1:{port}/", within="300ms"))
    ended.set()
    assert verdict.seconds < 3


# Somebody else's port.


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_port_answered_by_somebody_else_is_not_healthy(
    boot: Callable[..., Guest], answer: Callable[..., int], kind: str
) -> None:
    port = answer(say_ok)
    guest = boot("--delay=60000", port=port)
    address = f"127.0.0.1:{port}"
    check = (
        Check(tcp=address, within="300ms")
        if kind == "tcp"
        else Check(http=f"http://{address}/", within="300ms")
    )
    verdict = guest.examine(check)
    assert (verdict.healthy, verdict.reason) == (
        False,
        f"port {port} answered, but it is not this guest's: the guest did not open it within 300ms",
    )


def test_a_port_that_the_guest_was_not_told_may_be_somebody_elses(
    boot: Callable[..., Guest], answer: Callable[..., int]
) -> None:
    port = answer(say_ok)
    assert boot().examine(Check(tcp=f"127.0.0.1:{port}", within="2s")).healthy


# The console.


def test_a_guest_that_says_what_it_is_to_say_is_healthy(boot: Callable[..., Guest]) -> None:
    guest = boot()
    guest.console.write(b"first\nlistening on port 80\n")
    verdict = guest.examine(Check(console=r"listening on .* \d+$"))
    assert (verdict.healthy, verdict.reason) == (True, r"console listening on .* \d+$")


def test_a_guest_that_speaks_later_is_healthy(boot: Callable[..., Guest]) -> None:
    guest = boot()
    timer = threading.Timer(0.2, guest.console.write, [b"ready\n"])
    timer.start()
    verdict = guest.examine(Check(console="ready", within="5s"))
    timer.join()
    assert verdict.healthy


def test_a_guest_that_does_not_say_it_is_not_healthy(boot: Callable[..., Guest]) -> None:
    guest = boot()
    guest.console.write(b"something else\n")
    verdict = guest.examine(Check(console="ready", within="300ms"))
    assert (verdict.healthy, verdict.reason) == (
        False,
        "no line on the console like 'ready' within 300ms",
    )


def test_the_date_of_a_line_is_no_part_of_what_the_guest_said(boot: Callable[..., Guest]) -> None:
    guest = boot()
    guest.console.write(b"text\n")
    assert not guest.examine(Check(console=r"^20\d\d-", within="300ms")).healthy


def test_what_the_monitor_notes_is_nothing_that_the_guest_said(boot: Callable[..., Guest]) -> None:
    guest = boot()
    guest.console.note("generation 1 boots, by deploy c1")
    assert not guest.examine(Check(console=".", within="300ms")).healthy


def test_a_pattern_can_mean_a_whole_line(boot: Callable[..., Guest]) -> None:
    guest = boot()
    guest.console.write(b"ready\n")
    assert guest.examine(Check(console="^ready$", within="2s")).healthy


# What a commit may ask for: `re` alone would take years.
ASTRAY = "(a+)+$"


def test_a_pattern_that_goes_astray_does_not_stretch_the_time_of_a_check(
    boot: Callable[..., Guest],
) -> None:
    guest = boot()
    guest.console.write(b"a" * 60 + b"!\n")
    began = time.monotonic()
    verdict = guest.examine(Check(console=ASTRAY, within="500ms"))
    assert (verdict.healthy, verdict.reason) == (
        False,
        "no line on the console could be matched with '(a+)+$' within 500ms",
    )
    assert time.monotonic() - began < 10


def test_while_a_pattern_goes_astray_other_guests_are_checked(boot: Callable[..., Guest]) -> None:
    astray, other = boot(), boot()
    astray.console.write(b"a" * 60 + b"!\n")
    slow = threading.Thread(target=astray.examine, args=[Check(console=ASTRAY, within="4s")])
    slow.start()
    time.sleep(1)
    assert other.examine(Check(tcp=f"127.0.0.1:{other.port}", within="2s")).healthy
    assert slow.is_alive()
    slow.join()


def test_a_pattern_that_goes_astray_where_a_guest_never_is_does_no_harm(
    boot: Callable[..., Guest],
) -> None:
    guest = boot()
    guest.console.write(b"aaaa\n")
    assert guest.examine(Check(console=ASTRAY, within="5s")).healthy


# Together.


def test_everything_that_is_asked_has_to_hold(boot: Callable[..., Guest]) -> None:
    guest = boot()
    verdict = guest.examine(Check(http=url(guest), console="ready", within="300ms"))
    assert (verdict.healthy, verdict.reason) == (
        False,
        "no line on the console like 'ready' within 300ms",
    )


def test_a_healthy_guest_is_told_with_everything_that_held(boot: Callable[..., Guest]) -> None:
    guest = boot()
    guest.console.write(b"ready\n")
    address = f"127.0.0.1:{guest.port}"
    verdict = guest.examine(Check(tcp=address, console="ready", alive="100ms", within="5s"))
    assert verdict.reason == f"tcp {address}, console ready, alive for 100ms"


def test_a_guest_whose_monitor_is_gone_is_not_healthy(boot: Callable[..., Guest]) -> None:
    guest = boot()
    with subprocess.Popen(["sleep", "60"]) as monitor:
        state = guest.state()
        state.monitor = identify(monitor.pid)
        monitor.kill()
    subject = Subject(lambda: state, "console.log", (), list)
    verdict = examine(Check(alive="1ms"), subject)
    assert (verdict.healthy, verdict.reason) == (False, "the guest lost its monitor")


# A commit writes checks: one that raises would stop every converge, not this guest's alone.


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("http", "http://127.0.0.1:99999/"),
        ("http", "http://127.0.0.1:port/"),
        ("http", "http://[::1/"),
        ("http", "http://127.0.0.1:1/caf\u00e9"),
        ("http", "http://127.0.0.1:1/a b"),
        ("http", "http://127.0.0.1:1/a\tb"),
        ("http", "http://a..b/"),
        ("http", "http://user@127.0.0.1:1/"),
        ("tcp", "a..b:80"),
        ("tcp", "a\0b:80"),
        ("tcp", f"{'a' * 70}.example:80"),
    ],
)
def test_a_check_that_cannot_pass_is_refused_or_fails_the_guest(
    boot: Callable[..., Guest], kind: str, value: str
) -> None:
    try:
        check = msgspec.convert({kind: value, "within": "100ms", "interval": "50ms"}, Check)
    except ValueError:
        return
    assert not boot().examine(check).healthy
