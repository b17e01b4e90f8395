"""What operators copy: units that systemd takes, and what they run."""

import shutil
import subprocess
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


def test_the_service_deploys_until_the_trigger_stays_empty(tmp_path: Path) -> None:
    trigger = tmp_path / "mirage-hooks.trigger"
    trigger.write_text("push\n")
    command = tmp_path / "mirage-hooks"
    # The first time somebody pushes while it deploys.
    command.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/runs\n: >{trigger}\n'
        f"[ $(wc -l <{tmp_path}/runs) -gt 1 ] || echo push >{trigger}\n"
    )
    command.chmod(0o755)
    unit = (SYSTEMD / "mirage-hooks-trigger.service").read_text()
    script = unit.partition("ExecStart=/bin/sh -c '")[2].partition("'\n")[0].replace("$$", "$")
    environment = {"REPOSITORY": str(tmp_path), "MIRAGE_HOOKS": str(command)}
    subprocess.run(["/bin/sh", "-c", script], env=environment, check=True, timeout=20)
    assert (tmp_path / "runs").read_text() == f"-C {tmp_path} deploy\n" * 2
