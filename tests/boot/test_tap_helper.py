"""The helper gives an operator one right, through the real sudo, and no other."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirage_hooks.boot import links, netlink, tap_helper, taps
from mirage_hooks.boot.errors import ConfigError
from namespace import Namespace
from rights import missing_for_helper, on_host

INSTALLATION = "0123456789ab"
NOBODY = 65534
NAME = links.tap_name(INSTALLATION, "www", 7, "service")
ALIAS = links.tap_alias(INSTALLATION, "www", 7)
ADD = {"do": "add", "name": NAME, "bridge": "br-test", "alias": ALIAS}
SWEEP = {"do": "sweep", "installation": INSTALLATION, "keep": [ALIAS]}

# An operator who deploys. All is loaded while they still are root, who alone may read our folder.
OPERATOR = """
import os, subprocess
from mirage_hooks.boot import links, taps
from mirage_hooks.boot.errors import Error
links.require_bridge("br-test")
os.setgroups([])
os.setgid({uid})
os.setuid({uid})
try:
    {statement}
except Error as error:
    print(error, end="")
"""


@pytest.fixture
def host(namespace: Namespace) -> Namespace:
    """A host with sudo, a helper that is safe, and two bridges."""
    if (missing := missing_for_helper(namespace)) is not None:
        pytest.skip(missing)
    namespace.bridge("br-test")
    namespace.bridge("br-root")
    return namespace


def ask(
    host: Namespace, request: object, *options: str, change: str = "", user: str = "nobody"
) -> tuple[int, dict[str, object]]:
    """Have a user ask the helper through sudo; return how it ended, and its answer."""
    operator = ["setpriv", f"--reuid={user}", "--clear-groups"]
    command = [*operator, "sudo", "-n", taps.HELPER, *options]
    done = on_host(host, command, json.dumps(request), change)
    assert done.stdout.count("\n") == 1, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return done.returncode, answer


def deploy(host: Namespace, statement: str, uid: int = NOBODY, change: str = "") -> str:
    """Run a statement as an operator does without rights; return what it prints."""
    program = OPERATOR.format(uid=uid, statement=statement)
    done = on_host(host, [sys.executable, "-I", "-c", program], change=change)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tap(host: Namespace, name: str, user: str, alias: str) -> None:
    """Make a tap as the helper would."""
    host.tap(name, "br-test", user)
    host.run("ip", "link", "set", name, "alias", alias)


# What it does.


def test_a_tap_is_made_for_who_asks(host: Namespace) -> None:
    assert ask(host, ADD) == (0, {"taps": [NAME]})
    with host.entered():
        link, bridge = netlink.find(NAME), netlink.find("br-test")
    assert link is not None
    assert bridge is not None
    assert (link.owner, link.alias, link.master, link.up) == (NOBODY, ALIAS, bridge.index, True)


def test_stale_taps_of_who_asks_are_removed(host: Namespace) -> None:
    tap(host, "stale", "nobody", links.tap_alias(INSTALLATION, "www", 6))
    tap(host, "live", "nobody", ALIAS)
    assert ask(host, SWEEP) == (0, {"taps": ["stale"]})
    assert host.links() == ["br-root", "br-test", "live"]


def test_an_operator_deploys_with_it_unasked(host: Namespace) -> None:
    statement = f"taps.add_tap('{NAME}', 'br-test', {NOBODY}, '{ALIAS}')"
    assert deploy(host, statement) == ""
    assert NAME in host.links()
    assert deploy(host, f"print(taps.sweep('{INSTALLATION}', []))") == f"['{NAME}']\n"
    assert NAME not in host.links()


# What it does not.


def test_a_bridge_that_root_did_not_list_is_refused(host: Namespace) -> None:
    code, answer = ask(host, {**ADD, "bridge": "br-root"})
    assert (code, answer["error"]) == (3, "mirage-hooks-tap: bridge 'br-root' is not allowed")
    assert NAME not in host.links()


def test_others_taps_are_not_removed(host: Namespace) -> None:
    tap(host, "roots", "root", links.tap_alias(INSTALLATION, "www", 6))
    tap(host, "daemons", "daemon", links.tap_alias(INSTALLATION, "www", 6))
    tap(host, "others", "nobody", links.tap_alias("ba9876543210", "www", 6))
    tap(host, "theirs", "nobody", "theirs")
    assert ask(host, SWEEP) == (0, {"taps": []})


def test_others_taps_are_not_taken(host: Namespace) -> None:
    tap(host, NAME, "daemon", ALIAS)
    code, answer = ask(host, ADD)
    assert (code, "exists already" in str(answer["error"])) == (6, True)


def test_an_argument_is_refused_by_sudo(host: Namespace) -> None:
    command = ["setpriv", "--reuid=nobody", "--clear-groups", "sudo", "-n", taps.HELPER, "--help"]
    done = on_host(host, command, json.dumps(ADD))
    assert (done.returncode, done.stdout) == (1, "")
    assert NAME not in host.links()


def test_an_operator_whom_sudo_refuses_is_told(host: Namespace) -> None:
    told = deploy(host, f"taps.add_tap('{NAME}', 'br-test', 1, '{ALIAS}')", uid=1)
    assert told.startswith(f"network: sudo -n {taps.HELPER} ended with 1: sudo: ")
    assert "in /etc/sudoers.d" in told


def test_an_operator_is_told_what_the_helper_says(host: Namespace) -> None:
    told = deploy(host, f"taps.add_tap('{NAME}', 'br-root', {NOBODY}, '{ALIAS}')")
    assert told == (
        "mirage-hooks-tap: bridge 'br-root' is not allowed\n  list it in /etc/mirage-hooks/bridges"
    )


def test_it_is_not_asked_for_a_user_who_is_not_the_operator(host: Namespace) -> None:
    told = deploy(host, f"taps.add_tap('{NAME}', 'br-test', 1, '{ALIAS}')")
    assert told.startswith(f"network: no right to make tap {NAME} on bridge br-test\n")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("chown nobody {helper}", "{helper} belongs to user nobody"),
        ("chmod o+w {helper}", "{helper} may be written by everybody"),
        ("chmod o+w /opt/mirage-hooks", "/opt/mirage-hooks may be written by everybody"),
        ("chown nobody /opt/mirage-hooks/bin", "/opt/mirage-hooks/bin belongs to user nobody"),
        (
            "mkdir /opt/theirs; chown nobody /opt/theirs;"
            "sed -i '2s:$:; sys.path.append(\"/opt/theirs\"):' {helper}",
            "/opt/theirs belongs to user nobody",
        ),
    ],
)
def test_an_operators_own_copy_is_refused(host: Namespace, change: str, why: str) -> None:
    code, answer = ask(host, ADD, change=change.format(helper=taps.HELPER))
    assert (code, answer["error"]) == (
        6,
        f"mirage-hooks-tap is not safe to run as root: {why.format(helper=taps.HELPER)}",
    )


@pytest.mark.parametrize("path", ["/etc/mirage-hooks/bridges", "/etc/mirage-hooks"])
def test_an_operators_own_list_of_bridges_is_refused(host: Namespace, path: str) -> None:
    code, answer = ask(host, ADD, change=f"chown nobody {path}")
    assert (code, answer["error"]) == (6, f"{path} belongs to user nobody")


def test_root_needs_no_helper(host: Namespace) -> None:
    code, answer = ask(host, ADD, user="root")
    assert (code, answer["error"]) == (
        6,
        "mirage-hooks-tap has to be run by sudo, for a user who is not root",
    )


# What it is asked.


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A bridge that is listed, in a file of root's; here and not in /tmp, where all may write."""
    if os.geteuid() != 0:
        pytest.skip("only root can write a list that root has written")
    folder = Path(tempfile.mkdtemp(prefix="mh-", dir="/run"))
    (folder / "bridges").write_text("br-none\n")
    monkeypatch.setattr(taps, "HELPER_BRIDGES", folder / "bridges")
    yield
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "eth0"),
        ("name", "mh0123456789aB"),
        ("name", "mh0123456789ab\n"),
        ("name", "mh%d"),
        ("name", None),
        ("alias", "theirs"),
        ("alias", "mirage-hooks:0123456789ab"),
        ("alias", "mirage-hooks:0123456789ab:www:-1"),
        ("alias", "mirage-hooks:0123456789ab:www;id:1"),
        ("alias", "mirage-hooks:0123456789ab:www:1\0"),
        ("bridge", "br-root"),
        ("bridge", ""),
        ("bridge", ["br-none"]),
    ],
)
def test_a_field_that_is_not_as_we_make_it_is_named(
    listed: None, field: str, value: object
) -> None:
    request = json.dumps({**ADD, "bridge": "br-none", field: value}).encode()
    with pytest.raises(ConfigError, match=f"^mirage-hooks-tap: {field} .* is not allowed"):
        tap_helper.serve(request, NOBODY)


@pytest.mark.parametrize(
    "request_text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"do": "remove"}',
        json.dumps({**ADD, "owner": 0}),
        json.dumps({**SWEEP, "keep": "all"}),
        "[" * 60_000,
        '{"do": "add"}' * 10_000,
    ],
)
def test_what_is_no_request_is_refused(request_text: str) -> None:
    with pytest.raises(ConfigError, match="request"):
        tap_helper.serve(request_text.encode(), NOBODY)


@pytest.mark.parametrize("keep", [["theirs"], [7], [ALIAS, None]])
def test_what_is_to_be_kept_has_to_be_aliases(keep: list[object]) -> None:
    with pytest.raises(ConfigError, match=r"^mirage-hooks-tap: keep .* is not allowed"):
        tap_helper.serve(json.dumps({**SWEEP, "keep": keep}).encode(), NOBODY)
