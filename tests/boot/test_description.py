"""What a manifest may say, and how what it may not is told."""

from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import ALL_TARGETS, HOST, WWW, Read, Refusal, commit
from mirage_hooks.boot import description, host, manifest
from mirage_hooks.boot.device import NetworkConfig
from mirage_hooks.boot.errors import ConfigError, RepositoryError
from mirage_hooks.boot.guest import Check, Guest, Restart
from mirage_hooks.boot.host import Host
from support import USER

# What a manifest says.


def test_a_guest_is_a_target_and_an_image(read: Read) -> None:
    assert read(WWW) == {"www": Guest(name="www", target="unix", image="www.unix", user=USER)}


def test_a_guest_says_all_that_it_may(read: Read) -> None:
    text = f"""{WWW}
memory = 64
args = ["--port=80"]
[guest.www.network.service]
address = "127.0.0.2/8"
[guest.www.check]
tcp = "127.0.0.2:80"
within = "5s"
[guest.www.restart]
on = "always"
limit = 3
"""
    assert read(text)["www"] == Guest(
        name="www",
        target="unix",
        image="www.unix",
        memory=64,
        args=("--port=80",),
        network={"service": NetworkConfig(address="127.0.0.2/8")},
        check=Check(tcp="127.0.0.2:80", within="5s"),
        restart=Restart(on="always", limit=3),
        user=USER,
    )


def test_a_manifest_can_have_no_guest(read: Read) -> None:
    assert read("") == {}


def test_a_revision_without_a_manifest_has_no_guest(folder: Path) -> None:
    assert manifest.read_guests(commit(folder, None), HOST) == {}


def test_a_host_can_describe_a_whole_guest_where_there_is_no_manifest(folder: Path) -> None:
    bound = Host("main", user=USER, guest={"www": {"target": "unix", "image": "www.unix"}})
    guests = manifest.read_guests(commit(folder, None), bound)
    assert guests == {"www": Guest(name="www", target="unix", image="www.unix", user=USER)}


def test_the_hosts_word_on_a_guest_comes_before_the_manifests(read: Read) -> None:
    bound = Host("main", user=USER, guest={"www": {"memory": 16}})
    assert read(f"{WWW}memory = 64\n", bound)["www"].memory == 16


def test_a_guest_removed_from_a_manifest_is_gone_though_the_host_has_a_word_on_it(
    read: Read,
) -> None:
    bound = Host("main", user=USER, guest={"old": {"memory": 16}})
    assert set(read(WWW, bound)) == {"www"}


# Mistakes, told by file, guest and key.


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("memroy = 1", "guest www: unknown key 'memroy'"),
        ('memory = "32"', "guest www memory: Expected 'int', got 'str'"),
        ("memory = 32.5", "guest www memory: Expected 'int', got 'float'"),
        ("memory = true", "guest www memory: Expected 'int', got 'bool'"),
        ("memory = 0", "guest www: memory is in MiB and has to be at least 1"),
        ('args = "--port=80"', "guest www args: Expected 'array', got 'str'"),
        ("args = [80]", "guest www args[0]: Expected 'str', got 'int'"),
        ('args = [""]', "guest www: argument '' is empty or holds a control character"),
        (r'args = ["a\nb"]', r"guest www: argument 'a\nb' is empty or holds a control character"),
        ("check = 1", "guest www check: Expected 'object', got 'int'"),
        ('check = {htp = "x"}', "guest www check: unknown key 'htp'"),
        ("check = {within = 5}", "guest www check within: Expected 'str', got 'int'"),
        (
            'check = {within = "soon"}',
            "guest www check: 'soon' is no duration: write it like '200ms', '10s' or '5m'",
        ),
        ("restart = []", "guest www restart: Expected 'object', got 'array'"),
        ("restart = {max = 1}", "guest www restart: unknown key 'max'"),
        ('restart = {limit = "5"}', "guest www restart limit: Expected 'int', got 'str'"),
        ('restart = {on = "crash"}', "guest www restart on: Invalid enum value 'crash'"),
        ("network = 1", "guest www: network has to be a table"),
        ("network.service = 1", "guest www: network service: it has to be a table"),
        ("network.service.ip = 1", "guest www: network service: unknown key 'ip'"),
        (
            "network.service.address = 1",
            "guest www: network service address: Expected 'str | array | null', got 'int'",
        ),
        (
            'network.service.address = "127.0.0.2"',
            "guest www: network service: address '127.0.0.2' has no prefix: write it like "
            "'10.0.0.2/24'",
        ),
    ],
)
def test_a_mistake_is_told_by_guest_and_key(refusal: Refusal, addition: str, message: str) -> None:
    assert refusal(f"{WWW}{addition}\n") == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("guests = 1", "unknown key 'guests'"),
        ("[defaults]\nmemory = 1", "unknown key 'defaults'"),
        ("guest = 1", "guest has to be a table"),
        ("[[guest]]\nname = 'www'", "guest has to be a table"),
        ("guest.www = 1", "guest www: it has to be a table"),
        ("[guest.www]", "guest www: Object missing required field 'target'"),
        (
            '[guest.www]\ntarget = "unix"',
            "guest www: Object missing required field 'image'",
        ),
        (
            '[guest.www]\ntarget = "vax"\nimage = "x"',
            "guest www target: Invalid enum value 'vax'",
        ),
    ],
)
def test_a_mistake_at_the_top_is_told(refusal: Refusal, text: str, message: str) -> None:
    assert refusal(text) == message


def test_a_mistake_of_the_host_about_a_guest_of_the_manifest_is_told_as_the_hosts(
    folder: Path,
) -> None:
    bound = Host("main", user=USER, guest={"www": {"memroy": 16}})
    revision = commit(folder, WWW)
    with pytest.raises(ConfigError) as error:
        manifest.read_guests(revision, bound)
    assert error.value.message == "host.toml: guest www: unknown key 'memroy'"


def test_a_mistake_of_the_host_about_a_guest_of_its_own_is_told_as_the_hosts(folder: Path) -> None:
    table: dict[str, object] = {"target": "unix", "image": "www.unix", "memory": "16"}
    revision = commit(folder, None)
    with pytest.raises(ConfigError) as error:
        manifest.read_guests(revision, Host("main", user=USER, guest={"www": table}))
    assert error.value.message == "host.toml: guest www memory: Expected 'int', got 'str'"


def test_a_manifest_that_is_no_toml_is_refused(folder: Path) -> None:
    revision = commit(folder, "[guest")
    with pytest.raises(ConfigError, match=f"at {revision.id[:7]} is no valid TOML"):
        manifest.read_guests(revision, HOST)


def test_a_manifest_that_is_no_text_is_refused(folder: Path) -> None:
    revision = commit(folder, None, {description.NAME: b"\xff"})
    with pytest.raises(RepositoryError, match=r"mirage-hooks\.toml is not UTF-8 text"):
        manifest.read_guests(revision, HOST)


def test_a_manifest_beyond_a_mebibyte_is_refused(folder: Path) -> None:
    revision = commit(folder, "#" * (2**20 + 1))
    with pytest.raises(RepositoryError, match=r"mirage-hooks\.toml has 1048577 bytes, more than"):
        manifest.read_guests(revision, HOST)


def test_a_manifest_that_is_a_symbolic_link_is_refused(folder: Path) -> None:
    (folder / description.NAME).symlink_to("/etc/hostname")
    revision = commit(folder, None)
    with pytest.raises(RepositoryError, match=r"mirage-hooks\.toml is a symbolic link, no file"):
        manifest.read_guests(revision, HOST)


def test_a_manifest_that_is_a_folder_is_refused(folder: Path) -> None:
    revision = commit(folder, None, {f"{description.NAME}/x": b""})
    with pytest.raises(RepositoryError, match=r"mirage-hooks\.toml is a folder, no file"):
        manifest.read_guests(revision, HOST)


# Names.


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../www", "a/b", "/a", "-a", "--help", "a\0b", "a\n", "a b", "1a", "é"]
)
def test_a_guest_with_a_name_that_cannot_be_is_refused(refusal: Refusal, name: str) -> None:
    table = {"guest": {name: {"target": "unix", "image": "www.unix"}}}
    assert refusal(tomlkit.dumps(table)).startswith(f"{name!r} cannot name a guest")


def test_a_guest_of_the_hosts_with_a_name_that_cannot_be_is_refused(folder: Path) -> None:
    revision = commit(folder, None)
    table: dict[str, object] = {"target": "unix", "image": "x"}
    with pytest.raises(ConfigError, match=r"^host\.toml: '\.\.' cannot name a guest"):
        manifest.read_guests(revision, Host("main", user=USER, guest={"..": table}))


def test_a_guest_cannot_name_itself(refusal: Refusal) -> None:
    assert refusal(f'{WWW}name = "other"\n') == "guest www: unknown key 'name'"


ESCAPES = r"\u001b[2J\n\u0007"


@pytest.mark.parametrize(
    "text",
    [
        f'[guest."{ESCAPES}"]\nuser = "x"\n',
        f'guest."{ESCAPES}" = 1\n',
        f'{WWW}"{ESCAPES}" = 1\n',
        f'{WWW}check."{ESCAPES}" = 1\n',
        f'{WWW}network."{ESCAPES}" = 1\n',
        f'{WWW}network."{ESCAPES}".network = "x"\n',
        f'[guest.www]\ntarget = "{ESCAPES}"\nimage = "x"\n',
        f'[guest.www]\ntarget = "unix"\nimage = "{ESCAPES}"\n',
    ],
    ids=["name", "no table", "key", "key of check", "device", "network", "target", "image"],
)
def test_no_control_character_of_a_manifest_reaches_a_message(refusal: Refusal, text: str) -> None:
    assert refusal(text).isprintable()


# What only the host may say.


def test_a_manifest_cannot_say_who_runs_a_guest(refusal: Refusal) -> None:
    assert refusal(f'{WWW}user = "root"\n') == "guest www: unknown key 'user'"


def test_who_refuses_a_user_in_the_manifest_says_where_it_belongs(folder: Path) -> None:
    revision = commit(folder, f'{WWW}user = "root"\n')
    with pytest.raises(ConfigError) as error:
        manifest.read_guests(revision, HOST)
    assert error.value.hint == "the host says that, in [guest.www] of its host.toml"


# Anything.


@pytest.mark.parametrize(
    "addition",
    [
        pytest.param('args = ["--port=' + "9" * 5000 + '"]', id="port"),
        pytest.param("memory = " + "9" * 5000, id="memory"),
        pytest.param('check.tcp = "127.0.0.1:' + "9" * 5000 + '"', id="check"),
        pytest.param('check.within = "' + "9" * 5000 + 'h"', id="duration"),
        pytest.param('check.console = "a{' + "9" * 20 + '}"', id="console"),
        pytest.param("x = " + "[" * 5000, id="arrays"),
        pytest.param('network.service.address = "' + "9" * 5000 + '/8"', id="address"),
    ],
)
def test_a_manifest_that_goes_too_far_is_refused(folder: Path, addition: str) -> None:
    revision = commit(folder, f"{WWW}{addition}\n")
    with pytest.raises(ConfigError):
        manifest.read_guests(revision, HOST)


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        TEXT,
        st.dates(),
        st.times(),
        st.datetimes(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def table(**keys: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return tables with some of the keys, each sound or anything; rarely something else."""
    optional = {name: sound | VALUES for name, sound in keys.items()}
    return st.fixed_dictionaries({}, optional={**optional, "other": VALUES}) | VALUES


DURATIONS = st.sampled_from(["0s", "10ms", "2s", "10s", "1h"])
ADDRESSES = st.builds("{}/{}".format, st.ip_addresses(), st.integers(0, 128))
ARGS = st.sampled_from(["--port=80", "--port=99999", "--ipv4=127.0.0.2/8", "--ipv4=x", "a b"])
NETWORK = table(
    network=st.just("host"),
    address=ADDRESSES,
    gateway=ADDRESSES,
    dhcp=st.booleans(),
    baked=st.booleans(),
)
GUEST = st.fixed_dictionaries(
    {
        "target": st.just("unix") | st.sampled_from(["hvt", "xen"]) | VALUES,
        "image": st.just("{latest}/www") | VALUES,
    },
    optional={
        "memory": st.integers(-1, 2000) | VALUES,
        "args": st.lists(ARGS | TEXT, max_size=3) | VALUES,
        "network": st.dictionaries(st.just("service") | TEXT, NETWORK, max_size=2) | VALUES,
        "check": table(
            alive=DURATIONS,
            tcp=st.just("127.0.0.1:80"),
            http=st.just("http://127.0.0.1/"),
            console=st.just("up"),
            within=DURATIONS,
            interval=DURATIONS,
        ),
        "restart": table(on=st.just("always"), limit=st.integers(-1, 9), window=DURATIONS),
    },
)
GUESTS = st.dictionaries(st.sampled_from(["www", "api"]) | TEXT, GUEST | VALUES, max_size=3)


def test_any_tables_are_guests_or_refused(folder: Path) -> None:
    @settings(max_examples=100, deadline=None)
    @given(st.fixed_dictionaries({"guest": GUESTS}) | st.dictionaries(TEXT, VALUES, max_size=2))
    def property_holds(tables: dict[str, object]) -> None:
        revision = commit(folder, tomlkit.dumps(tables))
        try:
            guests = manifest.read_guests(revision, Host("main", user=USER, limits=ALL_TARGETS))
        except ConfigError as error:
            assert error.message
            return
        assert all(isinstance(guest, Guest) for guest in guests.values())

    property_holds()


def test_any_word_of_the_host_on_a_guest_is_taken_or_refused(folder: Path) -> None:
    revision = commit(folder, WWW)

    @settings(max_examples=100, deadline=None)
    @given(st.dictionaries(st.sampled_from(["memory", "user", "args", "check"]) | TEXT, VALUES))
    def property_holds(words: dict[str, object]) -> None:
        file = {"branch": "main", "guest": {"www": words}, **({"user": USER} if USER else {})}
        try:
            bound = host.parse(tomlkit.dumps(file), host.NAME)
            guests = manifest.read_guests(revision, bound)
        except ConfigError as error:
            assert error.message
            return
        assert set(guests) == {"www"}

    property_holds()
