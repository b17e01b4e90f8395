"""Any text and any tables as `mirage-hooks.toml`: guests, or a message that says what is wrong."""

import time
import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mirage_hooks.boot import description, manifest
from mirage_hooks.boot.console import harmless
from mirage_hooks.boot.device import NetworkConfig
from mirage_hooks.boot.errors import ConfigError, Error
from mirage_hooks.boot.guest import NAME, Check, Guest, Restart, Target
from mirage_hooks.boot.host import Host, Limits
from strategies import NAMES, TEXT, VALUES, Objects, assert_told, examples, toml
from support import USER

TARGETS: tuple[Target, ...] = ("unix", "hvt", "spt", "virtio", "xen")
HOST = Host("main", user=USER, limits=Limits(targets=TARGETS))
Tables = dict[str, object]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """A repository whose objects are written by hand."""
    return Objects(tmp_path_factory.mktemp("repository") / "bare.git")


def read(objects: Objects, text: bytes, bound: Host = HOST) -> dict[str, Guest] | Error:
    """Return the guests of a manifest, or what it is refused with; nothing else may come of it."""
    revision = objects.files({description.NAME: text})
    try:
        return manifest.read_guests(revision, bound)
    except Error as error:
        assert_told(error)
        return error


def refusal(objects: Objects, tables: Tables, bound: Host = HOST) -> str:
    """Return the message that a manifest is refused with."""
    answer = read(objects, toml(tables).encode(), bound)
    assert isinstance(answer, ConfigError), answer
    return answer.message


# Guests as they may be described: the tables, and the value that they are to be read as.

DURATIONS = st.sampled_from(["1ms", "200ms", "0.5s", "1s", "3s", "1m"])
IMAGES = st.lists(
    st.sampled_from(["unix", "{latest}", "www-{latest}.unix", "www.unix.bz2", "a b", "ünï", "..."]),
    min_size=1,
    max_size=4,
).map("/".join)
# A port or an address of its own would be compared with those of other guests.
ARGUMENTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda text: text.isprintable() and not text.startswith("--")
) | st.sampled_from(["--logs=*:debug", "--hello=a b", '--quote="', "--verbose", "--"])


def optional(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[Tables]:
    """Return tables that have some of the keys."""
    return st.fixed_dictionaries({}, optional=fields)


NETWORKS = st.sampled_from(
    [
        {},
        {"network": "host"},
        {"baked": True},
        {"address": "127.0.0.2/8", "dhcp": False},
        {"address": "fd00::2/64"},
    ]
)
CHECKS = optional(
    alive=st.sampled_from(["0s", "100ms", "2s"]),
    tcp=st.sampled_from(["10.0.0.2:80", "[::1]:65535", "www.example.org:1"]),
    http=st.sampled_from(["http://10.0.0.2/", "https://[::1]:8443/ready?now=1"]),
    console=st.sampled_from(["ready", "^web:.*listening$", r"\d+ \u00fc"]),
    within=st.sampled_from(["2s", "30s", "15m"]),
    interval=st.sampled_from(["1ms", "0.25s", "2s"]),
)
RESTARTS = optional(
    on=st.sampled_from(["never", "failure", "always"]),
    limit=st.integers(1, 1000),
    window=DURATIONS,
)
DEVICES = st.from_regex(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,66}", fullmatch=True)
GUESTS = st.fixed_dictionaries(
    {"target": st.just("unix"), "image": IMAGES},
    optional={
        "memory": st.integers(1, 1024),
        "args": st.lists(ARGUMENTS, max_size=3),
        "network": st.dictionaries(DEVICES, NETWORKS, max_size=1),
        "check": CHECKS,
        "restart": RESTARTS,
    },
)
DESCRIBED = st.dictionaries(NAMES, GUESTS, min_size=1, max_size=3)


def built(name: str, table: Tables) -> Guest:
    """Return the guest that a table describes, built without a parser."""
    given_network, given_args = table.get("network", {}), table.get("args", [])
    check, restart = table.get("check", {}), table.get("restart", {})
    assert isinstance(given_network, dict)
    assert isinstance(given_args, list)
    assert isinstance(check, dict)
    assert isinstance(restart, dict)
    memory = table.get("memory", 32)
    assert isinstance(memory, int)
    return Guest(
        name=name,
        target="unix",
        image=str(table["image"]),
        memory=memory,
        args=tuple(given_args),
        network={device: NetworkConfig(**config) for device, config in given_network.items()},
        check=Check(**check),
        restart=Restart(**restart),
        user=USER,
    )


@examples(80)
@given(DESCRIBED)
def test_guests_that_may_be_are_read_as_they_were_written(
    objects: Objects, described: dict[str, Tables]
) -> None:
    expected = {name: built(name, table) for name, table in described.items()}
    assert read(objects, toml({"guest": described}).encode()) == expected


# Anything.

# The letters of TOML itself, and whole words of it: far in the parser, and no further.
TOMLISH = st.lists(
    st.sampled_from(
        [
            *"[]{}=.,#\"'\n\\ -+_",
            "[guest.",
            "www",
            "]\n",
            '"""',
            "'''",
            "0x",
            "1e",
            "nan",
            "true",
            "\\u0000",
            "\\uD800",
            "\\U00110000",
            "1979-05-27",
            "T07:32:00Z",
            "\r\n",
            "\ufeff",
            "é",
            'target = "unix"\n',
            'image = "www"\n',
            "memory = ",
            "args = [",
            "check.tcp = ",
        ]
    ),
    max_size=40,
).map("".join)


@examples(100)
@given(st.binary() | TOMLISH.map(str.encode) | st.text().map(str.encode))
@example(b"\xef\xbb\xbf[guest]")
@example(b"[guest]\nwww = [[[[[[" + b"[" * 5000)
@example(b"a = " + b"{a=" * 2000)
@example(b"guest.w.memory = 1" + b"0" * 5000)
@example(b"x" * ((1 << 20) + 1))
def test_any_bytes_are_guests_or_refused_by_the_name_of_the_file(
    objects: Objects, text: bytes
) -> None:
    answer = read(objects, text)
    if isinstance(answer, Error):
        assert answer.message.startswith(description.NAME)
    else:
        assert all(name == guest.name and NAME.match(name) for name, guest in answer.items())


SPOILT: st.SearchStrategy[Tables] = st.fixed_dictionaries(
    {},
    optional={
        "target": st.sampled_from(TARGETS) | VALUES,
        "image": IMAGES | VALUES,
        "memory": st.integers(-1, 2000) | VALUES,
        "args": st.lists(ARGUMENTS | TEXT | VALUES) | VALUES,
        "network": st.dictionaries(
            TEXT, NETWORKS | optional(address=VALUES, gateway=TEXT, dhcp=VALUES, other=VALUES)
        )
        | VALUES,
        "check": CHECKS | st.dictionaries(st.sampled_from(list(Check.__struct_fields__)), VALUES),
        "restart": RESTARTS | st.dictionaries(st.sampled_from(["on", "limit", "window"]), VALUES),
    },
)


@examples(80)
@given(
    st.fixed_dictionaries({"guest": st.dictionaries(NAMES | TEXT, SPOILT | GUESTS | VALUES)})
    | st.dictionaries(st.just("guest") | TEXT, VALUES)
)
def test_any_tables_are_guests_or_refused_by_the_name_of_the_file(
    objects: Objects, tables: Tables
) -> None:
    answer = read(objects, toml(tables).encode())
    if isinstance(answer, dict):
        assert set(answer) == set(tables.get("guest", {}))  # type: ignore[call-overload]
        assert set(tables) <= {"guest"}
    else:
        assert answer.message.startswith((f"{description.NAME} at ", "guests "))


@examples(60)
@given(DESCRIBED, SPOILT)
def test_the_one_guest_that_cannot_be_is_named(
    objects: Objects, described: dict[str, Tables], spoilt: Tables
) -> None:
    name = "the-one-guest"
    answer = read(objects, toml({"guest": {**described, name: spoilt}}).encode())
    if isinstance(answer, Error):
        assert f"guest {name}" in answer.message or f"guests {name}" in answer.message


@examples(60)
@given(TEXT, GUESTS)
def test_a_name_that_no_guest_can_have_is_shown(objects: Objects, name: str, table: Tables) -> None:
    assume(not NAME.match(name))
    message = refusal(objects, {"guest": {name: table}})
    assert harmless(repr(name)) in message
    assert "cannot name a guest" in message


# Keys.


@dataclass(frozen=True)
class Place:
    """Where in a guest's table a key stands, and what is known there."""

    path: tuple[str, ...]
    known: frozenset[str]


PLACES = [
    Place((), frozenset(Guest.__struct_fields__) - {"name", "user"}),
    Place(("check",), frozenset(Check.__struct_fields__)),
    Place(("restart",), frozenset(Restart.__struct_fields__)),
    Place(("network", "service"), frozenset(NetworkConfig.__struct_fields__)),
]


def within(table: Tables, path: tuple[str, ...]) -> Tables:
    """Return the table at a path of tables, made where it is not there yet."""
    for key in path:
        inner = table.setdefault(key, {})
        assert isinstance(inner, dict)
        table = inner
    return table


@examples(60)
@given(DESCRIBED, st.sampled_from(PLACES), TEXT, VALUES)
@example({}, PLACES[0], "name", "www")
@example({}, PLACES[0], "user", "root")
@example({}, PLACES[1], "at `$`", 1)
@example({}, PLACES[1], "x - at `y", 1)
def test_an_unknown_key_is_refused_wherever_it_stands(
    objects: Objects, described: dict[str, Tables], place: Place, key: str, value: object
) -> None:
    assume(key not in place.known)
    spoilt: Tables = {"target": "unix", "image": "www"}
    within(spoilt, place.path)[key] = value
    message = refusal(objects, {"guest": {**described, "the-one-guest": spoilt}})
    shown = {harmless(repr(key)), harmless(f"'{key}'".replace("`", "'"))}
    assert any(f"unknown key {one}" in message for one in shown), message
    assert message.startswith(f"{description.NAME} at ")
    assert "guest the-one-guest" in message
    assert all(word in message for word in place.path)


@examples(40)
@given(DESCRIBED, TEXT, VALUES)
def test_an_unknown_key_beside_the_guests_is_refused(
    objects: Objects, described: dict[str, Tables], key: str, value: object
) -> None:
    assume(key != "guest")
    message = refusal(objects, {"guest": described, key: value})
    assert f"unknown key {harmless(repr(key))}" in message


@examples(100)
@given(st.sampled_from(PLACES), st.data())
def test_a_value_of_the_wrong_kind_is_refused_by_its_key(
    objects: Objects, place: Place, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(place.known)))
    # No key anywhere takes a date, a fraction, or a list of lists.
    wrong: st.SearchStrategy[object] = st.dates() | st.floats(0.1, 0.9) | st.just([["a"]])
    table: Tables = {"target": "unix", "image": "www"}
    within(table, place.path)[key] = data.draw(wrong)
    message = refusal(objects, {"guest": {"www": table}})
    assert "guest www" in message
    assert key in message


# What costs much to read.


@pytest.mark.parametrize("key", ["memory", "restart.limit"])
@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "0o" + "7" * 9000, "0b" + "1" * 20_000])
def test_a_number_too_long_to_be_written_in_a_message_is_refused(
    objects: Objects, key: str, number: str
) -> None:
    # Python writes no number of more than 4300 digits, but reads one that is not decimal.
    text = f'[guest.www]\ntarget = "unix"\nimage = "www"\n{key} = {number}\n'
    answer = read(objects, text.encode())
    assert isinstance(answer, ConfigError)
    assert "guest www" in answer.message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" + ".a" * 30_000 + " = 1", id="a dotted key"),
        pytest.param("[a" + ".a" * 30_000 + "]", id="a dotted table"),
        pytest.param(("a" + ".a" * 500 + " = 1\n") * 100, id="many dotted keys"),
        pytest.param("[[a]]\n" * 20_000, id="many tables"),
        pytest.param('a = "' + "\\u0041" * 100_000 + '"', id="many escapes"),
    ],
)
def test_a_text_that_takes_its_parser_long_is_refused_soon(objects: Objects, text: str) -> None:
    began = time.process_time()
    assert isinstance(read(objects, text.encode()), Error)
    assert time.process_time() - began < 3


def test_as_many_addresses_as_ports_are_not_multiplied(objects: Objects) -> None:
    args = [f"--ipv4=10.0.{at // 200}.{at % 200}/8" for at in range(500)]
    args += [f"--port={at + 1}" for at in range(500)]
    text = f'[guest.www]\ntarget = "unix"\nimage = "www"\n{args = }\n'
    tracemalloc.start()
    try:
        read(objects, text.encode())
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_many_guests_on_one_port_are_told_apart_soon(objects: Objects) -> None:
    guests = "".join(
        f'[guest.w{at}]\ntarget = "unix"\nimage = "www"\n'
        f'args = ["--ipv4=10.0.{at // 200}.{at % 200}/8", "--port=80"]\n'
        for at in range(2000)
    )
    began = time.process_time()
    assert isinstance(answer := read(objects, guests.encode()), dict), answer
    assert time.process_time() - began < 3


# What the host adds.


@examples(60)
@given(
    st.dictionaries(st.sampled_from(["www", "api"]), GUESTS | SPOILT, max_size=2),
    st.dictionaries(st.sampled_from(["www", "api", "old"]) | TEXT, SPOILT | GUESTS, max_size=2),
)
def test_whatever_the_host_adds_there_are_guests_or_a_refusal_that_names_a_file(
    objects: Objects, described: dict[str, Tables], ours: dict[str, Tables]
) -> None:
    bound = Host("main", user=USER, limits=HOST.limits, guest=ours)
    answer = read(objects, toml({"guest": described}).encode(), bound)
    if isinstance(answer, Error):
        assert answer.message.startswith((description.NAME, "host.toml", "guests "))
    else:
        assert set(described) <= set(answer) <= set(described) | set(ours)


@examples(60)
@given(GUESTS, st.integers(1, 1024), st.lists(ARGUMENTS, max_size=3))
def test_the_hosts_word_takes_the_place_of_the_manifests_and_of_nothing_else(
    objects: Objects, table: Tables, memory: int, args: list[str]
) -> None:
    ours: Tables = {"memory": memory, "args": args}
    bound = Host("main", user=USER, guest={"www": ours})
    answer = read(objects, toml({"guest": {"www": table}}).encode(), bound)
    assert answer == {"www": built("www", {**table, **ours})}
