"""docs/networks.md is true: its commands, run as they are written, say what it says they do."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import tomlkit

from guests_built import Built, BuiltTarget
from mirage_hooks.boot import host, manifest
from namespace import Namespace
from support import run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "networks.md").read_text()
SOURCES = [path for path in (ROOT / "boot").rglob("*.py") if not path.is_symlink()]

# Where the page clones from.
URL = "https://git.example.org/deployment.git"
NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86",
    "dnsmasq": "dnsmasq-base",
    "curl": "curl",
    "ethtool": "ethtool",
    "ip": "iproute2",
}

# A host of the page's own, which what is started from here sees and nothing else does.
HOST = """
set -e
mount -t tmpfs tmpfs /run && mkdir /run/netns
mount -t tmpfs tmpfs /var/lib/misc
mount -t tmpfs -o mode=755 tmpfs /srv
mount -t tmpfs tmpfs /usr/local/sbin && cp {tender} /usr/local/sbin
mount -t tmpfs -o mode=755 tmpfs /opt && mkdir /opt/etc /opt/work
mount -t overlay -o lowerdir=/etc,upperdir=/opt/etc,workdir=/opt/work overlay /etc
grep -q ^mirage: /etc/passwd || echo mirage:x:64321:64321::/nonexistent:/bin/false >>/etc/passwd
exec bash --norc
"""

# What differs from one run to the next.
_MASKS = (
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
    """A fenced block of the page, and the line that it starts at."""

    line: int
    kind: str
    text: str


def blocks() -> Iterator[Block]:
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        yield Block(PAGE.count("\n", 0, match.start()) + 1, match[1], match[2])


def commands(console: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a console, and what it printed."""
    for text in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        first, *output = text.splitlines()
        while first.endswith("\\"):
            first = f"{first[:-1].rstrip()} {output.pop(0).strip()}"
        yield first, output


def masked(line: str) -> str:
    for pattern, to in _MASKS:
        line = pattern.sub(to, line)
    return line.strip()


def agrees(expected: list[str], said: list[str]) -> bool:
    """Whether what was said is what is expected, where `...` stands for any lines."""
    lines = [".*" if line == "..." else re.escape(masked(line)) + "\n" for line in expected]
    text = "".join(f"{masked(line)}\n" for line in said)
    return re.fullmatch("".join(lines), text, re.DOTALL) is not None


class Reader:
    """Who follows the page, on a host of their own; `folder` is theirs and CI's."""

    def __init__(self, namespace: Namespace, built: Built, folder: Path) -> None:
        self._built = built
        self._upstream = folder / "upstream"
        self._home = Path(os.environ["HOME"])
        self._output = folder / "output"
        run("git", "init", "-q", str(self._upstream), cwd=folder)
        run("git", "config", "--global", f"url.{self._upstream}.insteadOf", URL, cwd=folder)
        script = HOST.format(tender=built.tender("spt"))
        self._shell = subprocess.Popen(
            namespace.inside("sh", "-c", script),
            cwd=self._home,
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
        self._shell.communicate()

    def follow(self, block: Block) -> Iterator[tuple[str, list[str], list[str]]]:
        """Do what a block says; yield each command, what it should print, and what it printed."""
        if block.kind == "toml" and block.text.startswith(f"# {manifest.NAME}"):
            self._publish(block.text)
        elif block.kind == "toml" and block.text.startswith(f"# .git/mirage-hooks/{host.NAME}"):
            path = self._home / "deployment" / ".git" / "mirage-hooks" / host.NAME
            tables = tomllib.loads(path.read_text())
            for name, table in tomllib.loads(block.text).items():
                tables[name] = {**tables.get(name, {}), **table}
            path.write_text(tomlkit.dumps(tables))
        elif block.kind == "console":
            for command, expected in commands(block.text):
                yield command, expected, self._type(command)

    def _publish(self, text: str) -> None:
        """Be CI: commit a manifest, and the image that it asks for."""
        guest = tomllib.loads(text)["guest"]["www"]
        dhcp = any(network.get("dhcp") for network in guest["network"].values())
        devices = dict.fromkeys(guest["network"], "NET_BASIC")
        devices |= dict.fromkeys(guest.get("block", {}), "BLOCK_BASIC")
        target = cast("BuiltTarget", guest["target"])
        image = self._built.image(target, f"Hello from {target}", devices=devices, dhcp=dhcp)
        path = self._upstream / guest["image"].format(latest=f"{len(text):07x}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.read_bytes())
        (path.parents[1] / "latest").write_text(f"{path.parent.name}\n")
        (self._upstream / manifest.NAME).write_text(text)
        run("git", "add", "-A", cwd=self._upstream)
        run("git", "commit", "-q", "-m", f"adding {path.parent.name}", cwd=self._upstream)

    def _type(self, command: str) -> list[str]:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null >{self._output} 2>&1\necho\n")
        self._shell.stdin.flush()
        assert self._shell.stdout.readline() == "\n", f"the shell ended at: {command}"
        return self._output.read_text().splitlines()


@pytest.fixture
def reader(namespace: Namespace, built: Built, tmp_path: Path) -> Iterator[Reader]:
    """Who reads the page on a host that has what it needs."""
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            pytest.skip(f"the page needs {program}: apt-get install {package}")
    # The shell stands in the namespace, and ends with it where the test fails.
    made = Reader(namespace, built, tmp_path)
    yield made
    made.close()


def test_every_command_of_the_page_prints_what_the_page_says(reader: Reader) -> None:
    for block in blocks():
        for command, expected, said in reader.follow(block):
            assert agrees(expected, said), (
                f"docs/networks.md, block at line {block.line}:\n$ {command}\n" + "\n".join(said)
            )


def test_every_message_of_the_page_is_one_of_ours() -> None:
    """Also those of the table, whose causes no command of the page brings about."""
    ours = [re.compile(template) for path in SOURCES for template in templates(path)]
    table = PAGE.partition("| message |")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert messages
    assert [said for said in messages if not any(one.fullmatch(said) for one in ours)] == []


def templates(path: Path) -> Iterator[str]:
    """Yield the strings of a module as regular expressions, what is put into them being anything.

    Those with little of their own are left out: they would match whatever is said.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        own = [one.value if isinstance(one, ast.Constant) else None for one in parts]
        text = [one if isinstance(one, str) else None for one in own]
        if sum(len(one) for one in text if one) >= 12:
            yield "".join(".+" if one is None else re.escape(one) for one in text)
