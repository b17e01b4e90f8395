"""status --prometheus: metrics as Prometheus' own parser reads them."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.generation import Phase
from mirage_hooks.boot.plan import Known
from mirage_hooks.boot.process import identify
from mirage_hooks.installer.prometheus import Fleet, exposition
from support import COMMAND, Site, free_port, past_generation, wait_for

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text().partition("\n## Metrics\n")[2]
TEXTFILE = ROOT / "contrib" / "prometheus" / "textfile.sh"

OF_GUESTS = ("up", "healthy", "held", "pinned")


def parsed(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the labels and value of each sample, by its name without our prefix."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("mirage_hooks_")
            found.setdefault(name, []).append((dict(sample.labels), float(sample.value)))
    return found


def metrics(site: Site) -> dict[str, list[tuple[dict[str, str], float]]]:
    return parsed(site.command("status", "--prometheus").stdout)


def value(site: Site, name: str, guest: str | None = None) -> float | None:
    """Return the one sample of a metric, or that of a guest; None where there is none."""
    found = [value for labels, value in metrics(site).get(name, []) if labels.get("guest") == guest]
    assert len(found) < 2
    return found[0] if found else None


def www(site: Site) -> tuple[float, ...]:
    """Return whether the guest is up, healthy, held and pinned."""
    found = metrics(site)
    ups = [{labels["guest"]: one for labels, one in found[f"guest_{name}"]} for name in OF_GUESTS]
    return tuple(up["www"] for up in ups)


def test_a_guest_that_runs_is_up_and_healthy(deployed: Site) -> None:
    assert www(deployed) == (1, 1, 0, 0)


def test_a_guest_that_was_never_booted_is_down(installed: Site) -> None:
    assert www(installed) == (0, 0, 0, 0)


def test_a_guest_that_is_held_is_down_and_held(deployed: Site) -> None:
    deployed.command("stop", "www")
    assert www(deployed) == (0, 0, 1, 0)


def test_a_guest_that_was_rolled_back_by_hand_is_pinned(twice: Site) -> None:
    twice.command("rollback", "www")
    assert www(twice) == (1, 1, 0, 1)


def test_a_guest_that_waits_for_its_restart_is_down() -> None:
    monitor = MonitorState("backing-off", identify(os.getpid()), None, "/run/socket")
    live = past_generation(1, "a" * 64, "b" * 40, Phase.HEALTHY)
    fleet = Fleet("/srv", {"www": Known(live=live, monitor=monitor)}, False, None, None, None, None)
    found = parsed(exposition(fleet))
    assert (found["guest_up"][0][1], found["guest_healthy"][0][1]) == (0, 0)


def test_restarts_are_counted(deployed: Site) -> None:
    tender = deployed.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    wait_for(lambda: deployed.monitor().restarts == 1)
    assert value(deployed, "guest_restarts_total", "www") == 1


def test_a_guest_that_runs_has_the_number_of_its_generation(twice: Site) -> None:
    assert value(twice, "guest_generation", "www") == 2


def test_a_guest_that_does_not_run_has_no_generation(deployed: Site) -> None:
    deployed.command("stop", "www")
    assert value(deployed, "guest_generation", "www") is None


def test_a_guest_that_runs_has_the_time_of_its_boot(deployed: Site) -> None:
    started = value(deployed, "guest_start_time_seconds", "www")
    assert started is not None
    assert 0 < time.time() - started < 60


def test_what_runs_is_told_by_labels(deployed: Site) -> None:
    ((labels, one),) = metrics(deployed)["guest_info"]
    live = deployed.live()
    assert live is not None
    assert (labels, one) == (
        {
            "repository": str(deployed.clone),
            "guest": "www",
            "target": "unix",
            "image": live.boot.image[:7],
            "commit": live.provenance.commit[:7],
        },
        1,
    )


def test_a_deploy_that_succeeded_is_told_by_time_and_code(deployed: Site) -> None:
    finished = value(deployed, "deploy_timestamp_seconds")
    assert finished is not None
    assert 0 < time.time() - finished < 60
    assert value(deployed, "deploy_exit_code") == 0


def test_a_deploy_that_failed_is_told_by_its_code(deployed: Site) -> None:
    deployed.args = ["--exit=3"]
    deployed.publish()
    deployed.pull()
    assert value(deployed, "deploy_exit_code") == 1


def test_before_the_first_deploy_there_is_none(installed: Site) -> None:
    assert value(installed, "deploy_exit_code") is None


def test_a_pause_is_told(deployed: Site) -> None:
    before = value(deployed, "paused")
    deployed.command("pause", "moving the disks")
    assert (before, value(deployed, "paused")) == (0, 1)


def test_commits_that_were_fetched_only_are_counted(deployed: Site) -> None:
    deployed.publish("two")
    deployed.git("fetch", "-q")
    assert value(deployed, "commits_behind") == 1


def test_without_an_upstream_nothing_is_behind(deployed: Site) -> None:
    deployed.git("branch", "--unset-upstream")
    assert value(deployed, "commits_behind") is None


def test_the_last_fetch_is_told(deployed: Site) -> None:
    before = value(deployed, "fetch_timestamp_seconds")
    deployed.git("fetch", "-q")
    after = value(deployed, "fetch_timestamp_seconds")
    assert (before, after is not None and time.time() - after < 60) == (None, True)


def test_the_last_fetch_is_the_last_that_went_well(deployed: Site) -> None:
    deployed.command("poll")
    os.utime(deployed.state.fetched, (1000.0, 1000.0))
    deployed.upstream.rename(deployed.upstream.with_name("moved"))
    deployed.command("poll", check=False)
    deployed.pull(check=False)
    assert value(deployed, "fetch_timestamp_seconds") == 1000


def test_metrics_are_told_though_the_manifest_cannot_be_read(deployed: Site) -> None:
    deployed.tables = 'colour = "red"'
    deployed.publish()
    deployed.git("-c", "core.hooksPath=/dev/null", "pull", "-q")
    assert www(deployed)[:2] == (1, 1)


def test_the_reference_lists_every_metric(deployed: Site) -> None:
    deployed.git("fetch", "-q")
    listed = re.findall(r"^\| `mirage_hooks_([a-z_]+)` \|", REFERENCE, re.MULTILINE)
    assert sorted(listed) == sorted(metrics(deployed))


def test_a_metric_says_what_it_is(deployed: Site) -> None:
    text = deployed.command("status", "--prometheus").stdout
    families = list(text_string_to_metric_families(text))
    assert [one.name for one in families if not one.documentation or one.type == "unknown"] == []


def test_metrics_and_json_exclude_each_other(installed: Site) -> None:
    assert installed.command("status", "--json", "--prometheus", check=False).returncode == 2


@pytest.mark.parametrize("name", ['a "quoted" one', "back\\slash", "two\nlines", "größer"])
def test_a_path_is_read_as_it_is_whatever_is_in_it(name: str) -> None:
    fleet = Fleet(name, {"www": Known()}, False, None, None, None, None)
    assert parsed(exposition(fleet))["guest_up"] == [({"repository": name, "guest": "www"}, 0)]


def test_a_path_that_is_no_utf8_can_be_written() -> None:
    fleet = Fleet(os.fsdecode(b"caf\xe9"), {}, False, None, None, None, None)
    assert exposition(fleet).encode() != b""


# Guests that have left the repository.


@pytest.fixture
def left(site: Site) -> Site:
    """A clone whose second guest ran once, and is in the manifest no longer."""
    arguments = ["--ipv4=127.0.0.1/8", f"--port={free_port()}"]
    image, check = 'image = "unix/{latest}/www.unix"', 'check.alive = "100ms"'
    site.tables = f'[guest.dns]\ntarget = "unix"\n{image}\nargs = {arguments}\n{check}\n'
    site.publish()
    site.pull()
    site.install("--deploy")
    site.tables = ""
    site.publish()
    site.git("-c", "core.hooksPath=/dev/null", "pull", "-q")
    return site


def test_a_guest_that_left_is_listed_for_as_long_as_it_runs(left: Site) -> None:
    assert value(left, "guest_up", "dns") == 1


def test_a_guest_that_left_and_was_stopped_has_no_metrics(left: Site) -> None:
    left.command("deploy")
    assert value(left, "guest_up", "dns") is None


def test_a_guest_that_left_and_was_stopped_is_not_in_the_status(left: Site) -> None:
    left.command("deploy")
    assert re.search("^dns ", left.command("status").stdout, re.MULTILINE) is None


def test_a_guest_that_left_and_was_stopped_is_in_the_history(left: Site) -> None:
    left.command("deploy")
    assert re.search("^dns ", left.command("history").stdout, re.MULTILINE) is not None


# The textfile collector's folder.


def write_textfile(site: Site, file: Path) -> int:
    environment = {**os.environ, "MIRAGE_HOOKS": str(COMMAND)}
    command = [TEXTFILE, site.clone, file]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def test_the_script_writes_a_file_that_the_collector_can_read(
    deployed: Site, tmp_path: Path
) -> None:
    file = tmp_path / "deployment.prom"
    assert write_textfile(deployed, file) == 0
    assert (parsed(file.read_text())["paused"][0][1], file.stat().st_mode & 0o777) == (0, 0o644)


def test_the_script_leaves_the_last_metrics_where_there_are_no_new_ones(
    site: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "textfiles"
    folder.mkdir()
    (folder / "deployment.prom").write_text("as it was\n")
    assert write_textfile(site, folder / "deployment.prom") != 0
    assert [(one.name, one.read_text()) for one in folder.iterdir()] == [
        ("deployment.prom", "as it was\n")
    ]
