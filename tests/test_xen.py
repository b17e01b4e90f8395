"""Guests in Xen domains, end to end, with a stand-in for xl on a host of the test's own.

tests/xen/inside has the same on a real Xen.
"""

import bz2
import json
import os
import re
import signal
from pathlib import Path
from typing import cast

import msgspec
import pytest

import stand_in_xl
from mirage_hooks.boot import control, domains, host
from mirage_hooks.boot.targets.tending import Others
from networked import NetSite, on
from stand_in_xen import Folder
from support import COMMAND, monitors_of, wait_for

pytestmark = on("xen")


def test_a_first_deploy_boots_a_domain_and_tells_its_network(net: NetSite) -> None:
    deploy = net.command("deploy")
    assert net.page() == "one"
    wait_for(lambda: list(net.domains()) == ["www"])
    [vif] = net.taps()
    line = (
        rf"static, 10\.0\.0\.2/24 \(netmask 255\.255\.255\.0\), gateway 10\.0\.0\.1, vif {vif} on "
        r"br0, mac [0-9a-f:]{17}, passed as ipv4=10\.0\.0\.2/24 ipv4-gateway=10\.0\.0\.1; "
    )
    assert re.search(line, deploy.stdout), deploy.stdout
    assert f"observed 10.0.0.2 at {net.mac()} by ARP" in deploy.stdout


def test_a_pull_replaces_a_domain_and_keeps_its_mac(net: NetSite) -> None:
    net.command("deploy")
    old = net.mac()
    net.publish("two")
    net.pull()
    assert (net.page(), net.outcomes()) == ("two", ["ended", "healthy"])
    wait_for(lambda: list(net.domains()) == ["www"])
    assert net.mac() == old
    assert len(net.taps()) == 1


def test_an_image_that_does_not_start_leaves_the_old_guest_answering(net: NetSite) -> None:
    net.command("deploy")
    net.publish(image=net.built.image("xen", broken=True).read_bytes())
    pull = net.pull()
    assert "generation 2 is not healthy" in pull.stderr
    assert net.outcomes() == ["ended", "failed", "healthy"]
    assert net.page() == "one"
    wait_for(lambda: list(net.domains()) == ["www"])


def test_a_guest_that_was_stopped_leaves_no_domain(net: NetSite) -> None:
    net.command("deploy")
    net.command("stop", "www")
    assert net.domains() == {}
    assert net.taps() == []
    net.command("start", "www")
    assert net.page() == "one"


def test_a_domain_that_cannot_be_destroyed_is_said_to_run_still(net: NetSite) -> None:
    net.command("deploy")
    wait_for(lambda: list(net.domains()) == ["www"])
    stand_in_xl.fail(net.xen, destroy={"code": 1, "says": "no"})
    for _ in range(2):
        stop = net.command("stop", "www", check=False)
        assert stop.returncode == 6, stop.stderr
        assert "www: xl destroy" in stop.stderr
        assert "stopped" not in stop.stderr
    (net.xen / "faults.json").unlink()
    net.command("stop", "www")
    assert net.domains() == {}


def test_a_guest_that_is_gone_and_cannot_be_destroyed_is_a_fault(net: NetSite) -> None:
    add_other(net)
    stand_in_xl.fail(net.xen, destroy={"code": 1, "says": "no"})
    net.manifest = lambda: net.more  # type: ignore[method-assign]
    net.publish("one")
    net.git("pull", "-q")
    for _ in range(2):
        deploy = net.command("deploy", check=False)
        assert (deploy.returncode, "www: xl destroy" in deploy.stderr) == (6, True), deploy.stderr
    (net.xen / "faults.json").unlink()
    net.command("deploy")
    assert list(net.domains()) == ["other"]


def guest_of(net: NetSite) -> int:
    [domain] = Folder(net.xen).now().domains
    return domain.guest


def test_a_guest_that_crashes_is_booted_again(net: NetSite) -> None:
    net.command("deploy")
    os.kill(guest_of(net), signal.SIGKILL)
    wait_for(lambda: net.monitor().restarts == 1, 20)
    wait_for(lambda: net.page() == "one")
    wait_for(lambda: list(net.domains()) == ["www"])
    console = net.state.console(net.live()).read_text()  # type: ignore[arg-type]
    assert "the guest exited with 85 (the domain crashed)" in console


def be_adrift(net: NetSite) -> None:
    """Deploy, and have the domain of `www` serve on while monitor and tender were killed."""
    net.command("deploy")
    wait_for(lambda: "www" in net.domains())
    monitor = net.monitor()
    assert monitor.tender is not None
    monitor.monitor.kill()
    monitor.tender.kill()
    monitor.tender.wait_gone(5)
    assert net.page() == "one"


def add_other(net: NetSite) -> None:
    """Commit a second guest, `other`."""
    net.more = net.table("other", 'address = "10.0.0.3/24"', [], "ping = true")
    net.publish("one")
    net.pull()
    wait_for(lambda: sorted(net.domains()) == ["other", "www"])


def test_a_domain_that_a_killed_monitor_left_is_replaced(net: NetSite) -> None:
    be_adrift(net)
    net.command("deploy")
    wait_for(lambda: list(net.domains()) == ["www"])
    assert net.page() == "one"
    assert monitors_of(net.state) != []


def test_a_domain_that_a_killed_monitor_left_serves_until_another_stands(net: NetSite) -> None:
    be_adrift(net)
    net.bind({"bridge": "br7"})
    assert net.command("deploy", check=False).returncode != 0
    assert net.page() == "one"
    net.bind({"bridge": "br0"})
    stand_in_xl.fail(net.xen, create={"code": 3, "says": "no"})
    assert net.command("deploy", check=False).returncode == 6
    assert net.page() == "one"


def test_a_domain_that_a_killed_monitor_left_stands_still_before_the_next_one_runs(
    net: NetSite,
) -> None:
    be_adrift(net)
    stand_in_xl.fail(net.xen, destroy={"seconds": 3})
    deploy = net.host.popen(COMMAND, "deploy", console=net.clone.parent / "deploy", cwd=net.clone)
    wait_for(lambda: net.domains().get("www") == "--p---")
    assert deploy.wait(60) == 0
    wait_for(lambda: list(net.domains()) == ["www"])


def test_a_domain_that_a_killed_monitor_left_is_not_stopped_with_another_guest(
    net: NetSite,
) -> None:
    add_other(net)
    be_adrift(net)
    net.command("stop", "other")
    assert (list(net.domains()), net.page()) == (["www"], "one")
    net.command("stop", "www")
    assert net.domains() == {}


def test_a_domain_that_a_killed_monitor_left_goes_with_its_guest(net: NetSite) -> None:
    add_other(net)
    be_adrift(net)
    net.manifest = lambda: net.more  # type: ignore[method-assign]
    net.publish("one")
    net.pull()
    assert list(net.domains()) == ["other"]


def test_a_domain_that_a_killed_monitor_left_stays_where_the_manifest_is_lost(net: NetSite) -> None:
    be_adrift(net)
    net.manifest = lambda: ""  # type: ignore[method-assign]
    net.publish("one")
    net.pull()
    assert (list(net.domains()), net.page()) == (["www"], "one")
    net.command("deploy", "--allow-empty")
    assert net.domains() == {}


def test_a_guest_that_has_no_domain_just_now_may_have_one_when_it_is_replaced(net: NetSite) -> None:
    net.command("deploy")
    wait_for(lambda: "www" in net.domains())
    live = net.live()
    assert live is not None
    stand_in_xl.fail(net.xen, create={"code": 3, "says": "no"})
    os.kill(guest_of(net), signal.SIGKILL)
    wait_for(lambda: net.domains() == {})
    bound = host.load(net.state.host_file)[0]
    others = domains.before(net.state, bound, msgspec.structs.replace(live, number=2), ())
    assert others == Others((str(domains.identity(net.state, live)),), ())


def be_no_domain(net: NetSite) -> None:
    """Commit the guest for another target, at the same address."""
    net.target = "spt"
    net.publish(image=net.built.image("spt", "two").read_bytes())


def test_a_domain_that_a_killed_monitor_left_ends_before_what_is_none_runs(net: NetSite) -> None:
    be_adrift(net)
    be_no_domain(net)
    stand_in_xl.fail(net.xen, destroy={"seconds": 2})
    pull = net.host.popen("git", "pull", console=net.clone.parent / "pull", cwd=net.clone)
    there = True
    while there:
        new = net.state.monitor_of("www", 2)
        there = bool(net.domains())
        assert not there or new is None or new.started is None
    assert (pull.wait(60), net.page()) == (0, "two")


def test_a_domain_that_a_killed_monitor_left_and_cannot_be_destroyed_serves_on(
    net: NetSite,
) -> None:
    be_adrift(net)
    be_no_domain(net)
    stand_in_xl.fail(net.xen, destroy={"code": 1, "says": "no"})
    deploys = [net.pull(), net.command("deploy", check=False)]
    assert ["www: xl destroy" in done.stderr for done in deploys] == [True, True]
    assert (deploys[1].returncode, net.page(), net.outcomes()[1:]) == (6, "one", ["abandoned"] * 2)
    (net.xen / "faults.json").unlink()
    net.command("deploy")
    assert (net.domains(), net.page()) == ({}, "two")


def test_nothing_that_a_killed_monitor_left_outlives_an_uninstall(net: NetSite) -> None:
    be_adrift(net)
    assert "domain www: destroyed" in net.command("uninstall", "--yes").stdout
    assert net.domains() == {}


def have_theirs(net: NetSite, name: str = "www") -> None:
    """Have a domain of the guest's name, or another, that somebody else has made."""
    theirs = net.xen / "theirs.cfg"
    theirs.write_text(f'name = "{name}"\nkernel = "/bin/sleep"\nmemory = 32\n')
    net.host.run(net.xen / "xl", "create", "-p", theirs)


def test_a_domain_that_is_not_ours_is_left_alone(net: NetSite) -> None:
    have_theirs(net)
    deploy = net.command("deploy", check=False)
    assert deploy.returncode == 6
    assert "domain www (id 1) runs already, and is none of ours" in deploy.stderr
    assert "mirage-hooks deploy --adopt www" in deploy.stderr
    assert list(net.domains()) == ["www"]


def test_a_domain_of_the_same_site_with_other_dots_is_left_alone(net: NetSite) -> None:
    have_theirs(net, "w.ww")
    deploy = net.command("deploy", check=False)
    assert deploy.returncode == 6
    assert "mirage-hooks deploy --adopt w.ww" in deploy.stderr
    net.command("deploy", "--adopt", "w.ww", "--yes")
    wait_for(lambda: list(net.domains()) == ["www"])


def test_nobody_is_asked_to_adopt_a_domain_where_nobody_is_there(net: NetSite) -> None:
    have_theirs(net)
    deploy = net.command("deploy", "--adopt", "www", check=False)
    assert (deploy.returncode, "say --yes" in deploy.stderr) == (3, True)


def test_a_domain_that_is_adopted_gives_way_to_the_guest(net: NetSite) -> None:
    have_theirs(net)
    net.command("deploy", "--adopt", "www", "--yes")
    assert net.page() == "one"
    wait_for(lambda: list(net.domains()) == ["www"])


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (
            {"create": {"code": 3, "says": "libxl: error: x.c:1:f: no such bridge"}},
            "no such bridge",
        ),
        ({"any": {"code": 1, "says": "xencall: error: Could not obtain handle"}}, "xl info"),
    ],
)
def test_an_xl_that_fails_leaves_the_old_guest_answering(
    net: NetSite, faults: dict[str, dict[str, object]], said: str
) -> None:
    net.command("deploy")
    stand_in_xl.fail(net.xen, **faults)
    net.publish("two")
    pull = net.pull()
    assert said in pull.stderr
    assert net.page() == "one"
    (net.xen / "faults.json").unlink()


@pytest.mark.parametrize(
    ("tenders", "said"),
    [
        ({"xen": "/nowhere/xl"}, "/nowhere/xl is no program that can be executed"),
        ({"xen": ["no-sudo", "-n", "xl"]}, "no-sudo is not on this host's PATH"),
        ({"xen": ["/bin/false", "xl"]}, "ended with 1: it does not say why"),
    ],
)
def test_an_xl_that_is_missing_or_not_permitted_leaves_the_old_guest_answering(
    net: NetSite, tenders: dict[str, object], said: str
) -> None:
    net.command("deploy")
    net.tell_host(tenders=tenders)
    net.publish("two")
    assert said in net.pull().stderr
    assert net.page() == "one"


def test_a_guest_for_whose_memory_xen_has_no_room_leaves_the_old_one_answering(
    net: NetSite,
) -> None:
    net.command("deploy")
    net.tell_host(limits={"targets": ["xen"], "memory": 9000})
    net.memory = 5000
    net.publish("two")
    net.pull()
    assert net.page() == "one"


def test_secret_arguments_have_the_form_of_the_others(net: NetSite) -> None:
    net.hide("--hello=hidden")
    net.command("deploy")
    [domain] = Folder(net.xen).now().domains
    assert str(domain.config["extra"]).split()[-2:] == ["ipv4-gateway=10.0.0.1", "hello=hidden"]
    assert net.page() == "hidden"


def test_what_is_redacted_is_a_secret_as_it_is_and_as_the_command_line_has_it(net: NetSite) -> None:
    net.hide(r'hello=a"b\c1234')
    net.command("deploy")
    [domain] = Folder(net.xen).now().domains
    quoted = r'"hello=a\"b\\c1234"'
    assert str(domain.config["extra"]).endswith(f" {quoted}")
    orders = json.loads((net.state.generation_folder("www", 1) / "orders.json").read_text())
    assert {quoted, r'hello=a"b\c1234', r'a"b\c1234'} < set(orders["redact"])


def test_a_guest_that_xen_has_no_room_for_is_not_healthy_by_its_tenders_life(net: NetSite) -> None:
    net.command("deploy")
    net.tell_host(limits={"targets": ["xen"], "memory": 9000})
    net.memory = 5000
    net.check = 'alive = "2s"'
    net.publish("two")
    assert "xl create ended with 3" in net.pull().stderr
    assert net.outcomes() == ["ended", "failed", "healthy"]
    assert net.page() == "one"


def test_the_time_of_a_check_begins_once_a_domain_that_is_made_late_runs(net: NetSite) -> None:
    disk = net.xen / "data.img"
    disk.write_bytes(bytes(4096))
    net.tell_host(volumes={"data": {"path": str(disk)}})
    net.tables = '[guest.www.block.xvda]\nvolume = "data"'
    net.check = 'http = "http://10.0.0.2/"\nwithin = "2s"'
    net.publish("one")
    net.pull()
    net.publish("two")
    stand_in_xl.fail(net.xen, create={"seconds": 3})
    pull = net.pull()
    assert (net.page(), net.outcomes()) == ("two", ["ended", "healthy"]), pull.stderr
    assert "observed 10.0.0.2" in pull.stderr


def test_the_doctor_says_how_much_memory_xen_has_left(net: NetSite) -> None:
    net.command("deploy")
    assert "MiB free for domains" in net.command("doctor", check=False).stdout


def test_the_doctor_says_that_xl_does_not_work(net: NetSite) -> None:
    stand_in_xl.fail(net.xen, info={"code": 1, "says": "xencall: error: Permission denied"})
    doctor = net.command("doctor", check=False)
    assert doctor.returncode == 1
    assert "xl info ended with 1: xencall: error: Permission denied" in doctor.stdout


def test_a_bridge_that_is_missing_is_said_before_anything_is_touched(net: NetSite) -> None:
    net.command("deploy")
    net.bind({"bridge": "br7"})
    net.publish("two")
    assert "bridge br7 does not exist" in net.pull().stderr
    assert net.page() == "one"


def test_grace_is_the_longest_that_a_domain_takes(net: NetSite) -> None:
    net.command("deploy")
    assert net.monitor().grace > control.GRACE


def publish_disk(net: NetSite, text: bytes) -> None:
    """Commit a disk image beside the guest's, packed, and have the guest take it."""
    net.tables = '[guest.www.block.xvda]\nimage = "fat1.img.bz2"'
    (net.upstream / "fat1.img.bz2").write_bytes(bz2.compress(text.ljust(4096, b"\0")))
    net.publish("one")


def disk_of(net: NetSite) -> tuple[str, bytes]:
    """Return how the guest's domain has its disk, and what is on it."""
    [domain] = Folder(net.xen).now().domains
    [disk] = cast("list[str]", domain.config["disk"])
    how, _, path = disk.rpartition(",target=")
    return how, Path(path).read_bytes().rstrip(b"\0")


def test_a_disk_image_of_the_repositorys_is_given_to_read(net: NetSite) -> None:
    publish_disk(net, b"first")
    net.pull()
    assert disk_of(net) == ("format=raw,vdev=xvda,access=ro", b"first")


def test_a_disk_image_that_changes_boots_the_guest_anew(net: NetSite) -> None:
    publish_disk(net, b"first")
    net.pull()
    publish_disk(net, b"second")
    assert re.search(r"replace: volumes disk \w{7} -> disk \w{7}", net.pull().stderr)
    wait_for(lambda: list(net.domains()) == ["www"])
    assert disk_of(net)[1] == b"second"


def test_a_rollback_brings_the_disk_image_back_that_is_not_stored_any_more(net: NetSite) -> None:
    for text in (b"first", b"second"):
        publish_disk(net, text)
        net.pull()
    first = net.state.generations("www")[0]
    [disk] = first.boot.disks
    (net.state.store / disk).unlink()
    net.command("rollback", "www")
    wait_for(lambda: list(net.domains()) == ["www"])
    assert disk_of(net)[1] == b"first"
