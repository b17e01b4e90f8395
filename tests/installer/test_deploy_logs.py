"""`logs --deploy ID`: all that one deploy left in logs; and what the journal shows of it."""

import os
import re
import signal
import subprocess

import pytest

from support import COMMAND, Site, wait_for

DATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


def deploy_of(site: Site, number: int = 1) -> str:
    """Return the deploy that booted a generation."""
    return site.state.generations("www")[number - 1].converge


def logged(site: Site, converge: str, *options: str) -> list[str]:
    return site.command("logs", "--deploy", converge, *options).stdout.splitlines()


def test_the_first_line_of_a_deploy_names_it(installed: Site) -> None:
    first = installed.command("deploy").stdout.splitlines()[0]
    assert first.endswith(f"(deploy), deploy {deploy_of(installed)}")


def test_the_first_line_of_a_pull_names_its_deploy(deployed: Site) -> None:
    deployed.publish("two")
    said = deployed.pull().stderr
    assert f"(pull), deploy {deploy_of(deployed, 2)}\n" in said


def test_the_console_names_the_deploy_that_booted_a_guest(deployed: Site) -> None:
    note = f"[mirage-hooks: generation 1 boots, by deploy {deploy_of(deployed)}]"
    assert note in deployed.command("logs", "www").stdout


def test_the_console_names_the_deploy_at_each_boot(deployed: Site) -> None:
    tender = deployed.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    wait_for(lambda: deployed.monitor().restarts == 1 and deployed.page() == "one")
    assert deployed.command("logs", "www").stdout.count("generation 1 boots, by deploy") == 2


def test_logs_of_a_deploy_show_its_events(deployed: Site) -> None:
    text = "\n".join(logged(deployed, deploy_of(deployed)))
    assert re.search(r" main at [0-9a-f]{7} \(deploy\), .* done: www runs", text, re.DOTALL)


def test_logs_of_a_deploy_show_the_console_of_what_it_booted(deployed: Site) -> None:
    shown = [line for line in logged(deployed, deploy_of(deployed)) if " www 1| " in line]
    assert [line for line in shown if f"127.0.0.1:{deployed.port}" in line] != []


def test_logs_of_a_deploy_show_nothing_of_another(twice: Site) -> None:
    shown = logged(twice, deploy_of(twice, 2))
    assert [line for line in shown if deploy_of(twice, 1) in line or " www 1| " in line] == []


def test_logs_of_a_deploy_are_in_the_order_of_time(twice: Site) -> None:
    dates = [match[0] for line in logged(twice, deploy_of(twice)) if (match := DATED.match(line))]
    assert dates == sorted(dates)


def test_logs_of_a_deploy_show_an_event_once(deployed: Site) -> None:
    shown = logged(deployed, deploy_of(deployed))
    assert len([line for line in shown if "www: generation 1 is healthy" in line]) == 1


def test_logs_of_a_deploy_show_what_became_of_its_guest_later(deployed: Site) -> None:
    tender = deployed.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    wait_for(lambda: deployed.monitor().restarts == 1)
    shown = logged(deployed, deploy_of(deployed))
    assert [line for line in shown if "was killed by SIGKILL; restart 1 of 5" in line] != []


def test_logs_of_a_deploy_show_what_its_monitors_complained_of(deployed: Site) -> None:
    folder = deployed.state.generation_folder("www", 1)
    with (folder / "monitor.log").open("a") as log:
        log.write("Traceback (most recent call last):\n")
    shown = logged(deployed, deploy_of(deployed))
    wanted = r"\S+Z monitor of www 1\| Traceback \(most recent call last\):"
    assert [line for line in shown if re.fullmatch(wanted, line)] != []


def test_logs_of_a_deploy_show_what_its_converger_broke_with(deployed: Site) -> None:
    with (deployed.state.runs / f"{deploy_of(deployed)}.jsonl").open("a") as run:
        run.write("ZeroDivisionError: division by zero\n")
    shown = logged(deployed, deploy_of(deployed))
    assert shown[-1].endswith(" converger| ZeroDivisionError: division by zero")


def test_logs_of_a_deploy_outlive_the_event_log(deployed: Site) -> None:
    deployed.state.events.unlink()
    assert [line for line in logged(deployed, deploy_of(deployed)) if "is healthy" in line] != []


def test_logs_of_a_deploy_show_no_more_lines_than_asked_for(deployed: Site) -> None:
    everything = logged(deployed, deploy_of(deployed))
    assert logged(deployed, deploy_of(deployed), "-n", "2") == everything[-2:]


@pytest.mark.parametrize("name", ["20000101T000000-1", "../events", ""])
def test_logs_of_a_deploy_that_never_was_end_with_3(deployed: Site, name: str) -> None:
    done = deployed.command("logs", "--deploy", name, check=False)
    assert (done.returncode, "nothing is logged of a deploy" in done.stderr) == (3, True)


@pytest.mark.parametrize("words", [("www",), ("-f",), ("--json",), ("--generation", "1")])
def test_logs_of_a_deploy_go_with_nothing_else(deployed: Site, words: tuple[str, ...]) -> None:
    done = deployed.command("logs", "--deploy", "x", *words, check=False)
    assert (done.returncode, "--deploy goes with -n alone" in done.stderr) == (2, True)


# Under systemd.


def journalled(site: Site, *command: str) -> list[str]:
    """Run a command whose standard streams are what $JOURNAL_STREAM names; return its lines."""
    path = site.clone.parent / "journal"
    with path.open("w") as journal:
        status = os.fstat(journal.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        subprocess.run(
            command,
            cwd=site.here,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=journal,
            stderr=journal,
            timeout=60,
            check=False,
        )
    return path.read_text().splitlines()


def test_under_systemd_each_line_of_a_deploy_has_its_rank(installed: Site) -> None:
    lines = journalled(installed, str(COMMAND), "deploy")
    assert [line for line in lines if not re.match(r"<[3-6]>", line)] == []


def test_under_systemd_health_is_a_notice(installed: Site) -> None:
    lines = journalled(installed, str(COMMAND), "deploy")
    assert [line[:3] for line in lines if "is healthy" in line] == ["<5>"]


def test_under_systemd_a_failure_is_an_error_line_by_line(installed: Site) -> None:
    installed.args = ["--exit=3"]
    installed.publish()
    installed.git("-c", "core.hooksPath=/dev/null", "pull", "-q")
    lines = journalled(installed, str(COMMAND), "deploy")
    start = next(i for i, line in enumerate(lines) if "is not healthy" in line)
    assert [line[:3] for line in lines[start : start + 2]] == ["<3>", "<3>"]


def test_under_systemd_the_lines_of_a_hook_have_their_rank(deployed: Site) -> None:
    deployed.publish("two")
    lines = journalled(deployed, "git", "pull", "-q")
    assert [line for line in lines if not re.match(r"<[3-6]>mirage-hooks: ", line)] == []


def test_under_systemd_an_error_of_a_command_is_an_error(installed: Site) -> None:
    assert journalled(installed, str(COMMAND), "logs", "wwww")[0].startswith("<3>mirage-hooks: ")


def test_outside_of_systemd_nothing_is_added(
    installed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert installed.command("deploy").stdout.startswith("main at ")
