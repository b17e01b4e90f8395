"""A test's own network is seen from nowhere else, and leaves nothing behind."""

import socket
from pathlib import Path

import pytest

from namespace import Namespace, network_namespace
from support import wait_for


def test_what_is_made_inside_is_not_outside(namespace: Namespace) -> None:
    namespace.bridge("br-test", "10.0.0.1/24")
    namespace.tap("tap-test", "br-test")
    assert namespace.links() == ["br-test", "tap-test"]
    assert not Path("/sys/class/net/br-test").exists()


def test_sockets_opened_inside_stay_inside(namespace: Namespace) -> None:
    before = Path("/proc/thread-self/ns/net").readlink()
    with namespace.entered():
        listener = socket.create_server(("127.0.0.1", 0))
    assert Path("/proc/thread-self/ns/net").readlink() == before
    with listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname(), 2)


def test_nothing_outlives_its_namespace(tmp_path: Path) -> None:
    console = tmp_path / "console"
    with network_namespace() as made:
        # One that we started, and one that is nobody's child any more.
        child = made.popen("sleep", "1000", console=console)
        made.run("sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
        wait_for(lambda: len(made.pids) == 2)
        pids = made.pids
    assert child.pid in pids
    assert child.returncode == -9
    assert not any(Path("/proc", str(pid), "exe").exists() for pid in pids)
    assert not made.path.exists()
