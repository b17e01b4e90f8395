"""How long a site goes unanswered while a pull replaces its domain: ours, and the shell practice's.

    python tests/xen/silence.py             in a dom0: `make bench-xen` runs it there

Two sites with the same images and templates are pulled in turn: one by mirage-hooks, one by
shell_practice.sh. What is measured is the longest time between two answers. The images are small:
to unpack one of MirageOS's, the shell practice would take longer, with its domain gone.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Beside what is here, it uses what tests and other benchmarks share.
sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from table import Budget, Figure, show

from practice import SHELL_PRACTICE, Practice, longest_silence
from support import leave_state, run

_PAGES = ("two", "three", "four")
_MOST = 0.6


def main() -> int:
    """Measure, print the table; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="mh-bench-") as name, _sites(Path(name)) as sites:
        ours, shell = [], []
        for page in _PAGES:
            shell.append(_replaced(sites[1], page))
            ours.append(_replaced(sites[0], page))
    figure = Figure("a pull's longest silence", "s", ours, shell, "ratio", Budget("ratio", _MOST))
    print(show([Figure("the shell practice's", "s", shell), figure]))
    return 1 if figure.over else 0


@contextmanager
def _sites(folder: Path) -> Iterator[tuple[Practice, Practice]]:
    """Have both sites answer: ours, and the shell practice's."""
    ours = Practice(folder / "ours")
    shell = Practice(folder / "shell", "decks.org", "10.0.0.56")
    try:
        for site in (ours, shell):
            site.set_up()
        ours.deploy()
        run("git", "config", "site.name", shell.name, cwd=shell.clone)
        shutil.copy(SHELL_PRACTICE, shell.clone / ".git/hooks/post-merge")
        run("sh", SHELL_PRACTICE, cwd=shell.clone)
        shell.answers("one")
        yield ours, shell
    finally:
        leave_state(ours.state)
        subprocess.run(["xl", "destroy", shell.name], check=False)


def _replaced(site: Practice, page: str) -> float:
    site.publish(page)
    with site.watched() as answered:
        site.pull()
        site.answers(page)
    return longest_silence(answered)


if __name__ == "__main__":
    sys.exit(main())
