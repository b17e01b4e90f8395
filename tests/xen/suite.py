"""Run the tests of tests/xen/inside in the test host, on a wheel of this work tree.

    python tests/xen/suite.py [PYTEST ARGUMENT...]
    python tests/xen/suite.py silence

Without arguments the host is then rebooted, and tests/xen/rebooted follows. `silence` runs the
benchmark of silence.py instead. Ends as what was run ends in there. What it found is in build/xen
afterwards: `inside.xml`, `rebooted.xml`, and what the host and Xen had on their console. Where
there can be no test host it says why, and ends with 0.
"""

import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Guests are compiled here: there is no compiler in there.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from dom0 import Host, running
from dom0_image import REPOSITORY, built, missing
from guests_built import Built

RESULTS = REPOSITORY / "build/xen"

_SUITE = "/srv/suite"
_PROGRAMS = "/opt/mirage-hooks/bin"
_SUITE_SECONDS = 1500.0


def main(arguments: list[str]) -> int:
    """Build what is missing, run the tests; return the exit code."""
    lacking = missing()
    if lacking is not None:
        print(f"the tests on Xen are skipped: {lacking}", file=sys.stderr)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the host on the way out
    began = time.monotonic()
    image = built()
    _say(began, "the disk is there")
    with running(image) as host:
        _say(began, "the test host is up")
        _bring(host)
        _say(began, "mirage-hooks is installed there")
        try:
            return _run(host, arguments)
        finally:
            _collect(host)
            _say(began, f"done; see {RESULTS}")


def _bring(host: Host) -> None:
    with tempfile.TemporaryDirectory(prefix="mh-wheel-") as folder:
        build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
        subprocess.run([*build, REPOSITORY], stdout=subprocess.DEVNULL, timeout=120, check=True)
        (wheel,) = Path(folder).iterdir()
        brought = [REPOSITORY / name for name in ("tests", "docs", "setup.cfg")]
        host.copy([wheel, *brought], _SUITE)
        host.copy(_guests(Path(folder)), "/srv/guests")
    options = "--quiet --disable-pip-version-check --no-index --no-deps --no-compile"
    host.run(f"cd {_SUITE} && {_PROGRAMS}/pip install {options} *.whl", 120)


def _guests(folder: Path) -> list[Path]:
    made = Built(folder)
    return [
        made.image("xen").rename(folder / "stand-in.xen"),
        made.image("xen-pv").rename(folder / "web.xen"),
        made.image("xen-pvh").rename(folder / "web-pvh.xen"),
    ]


def _run(host: Host, arguments: list[str]) -> int:
    if arguments == ["silence"]:
        return _in(host, "python", "tests/xen/silence.py")
    code = _pytest(host, "inside", *arguments)
    return code if arguments else code or _test_rebooted(host)


def _test_rebooted(host: Host) -> int:
    code = _in(host, "python", "tests/xen/before_reboot.py")
    if code == 0:
        host.reboot()
        code = _pytest(host, "rebooted")
    return code


def _pytest(host: Host, tests: str, *arguments: str) -> int:
    results = (f"--junitxml={tests}.xml", "-o", "junit_family=xunit1")  # which has properties
    return _in(host, "pytest", "-m", "xen", *results, *arguments, f"tests/xen/{tests}")


def _in(host: Host, *command: str) -> int:
    """Run a command of our environment in there, on what was brought; return its exit code."""
    line = f"cd {_SUITE} && PATH={_PROGRAMS}:$PATH {shlex.join(command)}"
    return subprocess.run(
        host.ssh(line), stdin=subprocess.DEVNULL, timeout=_SUITE_SECONDS, check=False
    ).returncode


def _collect(host: Host) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    for tests in ("inside", "rebooted"):
        found = host.run(f"cat {_SUITE}/{tests}.xml", check=False)
        (RESULTS / f"{tests}.xml").write_text(found)
    (RESULTS / "console").write_text(host.console.read_text(errors="replace"))


def _say(began: float, what: str) -> None:
    print(f"[{time.monotonic() - began:6.1f} s] {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
