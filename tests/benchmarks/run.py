"""What mirage-hooks costs, as one table: pulls, polls, gaps, replies, memory, verifying, clones.

    python tests/benchmarks/run.py [--json FILE]

Each figure is a difference from, or a ratio to, a baseline of the same run, measured in turn with
it, so that what else the machine does hits both alike. Figures are medians of n samples. Exits
with 1 where a budget is exceeded. Run it with a Python that has an ordinary install: an editable
one starts slower.
"""

import argparse
import signal
import sys
from pathlib import Path

# Beside what is here, benchmarks use what tests share.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import downtime
import first_reply
import memory
import new_host
import on_taps
import poll
import scale
import unchanged
import verify
from stage import stage
from table import save, show


def main() -> int:
    """Measure all, print the table; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure what mirage-hooks costs.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there, too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the guests on the way out
    figures = []
    with stage() as made:
        for part in (
            unchanged,
            poll,
            downtime,
            first_reply,
            on_taps,
            memory,
            verify,
            scale,
            new_host,
        ):
            figures += part.measure(made)
    print(show(figures))
    if options.json is not None:
        save(figures, options.json)
    return 1 if any(figure.over for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
