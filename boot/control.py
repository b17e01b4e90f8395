"""How a monitor is spoken to: its orders, its state, and the words on its control socket.

A monitor is given `Orders` in a file, keeps a `MonitorState` in another, and takes requests, one
JSON object a line, on a Unix socket: `fire` (from the controller that started it only), `stop`,
`restart` (a changed policy), `remember` (a changed record) and `status`. It answers each with its
state, and `describe` with the record as well.

Shared with the monitor, which stays in memory.
"""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TypeVar

from mirage_hooks.boot.files import write_atomic
from mirage_hooks.boot.process import ProcessId

# Of what orders and a monitor's state look like. One that only gained fields is no new format: what
# is not known is passed over, and what is missing has a default.
FORMAT = 1

T = TypeVar("T")

ORDERS = "orders.json"
STATE = "monitor.json"
CONSOLE = "console.log"

# How long a guest may take to end after SIGTERM, before SIGKILL; seconds.
GRACE = 5.0

# What a monitor can be doing. The first group has, or will have, a tender; the others ended.
LIVE = frozenset({"armed", "switching", "running", "exited", "backing-off", "stopping"})
ENDED = frozenset({"disarmed", "stopped", "finished", "given-up"})


# Where those of a tender's files start: beyond what it was forked with. Before them is where one
# that `prepares` finds its monitor.
FIRST_FILE = 100
TRIGGER = FIRST_FILE - 1

# What a tender says to its monitor: that it got on with its preparing, armed or let go; and, where
# it `prepares`, that its guest runs.
PREPARED, RUNS = b"+", b"!"

# What such a tender gets instead of SIGTERM where its successor sees to what it leaves behind.
MAKE_WAY = signal.SIGUSR1


def descriptor(number: int) -> str:
    """Return the path by which a tender reaches the file at a place in its orders' `files`."""
    return f"/proc/self/fd/{FIRST_FILE + number}"


@dataclass(frozen=True)
class RestartPolicy:
    """When a monitor boots its guest again: at most `limit` times in `window` seconds."""

    on: str = "failure"
    limit: int = 5
    window: float = 600.0


@dataclass(frozen=True)
class Orders:
    """All that a monitor needs to know about its generation; it reads nothing else.

    `redact` is what its console log is not to show, the longest first. `files` are open in the
    tender, whose arguments name each as `descriptor` does, by its place in the list: `user` may not
    reach them, and no path survives every option. QEMU even hands a kernel its own path, which is
    no single word where there is a space in it. `taps` are the links that the guest is behind.
    `prepares` says that the tender is executed at once, says itself that it is armed, waits for the
    byte that lets it go, and says when its guest runs. `grace` is how long it may take to end after
    SIGTERM, seconds. `record` is the converger's own, of no meaning here: it is handed back to who
    has lost it.
    """

    guest: str
    generation: int
    converge: str
    executable: str
    argv: list[str]
    redact: list[str]
    environment: dict[str, str]
    files: list[str]
    taps: list[str]
    user: str | None
    socket: str
    restart: RestartPolicy
    console_bytes: int
    events: str
    settled: str
    record: dict[str, object] = field(default_factory=dict)
    prepares: bool = False
    grace: float = GRACE
    format: int = FORMAT


@dataclass
class MonitorState:
    """What a monitor last wrote about itself and its tender."""

    phase: str
    monitor: ProcessId
    tender: ProcessId | None
    socket: str
    started: float | None = None
    exit: str | None = None
    exit_code: int | None = None
    restarts: int = 0
    dropped: int = 0
    grace: float = GRACE
    format: int = FORMAT

    @property
    def alive(self) -> bool:
        """Whether the monitor is there and its guest runs."""
        return self.monitor.alive and self.tender is not None and self.tender.alive


def write_json(path: str, value: object) -> None:
    """Replace a state file by `value`."""
    write_atomic(path, json.dumps(value).encode())


def read_orders(folder: str) -> Orders:
    """Read a generation's orders."""
    with open(os.path.join(folder, ORDERS), encoding="utf-8") as file:
        orders = json.load(file)
    return _make(Orders, {**orders, "restart": _make(RestartPolicy, orders["restart"])})


def state_from(raw: Mapping[str, object]) -> MonitorState:
    """Return a state from what JSON made of it, by this version's monitor or another's.

    Raises TypeError, ValueError for one that is damaged, or of a newer format.
    """
    values = dict(raw)
    for key in ("monitor", "tender"):
        if (process := values[key]) is not None:
            if not isinstance(process, dict):
                raise TypeError(f"{key} is no process")
            values[key] = _make(ProcessId, process)
    return _make(MonitorState, values)


def _make(kind: type[T], raw: Mapping[str, object]) -> T:
    """Return a dataclass from its fields; others, which another version may have, are left out."""
    if int(str(raw.get("format", FORMAT))) > FORMAT:
        raise ValueError(f"its format is {raw['format']}, and this version knows {FORMAT}")
    return kind(**{one.name: raw[one.name] for one in fields(kind) if one.name in raw})  # type: ignore[arg-type]


def policy_from(raw: Mapping[str, object]) -> RestartPolicy:
    """Return a policy from what JSON made of it. Raises TypeError, ValueError for none."""
    policy = _make(RestartPolicy, raw)
    if policy.on not in {"never", "failure", "always"}:
        raise ValueError(f"no restart policy: {policy.on!r}")
    return RestartPolicy(policy.on, int(policy.limit), float(policy.window))


def state_to(state: MonitorState) -> dict[str, object]:
    """Return a state as JSON takes it."""
    return asdict(state)


def encode(message: Mapping[str, object]) -> bytes:
    """Return a message as the socket carries it."""
    return json.dumps(message).encode() + b"\n"


def parse_request(line: bytes) -> dict[str, object]:
    """Return a request; one that is none is answered like `status`."""
    try:
        request = json.loads(line)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


class Conversation:
    """One connection to a monitor: requests out, answers in."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def send(self, request: Mapping[str, object]) -> None:
        """Send one request. Raises OSError where the monitor is gone."""
        self._connection.sendall(encode(request))

    def receive(self, seconds: float) -> dict[str, object]:
        """Return the next answer. Raises TimeoutError, or ConnectionError at the end."""
        self._connection.settimeout(seconds)
        while b"\n" not in self._buffer:
            data = self._connection.recv(65536)
            if not data:
                raise ConnectionError("the monitor closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, object] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the conversation."""
        self._connection.close()


def ask(path: str, request: Mapping[str, object], seconds: float) -> dict[str, object]:
    """Ask the monitor behind a socket one thing. Raises OSError where it does not answer."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    conversation = Conversation(connection)
    try:
        connection.settimeout(seconds)
        connection.connect(path)
        conversation.send(request)
        return conversation.receive(seconds)
    finally:
        conversation.close()


def describe(path: str) -> tuple[MonitorState, dict[str, object]]:
    """Return what the monitor behind a socket says of itself, and the record that it keeps.

    That is empty where it keeps none: one of an older version answers with its state alone. Raises
    OSError where it does not answer, TypeError, ValueError or KeyError for what is no answer.
    """
    answer = ask(path, {"do": "describe"}, GRACE)
    record = answer.pop("record", None)
    return state_from(answer), record if isinstance(record, dict) else {}


def remember(state: MonitorState, record: object) -> None:
    """Have a monitor keep a record, if it can be told."""
    with contextlib.suppress(OSError, ValueError):
        ask(state.socket, {"do": "remember", "record": record}, GRACE)


def stop(state: MonitorState, make_way: bool = False) -> None:
    """End a generation, whatever state its monitor is in; return when no guest of it is left.

    One that is to `make_way` may leave to its successor what does nothing any more.

    Asked over the socket, then by SIGTERM (its socket's folder may have gone with the session that
    made it), then by SIGKILL of guest and monitor: each bounded, each only if the last one failed.
    """
    if state.monitor.alive:
        try:
            ask(state.socket, {"do": "stop", "make_way": make_way}, state.grace + 2)
            return
        except (OSError, ValueError):
            state.monitor.kill(signal.SIGTERM)
            state.monitor.wait_gone(state.grace + 2)
    # The tender first: killing the monitor would send its parent-death signal, but unobserved.
    for process in (state.tender, state.monitor):
        if process is not None and process.alive:
            process.kill()
            process.wait_gone(GRACE)
