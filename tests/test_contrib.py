"""What operators copy: units that systemd takes, and what they run."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.installer import crontab, units
from mirage_hooks.installer.job import Job

COMMAND = "/opt/mirage-hooks/bin/mirage-hooks"
SYSTEMD = Path(__file__).parent.parent / "contrib" / "systemd"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze"
)


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    units = sorted(SYSTEMD.iterdir())
    # It finds a program that is not there wrong, too.
    for unit in units:
        (tmp_path / unit.name).write_text(unit.read_text().replace(COMMAND, "/bin/true"))
    assert verify(*(tmp_path / unit.name for unit in units)) == (0, [])


@needs_systemd
@pytest.mark.parametrize("name", ["deployment", "a site", "100%n $HOME", "Jürgen 日本", ".x"])
def test_systemd_finds_nothing_wrong_with_the_units_that_install_writes(
    tmp_path: Path, name: str
) -> None:
    command = tmp_path / name / "mirage-hooks"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    paths = []
    for template, text in units.render(str(command), "90s", 90).items():
        paths.append(tmp_path / units.instance(template, str(tmp_path / name)))
        paths[-1].write_text(text)
    assert verify(*paths) == (0, [])


def test_the_units_are_what_install_writes() -> None:
    for template, text in units.render(COMMAND, "5m", 300).items():
        assert (SYSTEMD / template).read_text() == text


def test_the_crontab_is_what_install_writes() -> None:
    job = Job(COMMAND, "/srv/deployment", "775d5744cb82")
    assert (SYSTEMD.parent / "cron" / "crontab").read_text() == crontab.render(job, 300)


def verify(*units: Path) -> tuple[int, list[str]]:
    """Return how systemd-analyze ends, and what it says of our units."""
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    return done.returncode, [line for line in done.stderr.splitlines() if "mirage-hooks" in line]


@pytest.fixture
def service(tmp_path: Path) -> Callable[[], str]:
    """A pushed repository; a function that runs the service, and returns what that started."""
    trigger = tmp_path / "mirage-hooks.trigger"
    trigger.write_text("push\n")
    command, runs = tmp_path / "mirage-hooks", tmp_path / "runs"
    # The first time somebody pushes while it deploys.
    command.mkdir()
    program = command / "program"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{runs}\n: >{trigger}\n'
        f"[ $(wc -l <{runs}) -gt 1 ] || echo push >{trigger}\n"
    )
    program.chmod(0o755)
    unit = (SYSTEMD / "mirage-hooks-trigger.service").read_text()
    script = unit.partition("ExecStart=/bin/sh -c '")[2].partition("'\n")[0].replace("$$", "$")
    environment = {"REPOSITORY": str(tmp_path), "MIRAGE_HOOKS": str(program)}

    def start() -> str:
        subprocess.run(["/bin/sh", "-c", script], env=environment, check=True, timeout=20)
        return runs.read_text() if runs.exists() else ""

    return start


def test_the_service_deploys_until_the_trigger_stays_empty(
    service: Callable[[], str], tmp_path: Path
) -> None:
    assert service() == f"-C {tmp_path} poll\n" * 2


def test_a_pause_holds_the_service_back(service: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "mirage-hooks" / "paused").write_text("{}")
    assert service() == ""
