"""The host file: what it may say, and how mistakes in it are told."""

from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_hooks.boot import host
from mirage_hooks.boot.errors import ConfigError, Error, HostError, RepositoryError
from mirage_hooks.boot.host import Host, Limits, Secrets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the host file of a repository is."""
    folder = tmp_path / "repository" / "mirage-hooks"
    folder.mkdir(mode=0o700, parents=True)
    return folder / host.NAME


def test_a_branch_is_all_a_host_file_needs() -> None:
    assert host.parse('branch = "main"\n', "host.toml") == Host("main")


def test_a_host_runs_unix_guests_only_where_nothing_else_is_said() -> None:
    assert host.parse('branch = "main"\n', "host.toml").limits.targets == ("unix",)


def test_a_host_file_says_all_that_it_may() -> None:
    text = (
        'branch = "live"\nuser = "mirage"\nguests = ["www"]\nkeep = 5\n'
        '[limits]\ntargets = ["unix", "hvt"]\nmemory = 512\nimage = 64\n'
        '[guest.www]\nuser = "www"\n[secrets.www]\nargs_file = "/etc/mirage/www.args"\n'
    )
    limits = Limits(targets=("unix", "hvt"), memory=512, image=64)
    expected = Host(
        "live",
        user="mirage",
        guests=("www",),
        keep=5,
        limits=limits,
        guest={"www": {"user": "www"}},
        secrets={"www": Secrets("/etc/mirage/www.args")},
    )
    assert host.parse(text, "host.toml") == expected


def test_a_host_file_without_a_branch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^host\.toml: .*'branch'"):
        host.parse("", "host.toml")


@pytest.mark.parametrize("branch", ["", "-d", "--all", "a\nb", "a\0b", "a\tb"])
def test_what_is_no_branch_is_refused(branch: str) -> None:
    with pytest.raises(ConfigError, match=r"^host\.toml: branch .* is no branch"):
        host.parse(tomlkit.dumps({"branch": branch}), "host.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("branch = 1", "host.toml: branch: Expected 'str', got 'int'"),
        ('branch = "a"\nuser = 1', "host.toml: user: Expected 'str | null', got 'int'"),
        (
            'branch = "a"\nkeep = 0',
            "host.toml: keep has to be at least 1: a failed deploy goes back to what was healthy",
        ),
        ('branch = "a"\nbranches = 1', "host.toml: unknown key 'branches'"),
        ('branch = "a"\nlimits = 1', "host.toml: limits: Expected 'object', got 'int'"),
        ('branch = "a"\n[limits]\ncpus = 1', "host.toml: limits: unknown key 'cpus'"),
        (
            'branch = "a"\n[limits]\nmemory = "1"',
            "host.toml: limits memory: Expected 'int', got 'str'",
        ),
        (
            'branch = "a"\n[limits]\ntargets = "unix"',
            "host.toml: limits targets: Expected 'array', got 'str'",
        ),
        (
            'branch = "a"\n[limits]\ntargets = ["vax"]',
            "host.toml: limits targets[0]: Invalid enum value 'vax'",
        ),
        ('branch = "a"\nguest = 1', "host.toml: guest has to be a table"),
        ('branch = "a"\nguest.www = 1', "host.toml: guest www: it has to be a table"),
        ('branch = "a"\nguests = "www"', "host.toml: guests: Expected 'array | null', got 'str'"),
        ('branch = "a"\nsecrets = 1', "host.toml: secrets has to be a table"),
        ('branch = "a"\nsecrets.www = 1', "host.toml: secrets www: it has to be a table"),
        ('branch = "a"\nsecrets.www.arg = 1', "host.toml: secrets www: unknown key 'arg'"),
        (
            'branch = "a"\nsecrets.www.args_file = "www.args"',
            "host.toml: secrets www: args_file 'www.args' has to be a whole path: "
            "one that starts with '/'",
        ),
    ],
)
def test_a_mistake_is_told_by_file_table_and_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        host.parse(text, "host.toml")
    assert error.value.message == message


@pytest.mark.parametrize("path", ["", "~/www.args", "/a\0b", "/a\nb"])
def test_what_is_no_whole_path_is_refused_for_secrets(path: str) -> None:
    text = tomlkit.dumps({"branch": "main", "secrets": {"www": {"args_file": path}}})
    with pytest.raises(ConfigError, match=r"secrets www: args_file .* has to be a whole path"):
        host.parse(text, "host.toml")


@pytest.mark.parametrize("name", ["", "..", "-www", "a/b"])
def test_what_cannot_name_a_guest_is_not_chosen(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^host\.toml: '.*' cannot name a guest"):
        host.parse(tomlkit.dumps({"branch": "main", "guests": [name]}), "host.toml")


@pytest.mark.parametrize(
    ("chosen", "selected"), [(None, True), ((), False), (("api",), False), (("api", "www"), True)]
)
def test_a_host_selects_what_it_chooses_or_all(
    chosen: tuple[str, ...] | None, selected: bool
) -> None:
    assert Host("main", guests=chosen).selects("www") is selected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
).filter(lambda value: "None" not in repr(value))
HOSTS = st.fixed_dictionaries(
    {},
    optional={
        "branch": st.just("main") | VALUES,
        "user": st.text() | VALUES,
        "limits": VALUES
        | st.fixed_dictionaries(
            {}, optional={"targets": VALUES, "memory": VALUES, "image": VALUES, "other": VALUES}
        ),
        "guest": VALUES,
        "guests": VALUES,
        "secrets": VALUES
        | st.dictionaries(
            st.text(max_size=4),
            st.fixed_dictionaries({"args_file": st.text() | VALUES}),
            max_size=2,
        ),
        "other": VALUES,
    },
)


@settings(max_examples=150, deadline=None)
@given(HOSTS)
def test_any_tables_are_a_host_or_refused(tables: dict[str, object]) -> None:
    text = tomlkit.dumps(tables)
    try:
        parsed = host.parse(text, "host.toml")
    except ConfigError as error:
        assert error.message.startswith("host.toml")
        return
    assert parsed.branch == tables["branch"]


def test_a_host_file_is_handed_on_with_its_bytes_as_they_were_read(path: Path) -> None:
    path.write_bytes(b'branch = "main" # ours\r\n')
    assert host.load(path) == (Host("main"), b'branch = "main" # ours\r\n')


def test_without_a_host_file_mirage_hooks_is_not_installed(path: Path) -> None:
    with pytest.raises(RepositoryError) as error:
        host.load(path)
    assert error.value.message == f"not installed in {path.parent.parent}"
    assert error.value.hint == "run: mirage-hooks install"


def test_without_a_state_folder_mirage_hooks_is_not_installed(path: Path) -> None:
    path.parent.rmdir()
    with pytest.raises(RepositoryError, match="not installed"):
        host.load(path)


def test_a_host_file_that_cannot_be_read_is_a_fault_of_the_host(path: Path) -> None:
    path.mkdir()
    with pytest.raises(HostError, match="cannot be read: Is a directory"):
        host.load(path)


def test_a_host_file_that_is_no_text_is_refused(path: Path) -> None:
    path.write_bytes(b'branch = "\xff"')
    with pytest.raises(ConfigError, match=r"host\.toml is not UTF-8 text"):
        host.load(path)


def test_a_mistake_in_a_host_file_is_told_by_its_path(path: Path) -> None:
    path.write_text('branch = "main"\nother = 1\n')
    with pytest.raises(ConfigError) as error:
        host.load(path)
    assert error.value.message == f"{path}: unknown key 'other'"


def test_a_host_file_that_others_may_write_is_refused(path: Path) -> None:
    path.parent.chmod(0o755)
    path.write_text('branch = "main"\n')
    path.chmod(0o666)
    with pytest.raises(Error, match="written by everybody"):
        host.load(path)
