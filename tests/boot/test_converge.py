"""Converging: what survives which death, at every step that is recorded."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mirage_hooks.boot.process import identify
from support import Site, free_port, get, monitors_of, wait_for

ISOLATED = [sys.executable, "-I"]
REQUEST = '{"origin": "test", "retry": true}'

# A converger that kills itself, without a word, right after the Nth record it makes. It is the
# real one in everything else.
KILLED_AT = """
import os, sys
from mirage_hooks.boot import control, converge, files, record, settled
steps = int(os.environ.pop("KILL_AT"))
def counting(path, data, mode=0o600, write=files.write_atomic):
    global steps
    write(path, data, mode)
    steps -= 1
    if steps == 0:
        os.kill(os.getpid(), 9)
record.write_atomic = settled.write_atomic = control.write_atomic = counting
converge.main()
"""


def converge_killed_at(site: Site, step: int) -> int:
    """Run a deploy that is killed after its Nth record; return how it ended."""
    return subprocess.run(
        [*ISOLATED, "-c", KILLED_AT, site.clone / ".git", f"killed-{step}", REQUEST],
        env={**os.environ, "KILL_AT": str(step)},
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=False,
    ).returncode


def assert_one_live_generation(site: Site, page: str) -> None:
    assert site.page() == page
    assert len(monitors_of(site.state)) == 1
    live = site.live()
    assert live is not None
    assert live.phase == "healthy"
    phases = site.outcomes()
    assert phases.count("healthy") == 1
    assert set(phases) <= {"healthy", "ended", "abandoned"}


def test_killed_between_any_two_steps_of_a_replace_the_next_converge_completes_it(
    deployed: Site,
) -> None:
    pages = ["two", "one"]
    step, killed = 0, 0
    while True:
        step += 1
        page = pages[step % 2]
        deployed.publish(page)
        deployed.pull_unhooked()
        ended = converge_killed_at(deployed, step)
        # Old or new, somebody serves: at once, or as soon as the armed monitor has switched.
        wait_for(lambda: deployed.page() in pages)
        deployed.command("deploy")
        assert_one_live_generation(deployed, page)
        if ended == 0:
            break
        assert ended == -9
        killed += 1
    print(f"killed the converger after each of {killed} records")
    assert killed >= 6


def test_a_converger_killed_after_the_word_was_given_leaves_a_switch_that_completes(
    deployed: Site,
) -> None:
    deployed.args.append("--delay=500")
    deployed.publish("two")
    deployed.pull_unhooked()
    with subprocess.Popen(
        [*ISOLATED, "-m", "mirage_hooks.boot.converge", deployed.clone / ".git", "gone", REQUEST],
        stdout=subprocess.DEVNULL,
    ) as converger:
        wait_for(lambda: deployed.outcomes()[1:] == ["fired"] and deployed.live() is not None)
        wait_for(lambda: (live := deployed.live()) is not None and live.number == 2)
        converger.kill()
    wait_for(lambda: deployed.page() == "two")
    deployed.command("deploy")
    assert_one_live_generation(deployed, "two")
    assert deployed.outcomes() == ["ended", "healthy"]


def test_a_killed_monitor_takes_its_guest_along_and_the_next_pull_revives_it(
    deployed: Site,
) -> None:
    monitor = deployed.monitor()
    monitor.monitor.kill()
    assert monitor.tender is not None
    assert monitor.tender.wait_gone(5)
    deployed.publish("two")
    deployed.pull()
    assert_one_live_generation(deployed, "two")


def test_a_killed_monitor_is_made_good_by_a_pull_that_changes_no_image(deployed: Site) -> None:
    assert deployed.state.settled.exists()
    deployed.monitor().monitor.kill()
    (deployed.upstream / "README").write_text("words\n")
    deployed.commit("words only")
    deployed.pull()
    assert_one_live_generation(deployed, "one")


def test_two_guests_can_exchange_their_ports(deployed: Site) -> None:
    other = free_port()
    table = (
        '\n[guest.api]\ntarget = "unix"\nimage = "unix/{{latest}}/www.unix"\n'
        'args = ["--ipv4=127.0.0.1/8", "--port={port}", "--hello=api"]\n'
    )
    deployed.tables = table.format(port=other)
    deployed.publish()
    deployed.pull()
    assert get(other) == "api"
    mine, deployed.port = deployed.port, other
    deployed.tables = table.format(port=mine)
    deployed.publish()
    deployed.pull()
    assert (get(mine), get(other)) == ("api", "one")
    assert (deployed.outcomes(), deployed.outcomes("api")) == (["ended", "healthy"],) * 2


def test_a_guest_is_not_stopped_for_one_that_cannot_be_booted(deployed: Site) -> None:
    manifest = deployed.manifest().replace("www", "web").replace("web.unix", "nothing.unix")
    (deployed.upstream / "mirage-hooks.toml").write_text(manifest)
    deployed.commit("www becomes web, whose image is not there")
    assert "www: not stopped while web cannot be booted" in deployed.pull().stderr
    assert deployed.page() == "one"


def test_a_start_tries_no_other_guest_again(deployed: Site) -> None:
    deployed.args.append("--exit=2")
    deployed.tables = (
        '\n[guest.other]\ntarget = "unix"\nimage = "unix/{latest}/www.unix"\n'
        f'args = ["--port={free_port()}"]\n[guest.other.check]\nalive = "100ms"\n'
    )
    deployed.publish("two")
    deployed.pull()
    before = deployed.outcomes()
    deployed.command("stop", "other")
    deployed.command("start", "other", check=False)
    assert deployed.outcomes() == before


def test_a_killed_monitor_is_made_good_by_deploy(deployed: Site) -> None:
    deployed.monitor().monitor.kill()
    wait_for(lambda: deployed.page() is None)
    assert "it is not running" in deployed.command("deploy").stdout
    assert_one_live_generation(deployed, "one")


def test_a_killed_tender_is_restarted_by_its_monitor(deployed: Site) -> None:
    tender = deployed.monitor().tender
    assert tender is not None
    tender.kill()
    wait_for(lambda: deployed.monitor().restarts == 1 and deployed.page() == "one")
    assert deployed.outcomes() == ["healthy"]
    assert "was killed by SIGKILL; restart 1 of 5" in deployed.command("logs").stdout


def test_a_guest_that_ended_makes_the_next_pull_look(deployed: Site) -> None:
    assert deployed.state.settled.exists()
    tender = deployed.monitor().tender
    assert tender is not None
    tender.kill()
    wait_for(lambda: not deployed.state.settled.exists())


def test_an_image_that_is_not_healthy_is_rolled_back(deployed: Site) -> None:
    deployed.args.append("--exit=2")
    deployed.publish("two")
    pull = deployed.pull()
    assert pull.returncode == 0
    assert deployed.page() == "one"
    assert deployed.outcomes() == ["ended", "failed", "healthy"]
    assert "exited with 2 (an uncaught exception" in pull.stderr
    assert 'exception Failure("asked to exit")' in pull.stderr
    assert "roll back: " in pull.stderr
    assert pull.stderr.splitlines()[-2].startswith("mirage-hooks: not as it should be: www: ")


def test_a_rollback_is_never_reported_as_success(deployed: Site) -> None:
    deployed.args.append("--status=500")
    deployed.check = f'http = "http://127.0.0.1:{deployed.port}/"\nwithin = "1s"'
    deployed.publish("two")
    deployed.pull_unhooked()
    deploy = deployed.command("deploy", check=False)
    assert deploy.returncode == 1
    assert "answered 500" in deploy.stdout
    assert deployed.page() == "one"


def test_a_failed_state_is_not_tried_again_by_pulls_but_by_deploy(deployed: Site) -> None:
    deployed.args.append("--exit=2")
    deployed.publish("two")
    deployed.pull()
    (deployed.upstream / "README").write_text("words\n")
    deployed.commit("words only")
    assert "back to" in deployed.pull().stderr
    assert deployed.outcomes() == ["ended", "failed", "healthy"]
    assert deployed.command("deploy", check=False).returncode == 1
    assert deployed.outcomes() == ["ended", "failed", "ended", "failed", "healthy"]


def test_a_first_image_that_is_not_healthy_leaves_nothing_running(site: Site) -> None:
    site.args.append("--nonsense")
    site.publish("one")
    site.pull()
    site.install()
    deploy = site.command("deploy", check=False)
    assert deploy.returncode == 1
    assert "exited with 64 (an argument it does not take)" in deploy.stdout
    assert "unknown option '--nonsense'" in deploy.stdout
    assert monitors_of(site.state) == []


def test_a_mended_image_after_a_failed_one_is_deployed(deployed: Site) -> None:
    deployed.args.append("--exit=3")
    deployed.publish("two")
    deployed.pull()
    deployed.args.clear()
    deployed.publish("three")
    deployed.pull()
    assert_page_after_failure(deployed)


def assert_page_after_failure(site: Site) -> None:
    assert site.page() == "three"
    assert site.outcomes()[-1] == "healthy"


def test_several_guests_stand_side_by_side(deployed: Site) -> None:
    ports = [free_port() for _ in range(3)]
    for number, port in enumerate(ports):
        deployed.tables += (
            f'\n[guest.extra{number}]\ntarget = "unix"\nimage = "unix/{{latest}}/www.unix"\n'
            f'args = ["--ipv4=127.0.0.1/8", "--port={port}", "--hello=extra {number}"]\n'
        )
    deployed.publish()
    deployed.pull()
    assert [get(port) for port in ports] == ["extra 0", "extra 1", "extra 2"]
    assert deployed.page() == "one"
    assert deployed.outcomes() == ["healthy"]


def test_a_guest_that_leaves_the_manifest_is_stopped(deployed: Site) -> None:
    deployed.tables = (
        '\n[guest.other]\ntarget = "unix"\nimage = "unix/{latest}/www.unix"\n'
        f'args = ["--port={deployed.port + 1}"]\n[guest.other.check]\nalive = "100ms"\n'
    )
    deployed.publish()
    deployed.pull()
    assert deployed.live("other") is not None
    deployed.tables = ""
    deployed.publish()
    assert "other: stop: no longer in the manifest" in deployed.pull().stderr
    assert deployed.live("other") is None
    assert deployed.page() == "one"


def test_the_network_configuration_is_logged_as_configured_and_as_observed(
    deployed: Site,
) -> None:
    log = deployed.command("logs").stdout
    assert re.search(
        rf"www: network: host sockets, 127\.0\.0\.1/8 \(netmask 255\.0\.0\.0\), "
        rf"port {deployed.port}, "
        rf"passed as --ipv4=127\.0\.0\.1/8 --port={deployed.port}; commit [0-9a-f]{{7}}, image ",
        log,
    )
    assert f"www: network: observed tcp 127.0.0.1:{deployed.port}" in log


def test_the_running_guest_is_not_a_child_of_the_session_that_deployed_it(deployed: Site) -> None:
    monitor = deployed.monitor()
    assert monitor.tender is not None
    assert os.getsid(monitor.tender.pid) == monitor.tender.pid
    assert os.getsid(monitor.monitor.pid) != os.getsid(0)
    assert identify(monitor.tender.pid) == monitor.tender


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_converger_holds_none_of_the_streams_of_who_started_it(
    deployed: Site, stream: int
) -> None:
    monitor = deployed.monitor()
    target = Path(f"/proc/{monitor.monitor.pid}/fd/{stream}").readlink()
    assert str(target) == "/dev/null" or target.is_relative_to(deployed.state.folder)


def test_a_first_image_that_crashes_is_not_restarted_behind_the_verdict(site: Site) -> None:
    site.args.append("--exit=2")
    site.publish("one")
    site.pull()
    site.install()
    assert site.command("deploy", check=False).returncode == 1
    assert monitors_of(site.state) == []


def test_a_first_image_that_runs_but_is_not_healthy_goes_on_running(site: Site) -> None:
    site.check = f'http = "http://127.0.0.1:{site.port}/"\nwithin = "500ms"'
    site.args.append("--status=500")
    site.publish("one")
    site.pull()
    site.install()
    deploy = site.command("deploy", check=False)
    assert deploy.returncode == 1
    assert "there is nothing healthy to go back to" in deploy.stdout + deploy.stderr
    assert site.page() == "one"
