"""What property tests share: open input, and a repository whose objects are written by hand."""

import hashlib
import unicodedata
import zlib
from collections.abc import Iterable
from pathlib import Path

import git
import tomlkit
from hypothesis import settings
from hypothesis import strategies as st

from mirage_hooks.boot.errors import Error
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Revision
from support import run

# What a parser, a terminal, a path or a message may trip over, and then everything else.
AWKWARD = "\0\x1b\n\r\t\x7f\x85\u2028\u202e\u2066 ./\\-%:@[]{}'\"`=#$"
TEXT = st.text(st.sampled_from(AWKWARD) | st.characters(codec="utf-8"), max_size=12)
ANY_TEXT = TEXT | st.text(st.characters())  # lone surrogates, too: argv can hold them

# Every kind of value that TOML knows, and integers that 64 bit do not hold.
SCALARS = (
    st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**32, 2**63, 2**64, 2**200, -(2**64)])
    | st.floats()
    | TEXT
    | st.datetimes()
    | st.dates()
    | st.times()
)
VALUES: st.SearchStrategy[object] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)

NAMES = st.from_regex(r"[A-Za-z][-A-Za-z0-9_.]{0,99}", fullmatch=True)

FILE, PROGRAM, LINK, SUBMODULE, FOLDER = 0o100644, 0o100755, 0o120000, 0o160000, 0o040000

# Unicode's bidirectional controls: they turn the text around them, on every terminal.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def examples(count: int) -> settings:
    """Return settings with as many examples in the short profile, and more in a longer one."""
    profile = settings.get_current_profile_name()
    return settings(max_examples=count * settings.get_profile(profile).max_examples // 100)


def assert_told(error: Error) -> None:
    """Fail where what an error says is empty, or could steer a terminal."""
    assert error.message
    for text in (error.message, error.hint):
        steering = {char for char in text if unicodedata.category(char) == "Cc"} - {"\t"}
        assert not steering | (_TURNING & set(text)), text


def toml(tables: dict[str, object]) -> str:
    """Return tables as a TOML text."""
    return tomlkit.dumps(tables)


class Objects:
    """A bare repository whose objects are written by hand.

    That costs no process an object, and makes those, too, that git itself would not.
    """

    def __init__(self, folder: Path) -> None:
        run("git", "init", "-q", "--bare", str(folder), cwd=folder.parent)
        self._folder = folder / "objects"
        self.repository = Repository(folder)

    def write(self, kind: str, content: bytes) -> str:
        """Write a loose object; return its id."""
        data = f"{kind} {len(content)}\0".encode() + content
        oid = hashlib.sha1(data).hexdigest()
        path = self._folder / oid[:2] / oid[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(data, 1))
        return oid

    def blob(self, content: bytes) -> str:
        """Write a blob; return its id."""
        return self.write("blob", content)

    def tree(self, entries: Iterable[tuple[int, str, str]]) -> str:
        """Write a tree of modes, names and ids, in git's order; return its id."""
        # git compares a folder's name as if it ended in a slash.
        ordered = sorted(
            (name.encode() + b"/" * (mode == FOLDER), mode, name, oid)
            for mode, name, oid in entries
        )
        rows = (
            b"%o %s\0" % (mode, name.encode()) + bytes.fromhex(o) for _, mode, name, o in ordered
        )
        return self.write("tree", b"".join(rows))

    def revision(self, tree: str) -> Revision:
        """Write a commit of a tree; return the revision."""
        who = "Tester <tester@example.org> 0 +0000"
        text = f"tree {tree}\nauthor {who}\ncommitter {who}\n\nchange\n"
        return self.commit(text.encode())

    def commit(self, content: bytes) -> Revision:
        """Write a commit object as it is; return the revision."""
        oid = self.write("commit", content)
        return Revision(git.Commit(self.repository.git, bytes.fromhex(oid)))

    def files(self, contents: dict[str, bytes]) -> Revision:
        """Commit files, all of them at the root; return the revision."""
        return self.revision(
            self.tree((FILE, name, self.blob(data)) for name, data in contents.items())
        )
