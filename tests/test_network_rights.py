"""Guests on networks without root: what an operator can do alone, and what takes root once."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from guests_built import Built
from namespace import Namespace
from networked import NetSite, networked, on
from rights import missing_for_helper, with_helper

NOBODY = 65534
HTTP = 'http = "http://10.0.0.2/"\nwithin = "5s"'


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user gets to: pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="mh-operator-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def alone(
    request: pytest.FixtureRequest, folder: Path, namespace: Namespace, built: Built
) -> Iterator[NetSite]:
    """A clone of an operator who is not root, and may do nothing to the host's network."""
    namespace.bridge("br-test", "10.0.0.1/24")
    with networked(folder, namespace, built, request.param, operator="nobody") as made:
        made.bind({"bridge": "br-test"})
        made.check = HTTP
        made.publish()
        yield made


def of(target: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("alone", [target], indirect=True)


@pytest.fixture
def on_tap(alone: NetSite) -> NetSite:
    """The operator's guest runs on a tap that root has made."""
    alone.host.tap("tap0", "br-test", user="nobody")
    alone.bind({"tap": "tap0"})
    alone.pull()
    assert alone.page() == "one"
    return alone


# QEMU's own network.


@pytest.mark.parametrize("dhcp", [False, True], ids=["static", "dhcp"])
@of("virtio")
def test_qemus_own_network_takes_no_right_at_all(alone: NetSite, dhcp: bool) -> None:
    alone.bind({"user": True, "forward": ["127.0.0.1:8080:80"]})
    alone.device = "dhcp = true" if dhcp else 'address = "10.0.2.15/24"\ngateway = "10.0.2.2"'
    alone.check = 'http = "http://127.0.0.1:8080/"\nwithin = "8s"'
    alone.publish(image=alone.built.image("virtio", "in there", dhcp=dhcp).read_bytes())
    alone.pull()
    assert alone.page("127.0.0.1", 8080) == "in there"
    alone.publish(image=alone.built.image("virtio", "again", dhcp=dhcp).read_bytes())
    alone.pull()
    assert alone.page("127.0.0.1", 8080) == "again"
    assert alone.taps() == []


# Taps that root has made.


@pytest.mark.parametrize("alone", ["unix", "spt", "virtio"], indirect=True)
def test_a_pull_replaces_a_guest_on_a_tap_that_root_made(on_tap: NetSite) -> None:
    on_tap.publish("two")
    on_tap.pull()
    assert (on_tap.page(), on_tap.outcomes()) == ("two", ["ended", "healthy"])
    on_tap.publish(image=on_tap.built.image(on_tap.target, broken=True).read_bytes())
    on_tap.pull()
    assert (on_tap.page(), on_tap.outcomes()[-1]) == ("two", "healthy")
    on_tap.command("uninstall", "--yes", "--stop")
    assert on_tap.host.links() == ["br-test", "tap0"]


@of("spt")
def test_a_guest_whose_tap_may_not_be_made_runs_on_and_the_commands_told_make_one(
    on_tap: NetSite,
) -> None:
    on_tap.bind({"bridge": "br-test"})
    on_tap.publish("two")
    pull = on_tap.pull()
    deploy = on_tap.command("deploy", check=False)
    assert (deploy.returncode, on_tap.page(), on_tap.outcomes()[0]) == (6, "one", "healthy")
    assert re.search("no right to make tap mh[0-9a-f]{12} on bridge br-test", pull.stderr)
    told = re.search(r"run once as root: (.*); then write `tap = \"(.*)\"` for", pull.stderr)
    assert told is not None, pull.stderr
    on_tap.host.run("sh", "-c", told[1])
    on_tap.bind({"tap": told[2]})
    on_tap.command("deploy")
    assert on_tap.page() == "two"


@of("spt")
def test_a_helper_makes_and_removes_taps_for_an_operator(alone: NetSite) -> None:
    if (missing := missing_for_helper(alone.host)) is not None:
        pytest.skip(missing)
    alone.become = (*with_helper(), *alone.become)
    alone.pull()
    [first] = alone.taps()
    alone.publish("two")
    alone.pull()
    assert alone.page() == "two"
    assert len(alone.taps()) == 1
    assert alone.taps() != [first]
    alone.command("stop", "www")
    assert alone.taps() == []


# Guests without rights, of root's.


@on("unix", "spt", "virtio")
def test_a_guest_of_roots_runs_as_somebody_else(net: NetSite) -> None:
    net.command("deploy")
    tender = net.monitor().tender
    assert tender is not None
    status = Path(f"/proc/{tender.pid}/status").read_text()
    uids = re.search(r"^Uid:\s+(.*)$", status, re.MULTILINE)
    effective = re.search(r"^CapEff:\s+(.*)$", status, re.MULTILINE)
    assert uids is not None
    assert effective is not None
    assert (uids[1].split(), int(effective[1], 16)) == ([str(NOBODY)] * 4, 0)
    assert net.state.folder.stat().st_mode & 0o077 == 0
    assert net.page() == "one"


@on("unix", "spt", "virtio")
def test_secrets_of_a_guest_in_a_tender_are_redacted(net: NetSite) -> None:
    secret = 'hunter22 is "the" word'
    net.hide(f"--hello={secret}")
    outputs = [net.command("deploy").stdout]
    assert net.page() == secret
    net.hide("--hunter22=more")
    outputs.append(net.command("deploy", check=False).stdout)
    for command in ("status", "history", "logs", "plan"):
        outputs += [net.command(command, *more).stdout for more in ([], ["--json"])]
    outputs.append(net.command("logs", "www", "--generation", "2").stdout)
    assert [text for text in outputs if "hunter22" in text] == []
    hidden = [net.state.secrets, net.state.store]
    files = [
        path
        for path in net.state.folder.rglob("*")
        if path.is_file() and path.name != "orders.json" and not {*hidden} & {*path.parents}
    ]
    assert [path for path in files if b"hunter22" in path.read_bytes()] == []
