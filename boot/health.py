"""Checks: is the generation that was fired healthy?"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mirage_hooks.boot import sockets
from mirage_hooks.boot.console import harmless
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.expect import Expectation
from mirage_hooks.boot.guest import Check, seconds, split_address, split_url
from mirage_hooks.boot.ping import ping

if TYPE_CHECKING:
    from http.client import HTTPConnection

# One try of a check takes no longer, seconds; `within` bounds them all together.
_TRY_SECONDS = 2.0
_TRY_LEAST = 0.05
_FIRST_PAUSE = 0.005


@dataclass(frozen=True)
class Verdict:
    """What the checks found, and why; `seconds` after they began."""

    healthy: bool
    reason: str
    seconds: float


@dataclass(frozen=True)
class Reachable:
    """An address of a guest, and the tap it is behind; `mac` is None where the guest chose it."""

    link: str
    mac: str | None
    address: str


@dataclass(frozen=True)
class Subject:
    """What is checked: the monitor's latest word, the console, the guest's ports and addresses."""

    state: Callable[[], MonitorState]
    console: str
    ports: tuple[int, ...]
    reachable: Callable[[], list[Reachable] | None]


# A probe returns what is still missing, None once it is satisfied.
# The second argument is how long one try may take, in seconds.
_Probe = Callable[[MonitorState, float], str | None]


def examine(check: Check, subject: Subject) -> Verdict:
    """Try a check until it passes, the guest ends, or its time is up. Raises OSError."""
    with contextlib.ExitStack() as ending:
        return _examine(check, subject, _probes(check, subject, ending))


def _examine(check: Check, subject: Subject, probes: list[_Probe]) -> Verdict:
    began = time.monotonic()
    deadline = began + seconds(check.within)
    pause = _FIRST_PAUSE
    while True:
        state = subject.state()
        left = max(_TRY_LEAST, min(_TRY_SECONDS, deadline - time.monotonic()))
        missing = next((reason for probe in probes if (reason := probe(state, left))), None)
        # Asked after the probes: what answered may have been something else, and the guest dead.
        state = subject.state()
        now = time.monotonic()
        unsaid = state.phase == "switching" and state.monitor.alive
        if (state.phase != "running" or not state.monitor.alive) and not unsaid:
            return Verdict(False, f"the guest {state.exit or 'lost its monitor'}", now - began)
        if unsaid:  # a full disk may have kept it from saying so: it tries again, once a second
            missing = "its monitor has not recorded that the guest runs"
        elif not state.alive:
            missing = "the guest ended, and its monitor did not say how"
        if missing is None:
            return Verdict(True, _praise(check), now - began)
        if now >= deadline:
            return Verdict(False, f"{harmless(missing)} within {check.within}", now - began)
        time.sleep(min(pause, max(0.0, deadline - now)))
        pause = min(pause * 2, seconds(check.interval))


def _praise(check: Check) -> str:
    passed = ["ping"] if check.ping else []
    passed += [
        f"{kind} {value}"
        for kind, value in (("tcp", check.tcp), ("http", check.http), ("console", check.console))
        if value
    ]
    if check.alive_seconds:
        passed.append(f"alive for {check.alive or '2s'}")
    return ", ".join(passed)


def _probes(check: Check, subject: Subject, ending: contextlib.ExitStack) -> list[_Probe]:
    probes: list[_Probe] = []
    if check.ping:
        probes.append(lambda _, left: _ping(subject.reachable(), left))
    if check.alive_seconds:
        probes.append(_Alive(check.alive_seconds))
    if (tcp := check.tcp) is not None:
        address = split_address(tcp)
        probes.append(lambda _, left: _tcp(*address, left))
        probes.append(lambda state, _: _foreign(state, address[1], subject.ports))
    if (url := check.http) is not None:
        _, port = split_url(url)
        probes.append(lambda _, left: _http(url, left))
        probes.append(lambda state, _: _foreign(state, port, subject.ports))
    if check.console is not None:
        expected = Expectation(subject.console, check.console, seconds(check.within))
        ending.enter_context(contextlib.closing(expected))
        probes.append(lambda _, left: expected.missing(left))
    return probes


class _Alive:
    """Whether a guest has run for so many seconds since the check began.

    When it was started is told by a clock that may be set meanwhile: it tells one start from
    another, and no more.
    """

    def __init__(self, wanted: float) -> None:
        self._wanted = wanted
        self._started: float | None = None
        self._since = time.monotonic()

    def __call__(self, state: MonitorState, left: float) -> str | None:
        del left
        if self._started not in {None, state.started}:
            self._since = time.monotonic()
        self._started = state.started
        if state.started is not None and time.monotonic() - self._since >= self._wanted:
            return None
        return f"not alive for {self._wanted:g} s"


def _ping(found: list[Reachable] | None, left: float) -> str | None:
    if found is None:
        return None  # a guest is not failed for what we missed
    if not found:
        return "no address of its own was seen that could be pinged"
    try:
        missing = (ping(one.link, one.mac, one.address, left) for one in found)
        return next((reason for reason in missing if reason is not None), None)
    except HostError as error:
        return error.message


def _tcp(host: str, port: int, left: float) -> str | None:
    try:
        socket.create_connection((host, port), left).close()
    except OSError as error:
        return f"no connection to {host}:{port} ({error.strerror or error})"
    return None


def _http(url: str, left: float) -> str | None:
    """Ask for a page; a certificate is not verified: it is the guest that is asked about."""
    # With TLS that is a tenth of what a converge loads, for those that have such a check.
    import http.client  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    parts = urlsplit(url)
    connection: HTTPConnection
    if parts.scheme == "https":
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(parts.netloc, timeout=left, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=left)
    # A socket's timeout is for each read: a server that drips would never come to an end.
    cut = threading.Timer(left, _cut, [connection])
    cut.start()
    try:
        target = parts.path or "/"
        connection.request("GET", f"{target}?{parts.query}" if parts.query else target)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {url} ({getattr(error, 'strerror', None) or error})"
    finally:
        cut.cancel()
        connection.close()
    return None if status < 400 else f"{url} answered {status}, and nothing better"


def _cut(connection: "HTTPConnection") -> None:
    with contextlib.suppress(OSError, AttributeError):  # it may have closed itself meanwhile
        connection.sock.shutdown(socket.SHUT_RDWR)


def _foreign(state: MonitorState, port: int, ports: tuple[int, ...]) -> str | None:
    """Whether a port that the guest was told to open is in fact somebody else's."""
    if port not in ports or state.tender is None:
        return None
    if any(endpoint.port == port for endpoint in sockets.observed(state.tender.pid)):
        return None
    return f"port {port} answered, but it is not this guest's: the guest did not open it"
