"""Any bytes and any tables as the host file: a host, or one message that names the file."""

from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mirage_hooks.boot import host
from mirage_hooks.boot.console import harmless
from mirage_hooks.boot.errors import ConfigError, Error
from mirage_hooks.boot.host import Host, Limits
from strategies import NAMES, TEXT, VALUES, assert_told, examples, toml

Tables = dict[str, object]

BRANCHES = st.sampled_from(["main", "live/hosts", "ünï", "v1.2", "a-b_c@d", "HEAD"])
TARGETS = st.lists(st.sampled_from(["unix", "hvt", "spt", "virtio", "xen"]), max_size=5)
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "targets": TARGETS,
        "memory": st.integers(1, 2**40),
        "image": st.integers(1, 2**20),
        "vcpus": st.integers(1, 128),
        "domains": st.lists(st.sampled_from(["pv", "pvh", "hvm"]), max_size=3),
    },
)
# What a guest's table says is judged where the manifest is read: here it is taken as it is.
HOSTS: st.SearchStrategy[Tables] = st.fixed_dictionaries(
    {"branch": BRANCHES},
    optional={
        "user": TEXT,
        "limits": LIMITS,
        "guest": st.dictionaries(
            NAMES, st.dictionaries(TEXT, st.integers(0, 9) | TEXT, max_size=3), max_size=3
        ),
    },
)


def parse(text: str) -> Host | ConfigError:
    """Return a host file's text parsed, or what it is refused with; nothing else may come of it."""
    try:
        return host.parse(text, "host.toml")
    except ConfigError as error:
        assert_told(error)
        assert error.message.startswith("host.toml")
        return error


def refusal(tables: Tables) -> str:
    """Return the message that tables are refused with."""
    answer = parse(toml(tables))
    assert isinstance(answer, ConfigError), answer
    return answer.message


@examples(100)
@given(HOSTS)
def test_a_host_that_may_be_is_read_as_it_was_written(tables: Tables) -> None:
    limits, user, guest = tables.get("limits", {}), tables.get("user"), tables.get("guest", {})
    assert isinstance(limits, dict)
    assert isinstance(guest, dict)
    for key in {"targets", "domains"} & limits.keys():
        limits = {**limits, key: tuple(limits[key])}
    expected = Host(
        str(tables["branch"]),
        user=None if user is None else str(user),
        limits=Limits(**limits),
        guest=guest,
    )
    assert parse(toml(tables)) == expected


@examples(100)
@given(HOSTS, st.sampled_from([(), ("limits",)]), TEXT, VALUES)
@example({"branch": "main"}, (), "x - at `y", 1)
@example({"branch": "main"}, ("limits",), "`", 1)
def test_an_unknown_key_is_refused_wherever_it_stands(
    tables: Tables, path: tuple[str, ...], key: str, value: object
) -> None:
    assume(key not in {"branch", "user", "limits", "guest", *Limits.__struct_fields__})
    inner: Tables = tables
    for name in path:
        found = inner.setdefault(name, {})
        assert isinstance(found, dict)
        inner = found
    inner[key] = value
    message = refusal(tables)
    shown = harmless(f"unknown key '{key}'".replace("`", "'"))
    assert message == ": ".join(["host.toml", *path, shown])


@examples(100)
@given(HOSTS, st.dictionaries(st.sampled_from(["branch", "user", "limits", "guest"]), VALUES))
def test_any_values_are_a_host_or_refused(tables: Tables, spoilt: Tables) -> None:
    answer = parse(toml({**tables, **spoilt}))
    if isinstance(answer, Host):
        assert answer.branch == {**tables, **spoilt}["branch"]


@examples(100)
@given(HOSTS.map(toml), st.data())
def test_a_host_file_with_something_written_into_it_is_a_host_or_refused(
    text: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(at, min(len(text), at + 4)))
    parse(text[:at] + data.draw(TEXT) + text[end:])


@examples(60)
@given(st.binary(max_size=60) | HOSTS.map(toml).map(str.encode))
@example(b"\xef\xbb\xbfbranch = 'main'")
@example("branch = 'm\u00e4in'".encode("latin-1"))
def test_any_bytes_in_the_file_are_a_host_or_refused_by_its_path(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "any" / host.NAME
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        _, found = host.load(path)
    except Error as error:
        assert_told(error)
        assert error.message.startswith(str(path))
    else:
        assert found == data


@examples(100)
@given(st.text(st.characters(codec="utf-8"), max_size=8) | st.text("/.@{}-~^:a", max_size=6))
def test_every_branch_that_git_would_take_is_taken_and_no_revision_is(branch: str) -> None:
    # git-check-ref-format(1), rule by rule.
    parts = branch.split("/")
    operator = any(sign in branch for sign in ("~", "^", ":", "..", "@{")) or branch[:1] == "-"
    taken_by_git = (
        not operator
        and not any(part.startswith(".") or part.endswith(".lock") for part in parts)
        and not any(char <= " " or char in "\x7f?*[\\" for char in branch)
        and "" not in parts
        and not branch.endswith(".")
    )
    taken = isinstance(parse(toml({"branch": branch})), Host)
    assert not (taken_by_git and not taken)
    assert not (operator and taken)
