"""The desired state: what a manifest may say, and how what it may not is told."""

import gzip
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_hooks.boot import admission, description, host, manifest
from mirage_hooks.boot.artifact import Missing
from mirage_hooks.boot.desired import DesiredState
from mirage_hooks.boot.device import NetworkConfig
from mirage_hooks.boot.errors import ConfigError, Error, ImageError, RepositoryError
from mirage_hooks.boot.guest import Boot, Check, Domain, Guest, Restart
from mirage_hooks.boot.host import Host, Limits, Secrets
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Revision
from mirage_hooks.boot.secrets import Vault
from mirage_hooks.boot.store import Store
from support import USER, run

HOST = Host("main", user=USER)
WWW = '[guest.www]\ntarget = "unix"\nimage = "www.unix"\n'
API = '[guest.api]\ntarget = "unix"\nimage = "api.unix"\n'
ALL_TARGETS = Limits(targets=("unix", "hvt", "spt", "virtio", "xen"))


def desired_at(revision: Revision, bound: Host, store: Store, vault: Vault) -> DesiredState:
    return manifest.read(revision, bound, store, vault, "0123456789ab")


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs guests as other users")
user_only = pytest.mark.skipif(os.geteuid() == 0, reason="root may run guests as any user")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that takes images of 1 MiB."""
    return Store(tmp_path / "store", 1 << 20)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """A vault with nothing in it yet."""
    return Vault(tmp_path / "secrets")


def commit(folder: Path, text: str | None, files: dict[str, bytes] | None = None) -> Revision:
    """Commit a manifest, and files by their paths; return the revision."""
    contents = {**({description.NAME: text.encode()} if text is not None else {}), **(files or {})}
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "--allow-empty", "-m", "change", cwd=folder)
    return Repository(folder).tip("main")


@pytest.fixture
def read(folder: Path) -> Callable[..., dict[str, Guest]]:
    """Return a function that reads the guests of a manifest's text on a host."""

    def read_guests(text: str, bound: Host = HOST) -> dict[str, Guest]:
        return manifest.read_guests(commit(folder, text), bound)

    return read_guests


@pytest.fixture
def refusal(folder: Path) -> Callable[..., str]:
    """Return a function that gives the message a manifest's text is refused with.

    What names the file and the revision is taken off.
    """

    def refuse(text: str, bound: Host = HOST) -> str:
        revision = commit(folder, text)
        with pytest.raises(ConfigError) as error:
            manifest.read_guests(revision, bound)
        source = f"mirage-hooks.toml at {revision.id[:7]}: "
        assert error.value.message.startswith(source)
        return error.value.message.removeprefix(source)

    return refuse


Read = Callable[..., dict[str, Guest]]
Refusal = Callable[..., str]


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


# What only the host may say, and its limits.


def test_a_manifest_cannot_say_who_runs_a_guest(refusal: Refusal) -> None:
    assert refusal(f'{WWW}user = "root"\n') == "guest www: unknown key 'user'"


def test_who_refuses_a_user_in_the_manifest_says_where_it_belongs(folder: Path) -> None:
    revision = commit(folder, f'{WWW}user = "root"\n')
    with pytest.raises(ConfigError) as error:
        manifest.read_guests(revision, HOST)
    assert error.value.hint == "the host says that, in [guest.www] of its host.toml"


def test_memory_up_to_the_hosts_limit_is_taken(read: Read) -> None:
    bound = Host("main", user=USER, limits=Limits(memory=64))
    assert read(f"{WWW}memory = 64\n", bound)["www"].memory == 64


@pytest.mark.parametrize("memory", [65, 2**31, 2**63, 10**30])
def test_memory_above_the_hosts_limit_is_refused(refusal: Refusal, memory: int) -> None:
    bound = Host("main", user=USER, limits=Limits(memory=64))
    message = f"guest www: memory {memory} MiB is more than this host allows (64)"
    assert refusal(f"{WWW}memory = {memory}\n", bound) == message


@pytest.mark.parametrize("target", ["hvt", "spt", "virtio", "xen"])
def test_a_target_that_the_host_does_not_allow_is_refused(refusal: Refusal, target: str) -> None:
    text = f'[guest.www]\ntarget = "{target}"\nimage = "x"\n'
    assert refusal(text) == f"guest www: target {target} is not allowed on this host"


def test_a_guest_is_refused_where_the_host_allows_another_target_only(refusal: Refusal) -> None:
    bound = Host("main", user=USER, limits=Limits(targets=("hvt",)))
    assert refusal(WWW, bound) == "guest www: target unix is not allowed on this host"


XEN = '[guest.www]\ntarget = "xen"\nimage = "x"\n[guest.www.domain]\n'


def test_a_domain_has_one_vcpu_where_the_host_says_nothing(refusal: Refusal) -> None:
    bound = Host("main", user=USER, limits=Limits(targets=("xen",)))
    message = "guest www: vcpus 2 is more than this host allows (1)"
    assert refusal(f"{XEN}vcpus = 2\n", bound) == message


def test_a_domain_for_hvm_is_refused_where_the_host_says_nothing(refusal: Refusal) -> None:
    bound = Host("main", user=USER, limits=Limits(targets=("xen",)))
    message = "guest www: a domain of type hvm is not allowed on this host"
    assert refusal(f'{XEN}type = "hvm"\n', bound) == message


def test_a_domain_may_be_what_the_host_allows(read: Read) -> None:
    limits = Limits(targets=("xen",), vcpus=2, domains=("hvm",))
    bound = Host("main", user=USER, limits=limits)
    found = read(f'{XEN}vcpus = 2\ntype = "hvm"\n', bound)["www"]
    assert found.domain == Domain(type="hvm", vcpus=2)


def test_a_template_asks_for_no_more_than_the_host_allows(folder: Path) -> None:
    text = '[guest.www]\ntarget = "xen"\nimage = "x"\ntemplate = "xl.conf.in"\n'
    revision = commit(folder, text, {"xl.conf.in": b"type = 'hvm'"})
    with pytest.raises(ConfigError, match="type hvm is not allowed on this host"):
        manifest.read_guests(revision, Host("main", user=USER, limits=Limits(targets=("xen",))))


def test_a_recorded_domain_is_refused_whose_type_the_host_allows_no_more() -> None:
    bound = Host("main", limits=Limits(targets=("xen",), domains=("pvh",)))
    with pytest.raises(ConfigError, match="type pv is not allowed on this host"):
        admission.admit(Boot(target="xen", image="x", domain=Domain(type="pv")), bound)


@root_only
def test_root_does_not_run_a_guest_as_root(refusal: Refusal) -> None:
    message = "guest www: a unix guest is native code, and root does not run it as root"
    assert refusal(WWW, Host("main")) == message


@root_only
def test_a_user_named_for_the_guest_alone_is_enough_for_root(read: Read) -> None:
    assert read(WWW, Host("main", guest={"www": {"user": "nobody"}}))["www"].user == "nobody"


@root_only
def test_a_user_named_for_the_guest_comes_before_the_one_for_all(read: Read) -> None:
    bound = Host("main", user="daemon", guest={"www": {"user": "nobody"}})
    assert read(WWW, bound)["www"].user == "nobody"


@user_only
def test_a_guest_runs_as_who_runs_mirage_hooks_where_that_is_not_root(read: Read) -> None:
    assert read(WWW, Host("main"))["www"].user is None


@user_only
def test_another_user_can_be_named_only_where_root_runs_the_guests(refusal: Refusal) -> None:
    message = "guest www: user 'root' can be given only where root runs the guests"
    assert refusal(WWW, Host("main", user="root")) == message


@pytest.mark.parametrize("user", ["no-such-user", "", "a b", "0", "a\0b", "a\nb"])
def test_a_user_that_does_not_exist_is_refused(refusal: Refusal, user: str) -> None:
    message = f"guest www: user {user!r} does not exist on this host"
    assert refusal(WWW, Host("main", user=user)) == message


# Images and networks.


@pytest.mark.parametrize("image", ["", "/bin/true", "../x", "a/../b", "./x", "a//b", "x/", ".."])
def test_an_image_outside_the_repository_is_refused(refusal: Refusal, image: str) -> None:
    message = f"guest www: image {image!r} is no path inside the repository"
    assert refusal(f'[guest.www]\ntarget = "unix"\nimage = "{image}"\n') == message


def test_an_address_given_in_the_arguments_too_is_refused(refusal: Refusal) -> None:
    text = f'{WWW}args = ["--ipv4=127.0.0.2/8"]\nnetwork.service.address = "127.0.0.2/8"\n'
    message = "guest www: network service: the address is given in args, too"
    assert refusal(text) == message


def test_a_network_that_the_host_does_not_have_is_refused(refusal: Refusal) -> None:
    text = f'{WWW}network.service.network = "public"\n'
    message = "guest www: network service: 'public' is not bound on this host"
    assert refusal(text) == message


def test_a_second_network_of_a_unix_guest_is_refused(refusal: Refusal) -> None:
    text = f"{WWW}network.one = {{}}\nnetwork.two = {{}}\n"
    message = "guest www: a unix guest has one network at most"
    assert refusal(text) == message


def both(www: str, api: str) -> str:
    """Return a manifest of two guests with a line of TOML each."""
    return f"{WWW}{www}\n{API}{api}\n"


@pytest.mark.parametrize(
    ("www", "api"),
    [
        ('args = ["--port=80"]', 'args = ["--port=80"]'),
        ('args = ["--port=80"]', 'args = ["--port=80", "--ipv4=127.0.0.2/8"]'),
        ('args = ["--http-port=80"]', 'args = ["--https-port=80"]'),
        ('args = ["--port=80", "--ipv4=127.0.0.2/8"]', 'args = ["--port=80", "--ipv4=0.0.0.0/0"]'),
        (
            'args = ["--port=80", "--ipv4=127.0.0.2/8"]',
            'args = ["--port=80"]\nnetwork.service.address = "127.0.0.2/24"',
        ),
    ],
)
def test_two_guests_with_one_address_are_refused(folder: Path, www: str, api: str) -> None:
    revision = commit(folder, both(www, api))
    with pytest.raises(ConfigError, match=r"^guests www and api have one address: "):
        manifest.read_guests(revision, HOST)


@pytest.mark.parametrize(
    ("www", "api"),
    [
        ('args = ["--port=80"]', 'args = ["--port=81"]'),
        (
            'args = ["--port=80", "--ipv4=127.0.0.2/8"]',
            'args = ["--port=80", "--ipv4=127.0.0.3/8"]',
        ),
        ("", ""),
    ],
)
def test_two_guests_with_an_address_each_are_taken(read: Read, www: str, api: str) -> None:
    assert set(read(both(www, api))) == {"www", "api"}


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


# The desired state, images and all.


def test_a_guest_with_an_image_is_ready(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    desired = desired_at(commit(folder, WWW, {"www.unix": program}), HOST, store, vault)
    assert (set(desired.guests), desired.unready) == ({"www"}, {})


def test_a_boot_is_known_by_what_the_image_unpacks_to(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    plain = desired_at(commit(folder, WWW, {"www.unix": program}), HOST, store, vault)
    packed = desired_at(
        commit(folder, WWW, {"www.unix": gzip.compress(program)}), HOST, store, vault
    )
    assert plain.guests["www"].boot.digest == packed.guests["www"].boot.digest


def test_check_and_restart_make_no_other_boot(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    plain = desired_at(commit(folder, WWW, {"www.unix": program}), HOST, store, vault)
    policies = f'{WWW}check.alive = "1s"\nrestart.on = "never"\n'
    changed = desired_at(commit(folder, policies), HOST, store, vault)
    assert plain.guests["www"].boot.digest == changed.guests["www"].boot.digest


def test_where_an_image_came_from_is_recorded(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    text = '[guest.www]\ntarget = "unix"\nimage = "{latest}/www"\n'
    packed = gzip.compress(program)
    revision = commit(folder, text, {"latest": b"f00\n", "f00/www": packed})
    provenance = desired_at(revision, HOST, store, vault).guests["www"].provenance
    assert (provenance.commit, provenance.path, provenance.pointers, provenance.compression) == (
        revision.id,
        "f00/www",
        {"latest": "f00"},
        "gzip",
    )


def test_the_address_of_a_network_is_passed_before_the_arguments(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    text = f'{WWW}args = ["--port=80"]\nnetwork.service.address = "127.0.0.2/8"\n'
    desired = desired_at(commit(folder, text, {"www.unix": program}), HOST, store, vault)
    assert desired.guests["www"].boot.arguments == ("--ipv4=127.0.0.2/8", "--port=80")


def test_a_script_is_noticed(folder: Path, store: Store, vault: Vault) -> None:
    revision = commit(folder, WWW, {"www.unix": b"#!/bin/sh\n"})
    notices = desired_at(revision, HOST, store, vault).guests["www"].notices
    assert notices == ("image www.unix is a script, not an ELF file",)


def test_all_that_was_read_is_watched(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    text = '[guest.www]\ntarget = "unix"\nimage = "{latest}/www"\n'
    revision = commit(folder, text, {"latest": b"f00\n", "f00/www": program})
    watched = desired_at(revision, HOST, store, vault).watched
    assert watched == (description.NAME, "latest", "f00/www")


def test_a_path_that_two_guests_share_is_watched_once(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    text = WWW + API.replace("api.unix", "www.unix")
    desired = desired_at(commit(folder, text, {"www.unix": program}), HOST, store, vault)
    assert desired.watched == (description.NAME, "www.unix")


def test_a_guest_whose_image_has_not_come_is_not_ready_and_no_fault(
    folder: Path, store: Store, vault: Vault
) -> None:
    unready = desired_at(commit(folder, WWW), HOST, store, vault).unready
    assert isinstance(unready["www"], Missing)


def test_an_image_that_has_not_come_is_watched(folder: Path, store: Store, vault: Vault) -> None:
    assert "www.unix" in desired_at(commit(folder, WWW), HOST, store, vault).watched


SPOILT = {
    "no image": (b"plain text", ImageError),
    "damaged": (b"\x7fELF", ImageError),
    "cut short": (gzip.compress(b"x" * 100)[:-9], ImageError),
    "empty": (b"", RepositoryError),
    "too large": (b"#!".ljust(4 << 20, b"x"), ImageError),
    "too large to be read at once": (os.urandom(4 << 20), ImageError),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_guest_with_a_spoilt_image_is_not_ready(
    folder: Path, store: Store, vault: Vault, spoilt: str
) -> None:
    data, kind = SPOILT[spoilt]
    unready = desired_at(commit(folder, WWW, {"www.unix": data}), HOST, store, vault).unready
    assert isinstance(unready["www"], kind)


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_spoilt_image_leaves_the_other_guests_ready(
    folder: Path, store: Store, vault: Vault, program: bytes, spoilt: str
) -> None:
    files = {"www.unix": SPOILT[spoilt][0], "api.unix": program}
    desired = desired_at(commit(folder, WWW + API, files), HOST, store, vault)
    assert (set(desired.guests), set(desired.unready)) == ({"api"}, {"www"})


def test_a_refused_pointer_leaves_the_other_guests_ready(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    text = f'{API}[guest.www]\ntarget = "unix"\nimage = "{{latest}}/www"\n'
    files = {"latest": b"../outside\n", "api.unix": program}
    desired = desired_at(commit(folder, text, files), HOST, store, vault)
    assert (set(desired.guests), set(desired.unready)) == ({"api"}, {"www"})


def test_every_guest_spoken_of_is_named(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    desired = desired_at(commit(folder, WWW + API, {"www.unix": program}), HOST, store, vault)
    assert desired.names == {"www", "api"}


def test_an_image_for_another_target_is_refused(
    folder: Path, store: Store, vault: Vault, tmp_path: Path
) -> None:
    note = (
        r'__asm__(".section .note.solo5.abi,\"a\",@note\n.balign 4\n.long 6, 16, 0x31494241\n"'
        r'".asciz \"Solo5\"\n.balign 4\n.long 1, 2, 0, 0\n.previous\n");'
    )
    command = ["cc", "-static", "-nostdlib", "-x", "c", "-o", str(tmp_path / "hvt"), "-"]
    subprocess.run(command, input=f"{note}\nvoid _start(void) {{}}\n".encode(), check=True)
    files = {"www.unix": (tmp_path / "hvt").read_bytes()}
    unready: dict[str, Error] = desired_at(commit(folder, WWW, files), HOST, store, vault).unready
    assert unready["www"].message == "image www.unix is for target hvt, the guest for unix"


# Secrets.


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """A file of secret arguments."""
    path = tmp_path / "www.args"
    path.write_text("--password=hunter22\n")
    path.chmod(0o600)
    return path


def hiding(path: Path) -> Host:
    """Return a host that keeps the secret arguments of www in a file."""
    return Host("main", user=USER, secrets={"www": Secrets(str(path))})


def test_secret_arguments_are_part_of_a_boot_by_their_digest_alone(
    folder: Path, store: Store, vault: Vault, program: bytes, hidden: Path
) -> None:
    revision = commit(folder, WWW, {"www.unix": program})
    boot = desired_at(revision, hiding(hidden), store, vault).guests["www"].boot
    assert boot.secrets is not None
    assert vault.read(boot.secrets) == ("--password=hunter22",)
    assert boot.arguments == ()


def test_other_secret_arguments_make_another_boot(
    folder: Path, store: Store, vault: Vault, program: bytes, hidden: Path
) -> None:
    revision = commit(folder, WWW, {"www.unix": program})
    one = desired_at(revision, hiding(hidden), store, vault).guests["www"].boot
    again = desired_at(revision, hiding(hidden), store, vault).guests["www"].boot
    hidden.write_text("--password=hunter23\n")
    other = desired_at(revision, hiding(hidden), store, vault).guests["www"].boot
    assert (one.digest == again.digest, one.digest == other.digest) == (True, False)


def test_a_secrets_file_with_no_argument_makes_no_other_boot(
    folder: Path, store: Store, vault: Vault, program: bytes, hidden: Path
) -> None:
    revision = commit(folder, WWW, {"www.unix": program})
    hidden.write_text("# none yet\n")
    without = desired_at(revision, HOST, store, vault).guests["www"].boot
    assert desired_at(revision, hiding(hidden), store, vault).guests["www"].boot == without


def test_a_guest_whose_secrets_cannot_be_read_is_not_ready_and_the_others_are(
    folder: Path, store: Store, vault: Vault, program: bytes, hidden: Path
) -> None:
    hidden.chmod(0o644)
    revision = commit(folder, WWW + API, {"www.unix": program, "api.unix": program})
    desired = desired_at(revision, hiding(hidden), store, vault)
    assert set(desired.guests) == {"api"}
    assert desired.unready["www"].message == f"secrets file {hidden} is open to others"


def test_secrets_of_a_guest_that_is_not_there_are_not_read(
    folder: Path, store: Store, vault: Vault, program: bytes, hidden: Path
) -> None:
    hidden.unlink()
    revision = commit(folder, API, {"api.unix": program})
    assert set(desired_at(revision, hiding(hidden), store, vault).guests) == {"api"}


# The host's choice of guests.


def choosing(*names: str, **guests: dict[str, object]) -> Host:
    return Host("main", user=USER, guests=names, guest=guests)


def test_a_host_runs_the_guests_that_it_chooses(read: Read) -> None:
    assert set(read(WWW + API, choosing("www"))) == {"www"}


def test_a_host_chooses_among_its_own_whole_guests_too(read: Read) -> None:
    own: dict[str, object] = {"target": "unix", "image": "own.unix"}
    assert set(read(WWW, choosing("www", own=own))) == {"www"}
    assert set(read(WWW, choosing("own", own=own))) == {"own"}


def test_a_host_can_choose_none(read: Read) -> None:
    assert read(WWW, choosing()) == {}


def test_a_chosen_guest_that_is_not_there_is_no_error(read: Read) -> None:
    assert set(read(WWW, choosing("www", "gone"))) == {"www"}


@pytest.mark.parametrize(
    "table",
    ["memory = 4096", 'target = "hvt"', 'user = "nobody"', "other = 1"],
)
def test_nothing_is_asked_of_a_guest_that_is_not_chosen(read: Read, table: str) -> None:
    other = f"[guest.api]\nimage = 'api.unix'\n{table}\n"
    assert set(read(WWW + other, choosing("www"))) == {"www"}


def test_an_address_shared_with_a_guest_that_is_not_chosen_is_no_fault(read: Read) -> None:
    text = both('args = ["--port=80"]', 'args = ["--port=80"]')
    assert set(read(text, choosing("www"))) == {"www"}


def test_the_images_of_guests_that_are_not_chosen_are_not_looked_at(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    revision = commit(folder, WWW + API, {"www.unix": program, "api.unix": b"no image"})
    desired = desired_at(revision, choosing("www"), store, vault)
    assert (set(desired.guests), desired.unready) == ({"www"}, {})
    assert desired.watched == (description.NAME, "www.unix")


def test_guests_that_are_not_chosen_are_named(
    folder: Path, store: Store, vault: Vault, program: bytes
) -> None:
    revision = commit(folder, WWW + API, {"www.unix": program})
    desired = desired_at(revision, choosing("www", "gone"), store, vault)
    assert desired.selection == ("www", "gone")
    assert desired.unselected == {"api"}


@pytest.mark.parametrize(
    ("text", "bound", "lost"),
    [
        ("", HOST, True),
        (WWW, HOST, False),
        ("", choosing("www"), True),
        (WWW, choosing("api"), False),
        (WWW, choosing(), False),
        ("", choosing(), False),
    ],
    ids=["no guest", "a guest", "none chosen", "others", "choice of none", "none at all"],
)
def test_a_state_is_lost_where_nothing_is_described_and_nobody_chose_that(
    folder: Path, store: Store, vault: Vault, text: str, bound: Host, lost: bool
) -> None:
    assert desired_at(commit(folder, text), bound, store, vault).lost is lost


# Disk images.

DISK = f'{WWW.replace("unix", "xen")}[guest.www.block.xvda]\nimage = "fat1.img"\n'


def test_a_disk_image_is_no_path_outside_the_repository(refusal: Refusal) -> None:
    text = DISK.replace("fat1.img", "../fat1.img")
    bound = Host("main", user=USER, limits=ALL_TARGETS)
    assert "image '../fat1.img' is no path inside the repository" in refusal(text, bound)


@pytest.mark.parametrize("both", ['volume = "data"\nimage = "a.img"', "readonly = true"])
def test_a_block_device_is_either_a_volume_or_a_disk_image(refusal: Refusal, both: str) -> None:
    text = DISK.replace('image = "fat1.img"', both)
    bound = Host("main", user=USER, limits=ALL_TARGETS)
    assert "give a volume of the host's, or an image of the repository's" in refusal(text, bound)


def test_a_disk_image_that_is_not_there_yet_is_waited_for(
    folder: Path, store: Store, vault: Vault
) -> None:
    bound = Host("main", user=USER, limits=ALL_TARGETS)
    found = desired_at(commit(folder, DISK, {"www.xen": b"?"}), bound, store, vault)
    assert isinstance(found.unready["www"], Missing)
    assert "fat1.img" in found.watched
