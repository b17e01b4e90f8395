"""`install --poll` where there is no systemd: the real crontab, in a spool of the test's own."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirage_hooks.boot import installation
from support import COMMAND, USER, Site, get, run, wait_for

THEIRS = 'MAILTO=""\n# theirs, 100%\n*/5 * * * *  true\t--all  \n'

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a spool of its own"),
    pytest.mark.skipif(shutil.which("crontab") is None, reason="there is no crontab"),
]

# Nobody else sees these mounts. A host that has systemd looks here as if it had none.
_SPOOL = """
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
chgrp crontab /var/spool/cron/crontabs
echo ready
read -r _
"""


class Host:
    """This host with an empty spool, and without systemd."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.mark = f"# mirage-hooks:{installation.identify(site.clone / '.git')}"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-euc", _SPOOL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def inside(self, *command: str | Path) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *map(str, command)]

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run mirage-hooks in the clone."""
        run_in = ("env", "-C", self.site.clone, COMMAND)
        return run(*self.inside(*run_in, *arguments), cwd=Path("/"), check=check)

    def install(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        user = ["--user", USER] if USER else []
        return self.command("install", *user, *options, check=check)

    def write(self, text: str) -> None:
        """Have a crontab, as its user edits it."""
        subprocess.run(self.inside("crontab", "-"), input=text.encode(), check=True)

    def crontab(self) -> str | None:
        """Return the crontab, None where there is none."""
        done = subprocess.run(self.inside("crontab", "-l"), capture_output=True, check=False)
        return done.stdout.decode() if done.returncode == 0 else None

    def ours(self) -> list[str]:
        return [line for line in (self.crontab() or "").splitlines() if line.endswith(self.mark)]

    def finding(self) -> dict[str, str]:
        """Return what the doctor says of polls."""
        said = json.loads(self.command("doctor", "--json", check=False).stdout)
        found: dict[str, str] = next(one for one in said if one["subject"] == "poll")
        return found

    def end(self) -> None:
        self._holder.communicate("\n")


@pytest.fixture
def host(site: Site) -> Iterator[Host]:
    """A host with cron, and a clone."""
    made = Host(site)
    yield made
    made.command("uninstall", "--stop", "--yes", check=False)
    made.end()


def test_polls_and_the_boot_are_in_the_crontab(host: Host) -> None:
    host.install("--poll", "5m")
    _, poll, up = host.ours()
    assert f"; {host.site.state.poll} #" in poll
    assert up.startswith(f"@reboot {COMMAND} -C {host.site.clone} up")


def test_every_other_line_stays(host: Host) -> None:
    host.write(THEIRS)
    host.install("--poll", "5m")
    assert (host.crontab() or "").startswith(THEIRS)
    host.install("--poll", "never")
    assert host.crontab() == THEIRS


def test_a_second_install_changes_nothing(host: Host) -> None:
    host.install("--poll", "5m")
    before = host.crontab()
    host.install("--poll", "5m")
    assert host.crontab() == before


def test_another_interval_replaces_the_one_there_was(host: Host) -> None:
    host.install("--poll", "5m")
    host.install("--poll", "1d")
    assert len(host.ours()) == 3
    assert "/5 * * * *" not in (host.crontab() or "")


def test_an_install_that_says_nothing_of_polls_leaves_them(host: Host) -> None:
    host.install("--poll", "5m")
    before = host.crontab()
    host.install()
    assert host.crontab() == before


def test_never_leaves_no_crontab_where_there_was_none(host: Host) -> None:
    host.install("--poll", "5m")
    host.install("--poll", "never")
    assert host.crontab() is None


def test_an_uninstall_takes_our_lines_out(host: Host) -> None:
    host.write(THEIRS)
    host.install("--poll", "5m")
    host.command("uninstall", "--yes")
    assert host.crontab() == THEIRS


@pytest.mark.parametrize("interval", ["90s", "90m", "30s", "2d"])
def test_an_interval_that_cron_does_not_have_changes_nothing(host: Host, interval: str) -> None:
    done = host.install("--poll", interval, check=False)
    assert (done.returncode, host.crontab()) == (3, None)
    assert not host.site.state.host_file.exists()


@pytest.mark.parametrize("interval", ["", "5", "often", "-5m", "0s", "5 m"])
def test_what_is_no_interval_changes_nothing(host: Host, interval: str) -> None:
    done = host.install(f"--poll={interval}", check=False)
    assert (done.returncode, host.crontab()) == (3, None)
    assert not host.site.state.host_file.exists()


def test_a_crontab_that_cannot_be_written_is_said(host: Host) -> None:
    read_only = ("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/var/spool/cron")
    run(*host.inside(*read_only), cwd=Path("/"))
    done = host.install("--poll", "5m", check=False)
    assert (done.returncode, "crontab - ended with 1" in done.stderr) == (6, True)


def test_the_doctor_says_who_polls(host: Host) -> None:
    host.install("--poll", "5m")
    finding = host.finding()
    assert (finding["level"], host.ours()[1] in finding["finding"]) == ("ok", True)


def test_the_doctor_says_that_nobody_polls(host: Host) -> None:
    host.install()
    assert "nobody polls" in host.finding()["finding"]


def test_a_line_whose_program_is_gone_is_found(host: Host) -> None:
    host.install("--poll", "5m")
    host.write((host.crontab() or "").replace(str(COMMAND), "/gone/mirage-hooks"))
    finding = host.finding()
    assert (finding["level"], "/gone/mirage-hooks" in finding["finding"]) == ("failed", True)


@pytest.mark.skipif(shutil.which("cron") is None, reason="there is no cron")
@pytest.mark.parametrize("name", ["clone", "a clone, 100%n it's $HOME"])
def test_cron_boots_what_should_run_when_the_host_starts(
    host: Host, tmp_path: Path, name: str
) -> None:
    host.site.clone = host.site.clone.rename(tmp_path / name)
    host.install("--poll", "1h")
    # The first cron after a boot runs what is to be run @reboot.
    daemon = subprocess.Popen(host.inside("cron", "-f"), stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: get(host.site.port) == "one", 20)
    finally:
        daemon.terminate()
        daemon.wait(10)


def test_where_neither_systemd_nor_cron_is_one_message_says_so(host: Host) -> None:
    run(*host.inside("mount", "--bind", "/dev/null", shutil.which("crontab") or ""), cwd=Path("/"))
    done = host.install("--poll", "5m", check=False)
    assert (done.returncode, done.stderr.count("neither systemd nor crontab")) == (6, 1)
    assert not host.site.state.host_file.exists()
