"""What processes listen on: the sockets of this host, as they are observed."""

from collections import defaultdict
from collections.abc import Iterable

import psutil

from mirage_hooks.boot.network import Endpoint

# The addresses that processes listen on, and the process of each where it can be seen.
Listening = dict[int, list[tuple[Endpoint, int | None]]]


def listening(but: frozenset[int]) -> Listening:
    """Return, by port, what processes other than `but` listen on now."""
    found: Listening = defaultdict(list)
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.pid not in but:
            where = Endpoint.of(*connection.laddr)
            found[where.port].append((where, connection.pid))
    return found


def taken(wanted: Iterable[Endpoint], listening: Listening) -> tuple[Endpoint, str] | None:
    """Return the first wanted address that a process listens on, and that process's name."""
    for endpoint in wanted:
        for found, pid in listening.get(endpoint.port, []):
            if endpoint.overlaps(found):
                return endpoint, _process_name(pid)
    return None


def _process_name(pid: int | None) -> str:
    if pid is None:
        return "another user's process"
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.NoSuchProcess:
        return f"pid {pid}"


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def families(pids: Iterable[int]) -> frozenset[int]:
    """Return processes and their descendants: one look at all processes, however many are asked."""
    children: dict[int, list[int]] = defaultdict(list)
    for process in psutil.process_iter(["ppid"]):
        children[process.info["ppid"]].append(process.pid)
    found, left = set[int](), list(pids)
    while left:
        if (pid := left.pop()) not in found:
            found.add(pid)
            left.extend(children.get(pid, []))
    return frozenset(found)


def observed(pid: int) -> list[Endpoint]:
    """Return the TCP addresses that a process and its descendants listen on now."""
    found = set()
    for member in family(pid):
        try:
            for connection in psutil.Process(member).net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add(Endpoint.of(*connection.laddr))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return sorted(found, key=str)
