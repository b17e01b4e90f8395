"""The environment that tests run in, and what is set up for several of them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the machine's git configuration out, and sockets in a folder of their own."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    home = folder / "home"
    home.mkdir()
    # Short: a socket's path has 107 bytes, and pytest's folders use them up.
    runtime = tempfile.mkdtemp(prefix="mh-")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    (home / ".gitconfig").write_text(
        "[user]\nname = Tester\nemail = tester@example.org\n[init]\ndefaultBranch = main\n"
        "[advice]\ndetachedHead = false\n"
    )
    yield
    shutil.rmtree(runtime)
