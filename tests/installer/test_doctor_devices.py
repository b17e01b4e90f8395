"""`mirage-hooks doctor` on targets, networks and volumes: what guests need that is not there."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import tomlkit

from mirage_hooks.boot import host, links
from mirage_hooks.boot.device import BlockConfig
from mirage_hooks.boot.guest import Guest, Target
from mirage_hooks.boot.record import State
from mirage_hooks.installer.commands import doctor_devices
from namespace import Namespace
from support import COMMAND, USER, Site

Finding = dict[str, str]
Look = Callable[..., dict[str, Finding]]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a guest's user is another than root")


def guest(target: Target, **block: BlockConfig) -> Guest:
    return Guest(name="www", target=target, image="i", user=USER, block=block)


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state folder, private and empty."""
    made = State(tmp_path / "repository")
    made.folder.mkdir(mode=0o700, parents=True)
    return made


@pytest.fixture
def look(state: State, namespace: Namespace, tun: Path) -> Look:
    """Return a function that returns what is found of a host file's tables and guests."""

    def examine(*guests: Guest, **tables: object) -> dict[str, Finding]:
        text = tomlkit.dumps({"branch": "main", **({"user": USER} if USER else {}), **tables})
        bound, named = host.parse(text, "host.toml"), {one.name: one for one in guests}
        with namespace.entered():
            found = list(doctor_devices.examine(state, bound, named))
        return {finding.subject: asdict(finding) for finding in found}

    return examine


def say(finding: Finding) -> tuple[str, str]:
    return finding["level"], finding["finding"]


# Targets.


@pytest.fixture
def tender(tmp_path: Path) -> str:
    """A program that says what solo5-spt says of itself."""
    tmp_path.chmod(0o711)
    path = tmp_path / "solo5-spt"
    path.write_text("#!/bin/sh\necho ABI version 2\n")
    path.chmod(0o755)
    return str(path)


def test_every_target_is_looked_at(look: Look) -> None:
    targets = {"target unix", "target hvt", "target spt", "target virtio"}
    assert targets <= look().keys()


def test_unix_runs_everywhere(look: Look) -> None:
    assert say(look()["target unix"]) == ("ok", "an image runs by itself")


def test_a_tender_is_told_with_its_path_and_abi(look: Look, tender: str) -> None:
    found = look(limits={"targets": ["unix", "spt"]}, tenders={"spt": tender})
    assert say(found["target spt"]) == ("ok", f"{tender}, ABI 2")


def test_a_tender_that_is_missing_is_a_note_where_its_target_is_not_allowed(look: Look) -> None:
    found = look(limits={"targets": ["unix"]}, tenders={"spt": "/none"})
    assert say(found["target spt"]) == (
        "ok",
        "not allowed here ([limits] of host.toml); /none is no program that can be executed",
    )


def test_a_tender_that_is_missing_is_a_warning_where_no_guest_needs_it(look: Look) -> None:
    found = look(limits={"targets": ["unix", "spt"]}, tenders={"spt": "/none"})
    assert found["target spt"]["level"] == "warning"


def test_a_tender_that_is_missing_is_a_failure_to_a_guest_that_needs_it(look: Look) -> None:
    found = look(guest("spt"), limits={"targets": ["spt"]}, tenders={"spt": "/none"})
    assert found["target spt"]["level"] == "failed"


def test_a_tender_that_is_there_serves_a_guest(look: Look, tender: str) -> None:
    found = look(guest("spt"), limits={"targets": ["spt"]}, tenders={"spt": tender})
    assert say(found["target spt"]) == ("ok", f"{tender}, ABI 2")


def test_qemu_without_kvm_is_what_the_host_file_may_want(look: Look, tender: str) -> None:
    found = look(
        guest("virtio"), limits={"targets": ["virtio"]}, tenders={"virtio": tender, "kvm": False}
    )
    assert say(found["target virtio"]) == (
        "ok",
        f"{tender}: QEMU without KVM: host.toml says so",
    )


def test_kvm_that_does_not_work_is_a_warning_with_the_reason(look: Look, tender: str) -> None:
    found = look(guest("virtio"), limits={"targets": ["virtio"]}, tenders={"virtio": tender})[
        "target virtio"
    ]
    assert found["level"] == "warning"
    assert found["finding"].startswith(f"{tender}: QEMU without KVM: ")
    assert found["mend"].endswith("kvm = false in [tenders] of host.toml")


# Networks.


def public(**table: object) -> dict[str, object]:
    return {"public": table}


def test_without_a_network_nothing_is_said_of_taps(look: Look) -> None:
    assert not {"taps", "/dev/net/tun"} & look().keys()


def test_a_bridge_is_told_with_its_addresses(look: Look, namespace: Namespace) -> None:
    namespace.bridge("br0", "10.0.0.1/24", "fd00::1/64")
    found = look(networks=public(bridge="br0"))
    assert say(found["network public"]) == ("ok", "bridge br0, 10.0.0.1/24, fd00::1/64")


def test_a_bridge_that_is_missing_is_found(look: Look) -> None:
    found = look(networks=public(bridge="br0"))
    assert say(found["network public"]) == ("failed", "network: bridge br0 does not exist")


def test_what_is_no_bridge_is_found(look: Look, namespace: Namespace) -> None:
    namespace.tap("br0")
    found = look(networks=public(bridge="br0"))["network public"]
    assert say(found) == ("failed", "network: br0 is no bridge, but a tap")


def test_a_bridge_that_is_down_is_mended_by_what_is_said(look: Look, namespace: Namespace) -> None:
    namespace.bridge("br0")
    namespace.run("ip", "link", "set", "br0", "down")
    found = look(networks=public(bridge="br0"))["network public"]
    assert say(found) == ("failed", "bridge br0 is down")
    namespace.run("sh", "-c", found["mend"].removeprefix("run as root: "))
    assert look(networks=public(bridge="br0"))["network public"]["level"] == "ok"


def test_a_bridge_that_keeps_new_ports_waiting_is_mended_by_what_is_said(
    look: Look, namespace: Namespace
) -> None:
    namespace.bridge("br0")
    namespace.run("ip", "link", "set", "br0", "type", "bridge", "stp_state", "1")
    found = look(networks=public(bridge="br0"))["network public"]
    assert say(found) == (
        "warning",
        "bridge br0 has STP on: a guest is not heard for up to 30 s after its boot",
    )
    namespace.run("sh", "-c", found["mend"].removeprefix("run as root: "))
    assert look(networks=public(bridge="br0"))["network public"]["level"] == "ok"


OURS = {"bridge": "br0", "create": True, "address": "10.0.0.1/24"}


def test_a_bridge_of_ours_that_was_not_needed_yet_is_no_fault(look: Look) -> None:
    found = look(networks=public(**OURS))["network public"]
    assert say(found) == ("ok", "bridge br0 is made once a guest on it is booted")


def test_a_bridge_of_ours_is_told_as_such(look: Look, namespace: Namespace, state: State) -> None:
    namespace.bridge("br0", "10.0.0.1/24")
    alias = links.bridge_alias(state.installation)
    namespace.run("ip", "link", "set", "br0", "alias", alias)
    found = look(networks=public(**OURS))["network public"]
    assert say(found) == ("ok", "bridge br0, made by us, 10.0.0.1/24")


def test_a_bridge_that_is_to_be_ours_and_is_not_is_found(look: Look, namespace: Namespace) -> None:
    namespace.bridge("br0")
    found = look(networks=public(**OURS))["network public"]
    assert say(found) == (
        "failed",
        "bridge br0 exists already, and was not made for this repository",
    )


def test_a_tap_that_was_made_beforehand_is_found(look: Look, namespace: Namespace) -> None:
    namespace.tap("tap0", user=str(USER))
    assert say(look(networks=public(tap="tap0"))["network public"]) == ("ok", "tap tap0")


def test_a_tap_that_is_missing_is_found(look: Look) -> None:
    found = look(networks=public(tap="tap0"))["network public"]
    assert say(found) == ("failed", "network: tap tap0 does not exist")


@as_root
def test_a_tap_of_another_user_is_found(look: Look, namespace: Namespace) -> None:
    namespace.tap("tap0", user="daemon")
    found = look(networks=public(tap="tap0"))["network public"]
    assert found["finding"].startswith(f"network: tap tap0 cannot be opened by {USER}")


def test_qemus_own_network_needs_nothing(look: Look) -> None:
    found = look(networks=public(user=True, forward=["127.0.0.1:8080:80"]))
    assert say(found["network public"]) == ("ok", "QEMU's own, with 127.0.0.1:8080:80")
    assert not {"taps", "/dev/net/tun"} & found.keys()


def test_who_may_make_taps_is_told(look: Look, namespace: Namespace) -> None:
    namespace.bridge("br0")
    assert say(look(networks=public(bridge="br0"))["taps"]) == ("ok", "we may make them")


def test_who_may_make_no_taps_is_told_the_ways_out(site: Site, namespace: Namespace) -> None:
    site.install()
    site.tell_host(networks=public(bridge="br0"))
    namespace.bridge("br0")
    no_right = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    command = (*no_right, COMMAND, "doctor", "--json")
    said = json.loads(namespace.run(*command, cwd=site.clone, check=False).stdout)
    (found,) = [finding for finding in said if finding["subject"] == "taps"]
    assert say(found) == ("failed", "we may not make any, on br0")
    assert "have root install /opt/mirage-hooks/bin/mirage-hooks-tap" in found["mend"]


def test_taps_that_are_open_to_the_guests_user_are_told(look: Look, namespace: Namespace) -> None:
    found = look(networks=public(tap="tap0"))["/dev/net/tun"]
    assert say(found) == ("ok", f"open to user {USER}, whom guests run as")


@as_root
def test_taps_that_are_closed_to_the_guests_user_are_found(look: Look, tun: Path) -> None:
    tun.chmod(0o600)
    found = look(networks=public(tap="tap0"))["/dev/net/tun"]
    assert found["level"] == "failed"
    assert found["mend"] == f"run as root: chmod 666 {tun}, as udev does"


def test_a_user_who_does_not_exist_is_a_finding(look: Look) -> None:
    found = look(user="no-such-user", networks=public(tap="tap0"))
    assert found["/dev/net/tun"]["finding"] == "user 'no-such-user' does not exist on this host"


def test_networks_are_looked_at_though_a_guest_is_not_sound(
    site: Site, namespace: Namespace
) -> None:
    site.tables = '[guest.www.network.service]\nnetwork = "public"\ndhcp = true\n'
    site.publish()
    site.pull()
    site.install()
    site.tell_host(networks={"other": {"bridge": "br0"}})
    said = namespace.run(COMMAND, "doctor", cwd=site.clone, check=False).stdout
    assert "'public' is not bound on this host" in said
    assert "network: bridge br0 does not exist" in said


# Volumes.


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume of one sector."""
    path = tmp_path / "data.img"
    path.write_bytes(bytes(512))
    return path


def test_a_volume_that_serves_is_told(look: Look, volume: Path) -> None:
    found = look(volumes={"data": {"path": str(volume)}})
    assert say(found["volume data"]) == ("ok", str(volume))


def test_a_volume_that_is_missing_is_found(look: Look) -> None:
    found = look(volumes={"data": {"path": "/nowhere/data.img"}})["volume data"]
    assert say(found) == ("failed", "volume /nowhere/data.img does not exist")


@as_root
@pytest.mark.parametrize(
    ("target", "readonly", "level"),
    [("spt", False, "failed"), ("spt", True, "ok"), ("virtio", True, "failed")],
)
def test_a_volume_is_found_that_is_closed_to_a_guest_that_gets_no_copy(
    look: Look, volume: Path, tender: str, target: Target, readonly: bool, level: str
) -> None:
    volume.chmod(0o600)
    found = look(
        guest(target, storage=BlockConfig("data", readonly)),
        limits={"targets": [target]},
        tenders={target: tender, "kvm": False},
        volumes={"data": {"path": str(volume)}},
    )
    assert found["volume data"]["level"] == level
