"""The host file: what it may say, and how mistakes in it are told."""

from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_hooks.boot import host
from mirage_hooks.boot.errors import ConfigError, Error, HostError, RepositoryError
from mirage_hooks.boot.host import Host, HostNetwork, HostVolume, Limits, Secrets, Tenders


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
        '[limits]\ntargets = ["unix", "hvt"]\nmemory = 512\nimage = 64\nvcpus = 2\n'
        'domains = ["pvh"]\n'
        '[guest.www]\nuser = "www"\n[secrets.www]\nargs_file = "/etc/mirage/www.args"\n'
    )
    limits = Limits(("unix", "hvt"), memory=512, image=64, vcpus=2, domains=("pvh",))
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


def test_networks_volumes_and_tenders_are_bound_in_the_host_file() -> None:
    text = (
        'branch = "main"\n[networks.public]\nbridge = "xenbr0"\n'
        '[networks.ours]\nbridge = "br1"\ncreate = true\naddress = ["10.0.0.1/24", "fd00::1/64"]\n'
        '[networks.ready]\ntap = "tap0"\n'
        '[networks.inside]\nuser = true\nforward = ["127.0.0.1:8080:80"]\n'
        '[volumes.data]\npath = "/srv/data.img"\n[tenders]\nhvt = "/opt/solo5-hvt"\nkvm = false\n'
    )
    parsed = host.parse(text, "host.toml")
    assert parsed.networks == {
        "public": HostNetwork(bridge="xenbr0"),
        "ours": HostNetwork(bridge="br1", create=True, address=("10.0.0.1/24", "fd00::1/64")),
        "ready": HostNetwork(tap="tap0"),
        "inside": HostNetwork(user=True, forward=("127.0.0.1:8080:80",)),
    }
    assert parsed.volumes == {"data": HostVolume("/srv/data.img")}
    assert parsed.tenders == Tenders(hvt="/opt/solo5-hvt", kvm=False)


NETWORK_MISTAKES = [
    ("", "it has to have one of bridge, tap and user = true"),
    ('bridge = "br0"\ntap = "tap0"', "it has to have one of bridge, tap and user = true"),
    ('bridge = "br0"\nuser = true', "it has to have one of bridge, tap and user = true"),
    ("user = false", "it has to have one of bridge, tap and user = true"),
    ('bridge = ""', "'' cannot name a link: it has at most 15 characters"),
    ('bridge = "a-name-of-sixteen"', "cannot name a link: it has at most 15 characters"),
    ('tap = "a b"', "'a b' cannot name a link"),
    ('tap = "t0,script=/tmp/x"', "cannot name a link"),
    ('bridge = "../br0"', "'../br0' cannot name a link"),
    ('tap = "tap0"\ncreate = true', "create and address are for a bridge"),
    ('user = true\naddress = "10.0.0.1/24"', "create and address are for a bridge"),
    ('bridge = "br0"\ncreate = true', "create = true and address go together"),
    ('bridge = "br0"\naddress = "10.0.0.1/24"', "create = true and address go together"),
    ('bridge = "br0"\ncreate = true\naddress = "10.0.0.1"', "has no prefix"),
    ('bridge = "br0"\ncreate = true\naddress = "10.0.0.0/24"', "is that of the network"),
    ('bridge = "br0"\nforward = ["127.0.0.1:1:1"]', "forward is for user = true"),
    ('user = true\nforward = ["8080:80"]', "forward '8080:80': write it like"),
    ('user = true\nforward = ["127.0.0.300:80:80"]', "forward '127.0.0.300:80:80': write it like"),
    (
        'user = true\nforward = ["127.0.0.1:1:1", "tcp:127.0.0.1:1:2"]',
        "forward: tcp 127.0.0.1:1 is given more than once",
    ),
    ('bridge = "br0"\nvlan = 3', "unknown key 'vlan'"),
]


@pytest.mark.parametrize(("text", "message"), NETWORK_MISTAKES)
def test_a_mistake_in_a_network_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        host.parse(f'branch = "main"\n[networks.public]\n{text}\n', "host.toml")
    assert error.value.message.startswith("host.toml: networks public: ")
    assert message in error.value.message


def test_one_port_may_be_forwarded_for_each_protocol() -> None:
    HostNetwork(user=True, forward=("127.0.0.1:53:53", "udp:127.0.0.1:53:53"))


def test_no_network_has_the_name_of_the_hosts_own_sockets() -> None:
    with pytest.raises(ConfigError, match="networks host: that is the name of the host's own"):
        host.parse('branch = "main"\n[networks.host]\nbridge = "br0"\n', "host.toml")


# Each deploy would take the other's address away.
def test_a_bridge_is_made_for_one_network() -> None:
    made = 'bridge = "br0"\ncreate = true\naddress = '
    text = f'[networks.a]\n{made}"10.0.0.1/24"\n[networks.b]\n{made}"10.0.1.1/24"\n'
    with pytest.raises(ConfigError, match=r"^host\.toml: two networks create bridge br0"):
        host.parse(f'branch = "main"\n{text}', "host.toml")


@pytest.mark.parametrize(
    ("table", "key"),
    [("volumes.data", "path"), ("tenders", "hvt"), ("tenders", "spt"), ("tenders", "virtio")],
)
@pytest.mark.parametrize("path", ["", "relative", "~/a", "/a\nb"])
def test_a_file_of_the_hosts_is_named_by_its_whole_path(table: str, key: str, path: str) -> None:
    outer, _, inner = table.partition(".")
    text = tomlkit.dumps({"branch": "main", outer: {inner: {key: path}} if inner else {key: path}})
    with pytest.raises(ConfigError) as error:
        host.parse(text, "host.toml")
    assert error.value.message == (
        f"host.toml: {outer}{f' {inner}' if inner else ''}: {key} {path!r} has to be a whole path: "
        "one that starts with '/'"
    )


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
        "networks": VALUES
        | st.dictionaries(
            st.text(max_size=4),
            st.fixed_dictionaries(
                {},
                optional={
                    "bridge": st.just("br0") | VALUES,
                    "tap": VALUES,
                    "user": st.just(True) | VALUES,
                    "create": st.booleans(),
                    "address": st.just("10.0.0.1/24") | VALUES,
                    "forward": st.lists(st.text() | st.just("127.0.0.1:80:80"), max_size=2)
                    | VALUES,
                },
            ),
            max_size=2,
        ),
        "volumes": VALUES | st.dictionaries(st.text(max_size=4), VALUES, max_size=2),
        "tenders": VALUES,
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


# How it polls.


def test_a_poll_waits_a_minute_and_stops_at_another_history() -> None:
    bound = host.parse('branch = "main"\n', "host.toml")
    assert (bound.poll.seconds, bound.poll.upstream) == (60, "stop")


def test_a_fetch_is_bounded_by_whole_seconds() -> None:
    bound = host.parse('branch = "main"\n[poll]\ntimeout = "1200ms"\n', "host.toml")
    assert bound.poll.seconds == 2


@pytest.mark.parametrize("line", ['timeout = "0s"', 'timeout = "2h"', 'upstream = "ask"', "x = 1"])
def test_a_poll_that_cannot_be_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"host\.toml: poll"):
        host.parse(f'branch = "main"\n[poll]\n{line}\n', "host.toml")
