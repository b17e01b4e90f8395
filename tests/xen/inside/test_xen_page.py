"""docs/xen.md is true: its commands, run as they are written, say what it says they do."""

import os
import re
import shutil
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit

import pages
from in_dom0 import in_dom0
from mirage_hooks.boot import host
from pages import Block, Shell
from practice import PAGE, SECONDS, SHELL_PRACTICE, Practice, Took
from support import run, wait_for

pytestmark = in_dom0

_MASKS = [
    # A domain's number, memory, state and seconds, as `xl list` has them.
    (re.compile(r"^(\S+) +[0-9]+ +[0-9]+ +[0-9]+ +[-rbpscd]{6} +[0-9.]+$"), r"\1"),
    (re.compile(r"\(id [0-9]+\)"), "(id)"),
    # Where the clone is.
    (re.compile(r"/\S+/\.git/"), ".git/"),
]


class Reader:
    """Who follows the page, on a host that a script has deployed to so far."""

    def __init__(self, site: Practice, output: Path) -> None:
        self._site = site
        home = Path(os.environ["HOME"])
        (home / "deployment").symlink_to(site.clone)
        self._shell = Shell(["bash", "--norc"], home, output)

    def close(self) -> None:
        """Leave."""
        self._shell.close()

    def follow(self, block: Block) -> Iterator[tuple[str, list[str], list[str]]]:
        """Do what a block says; yield each command, what it should print, and what it printed."""
        if block.kind == "ini":
            self._site.commit(block.text)
        elif block.kind == "toml" and block.text.startswith(f"# .git/mirage-hooks/{host.NAME}"):
            self._tell_host(block.text)
        elif block.kind == "console":
            for command, expected in pages.commands(block.text):
                if command.startswith("xl "):
                    # Nobody types as fast as a domain gets its name.
                    wait_for(self._settled, SECONDS)
                yield command, expected, self._shell.type(command)

    def _settled(self) -> bool:
        return self._site.domains() in ([], [self._site.name])

    def _tell_host(self, text: str) -> None:
        path = self._site.state.host_file
        tables = tomllib.loads(path.read_text())
        for name, table in tomllib.loads(text)["guest"].items():
            tables["guest"][name] |= table
        path.write_text(tomlkit.dumps(tables))


@pytest.fixture
def reader(mort_io: Practice, tmp_path: Path) -> Iterator[Reader]:
    """Who reads the page."""
    run("git", "config", "site.name", mort_io.name, cwd=mort_io.clone)
    shutil.copy(SHELL_PRACTICE, mort_io.clone / ".git/hooks/post-merge")
    run("sh", SHELL_PRACTICE, cwd=mort_io.clone)
    mort_io.answers("one")
    made = Reader(mort_io, tmp_path / "output")
    yield made
    made.close()


# Some twenty commands, each of seconds.
@pytest.mark.timeout(1200)
def test_every_command_of_the_page_prints_what_the_page_says(reader: Reader, took: Took) -> None:
    for block in pages.blocks(PAGE.read_text()):
        began = time.monotonic()
        for command, expected, said in reader.follow(block):
            if command.startswith(("git", "mirage-hooks")):
                took(f"docs/xen.md, line {block.line:3}: {command}", time.monotonic() - began)
            assert pages.agrees(expected, said, _MASKS), (
                f"docs/xen.md, block at line {block.line}:\n$ {command}\n" + "\n".join(said)
            )
            began = time.monotonic()
