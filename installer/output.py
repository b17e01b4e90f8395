"""What is read: tables and colours on a terminal, plain lines in a pipe, JSON by programs."""

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

# The words of a table that are coloured on a terminal.
_STYLES = {
    "healthy": "green",
    "ok": "green",
    "checking": "yellow",
    "restarting": "yellow",
    "warning": "yellow",
    "held": "yellow",
    "pinned": "yellow",
    "failed": "red",
    "given up": "red",
    "down": "red",
}


def print_json(value: object) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns."""
    if sys.stdout.isatty():
        _print_rich(columns, rows)
        return
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [[column.upper() for column in columns], *rows]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - 85 ms that a pipe need not pay
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(highlight=False).print(table)


def moment(seconds: float | None) -> str | None:
    """Return a time in ISO 8601, UTC, None for none."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None


def ago(seconds: float | None) -> str:
    """Return how long ago a time was, in words."""
    if seconds is None:
        return "-"
    passed = max(0, int(time.time() - seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if passed >= size:
            return f"{passed // size} {unit} ago"
    return f"{passed} s ago"
