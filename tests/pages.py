"""Pages of docs/ whose commands are run as they are written, and print what the page says."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path(__file__).parents[1] / "boot"

Mask = tuple[re.Pattern[str], str]

# What differs from one run to the next.
_MASKS: tuple[Mask, ...] = (
    (re.compile(r"\b[0-9]{8}T[0-9]{6}-[0-9]+\b"), "DEPLOY"),
    (re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"), "MAC"),
    (re.compile(r"[0-9a-f]{7,}"), "HASH"),
    (re.compile(r"\b[0-9]+(?:\.[0-9]+)? (?:ms|s|MiB|KiB|bytes)\b"), "SIZE"),
    (re.compile(r"[0-9]{4}-[0-9-]{5}[T ][0-9:.+-]+Z?"), "DATE"),
    (re.compile(r"\b10\.0\.0\.1[0-9]{2}\b"), "LEASE"),
    (re.compile(r"QEMU with.*"), "QEMU"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the line that it starts at."""

    line: int
    kind: str
    text: str


class Shell:
    """Where a reader types: `command` is a shell; they start in a folder that is their home."""

    def __init__(self, command: Sequence[str], home: Path, output: Path) -> None:
        self._output = output
        self._process = subprocess.Popen(
            command,
            cwd=home,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "COLUMNS": "100",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """Leave."""
        self._process.communicate()

    def type(self, command: str) -> list[str]:
        """Run a command to its end; return the lines that it printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{{ {command}\n}} </dev/null >{self._output} 2>&1\necho\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "\n", f"the shell ended at: {command}"
        return self._output.read_text().splitlines()


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page that say what they are."""
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        yield Block(page.count("\n", 0, match.start()) + 1, match[1], match[2])


def commands(console: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a console, and what it printed."""
    for text in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        first, *output = text.splitlines()
        while first.endswith("\\"):
            first = f"{first[:-1].rstrip()} {output.pop(0).strip()}"
        yield first, output


def agrees(expected: list[str], said: list[str], masks: Sequence[Mask] = ()) -> bool:
    """Whether what was said is what is expected, where `...` stands for any lines.

    `masks` are for what differs from one run of this page's commands to the next.
    """

    def masked(line: str) -> str:
        for pattern, to in (*masks, *_MASKS):
            line = pattern.sub(to, line)
        return line.strip()

    lines = [".*" if line == "..." else re.escape(masked(line)) + "\n" for line in expected]
    text = "".join(f"{masked(line)}\n" for line in said)
    return re.fullmatch("".join(lines), text, re.DOTALL) is not None


def strange(page: str) -> list[str]:
    """Return the messages in a page's table of messages that no module of ours has."""
    sources = (path for path in _BOOT.rglob("*.py") if not path.is_symlink())
    ours = [re.compile(template) for path in sources for template in _templates(path)]
    messages = re.findall(r"^\| `([^`]+)` \|", page.partition("| message |")[2], re.MULTILINE)
    assert messages
    return [said for said in messages if not any(one.fullmatch(said) for one in ours)]


def _templates(path: Path) -> Iterator[str]:
    """Yield the strings of a module as regular expressions, what is put into them being anything.

    Those with little of their own are left out: they would match whatever is said.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        own = [one.value if isinstance(one, ast.Constant) else None for one in parts]
        text = [one if isinstance(one, str) else None for one in own]
        if sum(len(one) for one in text if one) >= 12:
            yield "".join(".+" if one is None else re.escape(one) for one in text)
