"""docs/tutorial.md is true: its commands, run as they are written, say what it says they do."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import pages
from namespace import Namespace
from networked import as_operator
from pages import Block, Shell

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()

NEEDED = {"make": "make", "jekyll": "jekyll", "curl": "curl", "cc": "gcc"}


class Reader:
    """Who follows the page, on a host of their own, where they are not root."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        become = as_operator(folder, "nobody")
        self._home = folder / "operator"
        # Who commits is for the page to say.
        (self._home / ".gitconfig").write_text("")
        (self._home / "mirage-hooks").symlink_to(ROOT)
        # What a make above this one says is none of theirs.
        unmade = ("env", "--unset=MAKEFLAGS", "--unset=MAKELEVEL", "--unset=MFLAGS")
        command = namespace.inside(*become, *unmade, "bash", "--norc")
        self._shell = Shell(command, self._home, folder / "output")
        self.masks = [(re.compile(re.escape(str(self._home))), "/home/you")]

    def close(self) -> None:
        """Leave."""
        self._shell.close()

    def follow(self, block: Block) -> Iterator[tuple[str, list[str], list[str]]]:
        """Do what a block says; yield each command, what it should print, and what it printed."""
        if block.kind == "toml":
            name = block.text.partition("\n")[0].removeprefix("# ")
            (self._home / "tutorial" / name).write_text(block.text)
        elif block.kind == "console":
            for command, expected in pages.commands(block.text):
                yield command, expected, self._shell.type(command)


@pytest.fixture
def reader(namespace: Namespace) -> Iterator[Reader]:
    """Who reads the page on a host that has what it needs."""
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            pytest.skip(f"the page needs {program}: apt-get install {package}")
    # Not in pytest's folder, which is private. The shell ends with the namespace at the latest.
    with tempfile.TemporaryDirectory(prefix="mh-reader-") as folder:
        Path(folder).chmod(0o755)
        made = Reader(namespace, Path(folder))
        yield made
        made.close()


def test_every_command_of_the_page_prints_what_the_page_says(reader: Reader) -> None:
    for block in pages.blocks(PAGE):
        for command, expected, said in reader.follow(block):
            assert pages.agrees(expected, said, reader.masks), (
                f"docs/tutorial.md, block at line {block.line}:\n$ {command}\n" + "\n".join(said)
            )
