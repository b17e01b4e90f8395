"""What a bridge has learned, and is to forget."""

import sys

import pytest

from namespace import Namespace

MAC = "02:00:00:00:00:02"


@pytest.fixture
def port(namespace: Namespace) -> str:
    """A port of a bridge that has learned who is behind it."""
    namespace.bridge("br0")
    namespace.run("ip", "link", "add", "port0", "type", "veth", "peer", "name", "port1")
    namespace.run("ip", "link", "set", "port1", "up")
    namespace.run("ip", "link", "set", "port0", "master", "br0", "up")
    namespace.run("bridge", "fdb", "add", MAC, "dev", "port0", "master", "dynamic")
    return "port0"


def forget(namespace: Namespace, link: str) -> None:
    """Forget in there, where /sys shows its links."""
    program = f"from mirage_hooks.boot import learned; learned.forget({link!r})"
    namespace.run(sys.executable, "-Ic", program)


def test_a_bridge_forgets_who_was_behind_a_port(namespace: Namespace, port: str) -> None:
    forget(namespace, port)
    assert MAC not in namespace.run("bridge", "fdb", "show", "dev", port).stdout


@pytest.mark.parametrize("link", ["missing", "lo"])
def test_what_is_no_port_has_nothing_to_forget(namespace: Namespace, link: str) -> None:
    forget(namespace, link)
