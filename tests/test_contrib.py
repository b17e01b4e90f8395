"""What operators copy: units that systemd takes, and what they run."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parent.parent / "contrib" / "systemd"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units() -> None:
    units = sorted(SYSTEMD.iterdir())
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if "mirage-hooks" in line]
    assert (done.returncode, said) == (0, [])


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
    assert service() == f"-C {tmp_path} deploy\n" * 2


def test_a_pause_holds_the_service_back(service: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "mirage-hooks" / "paused").write_text("{}")
    assert service() == ""
