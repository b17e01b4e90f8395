"""Secret arguments, end to end: the guest gets them, and nothing else shows them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Site

SECRET = 'hunter22 is "the" pass\\word, größer'
OTHER = "correct horse battery staple"


@pytest.fixture
def secretive(installed: Site) -> Site:
    """A clone whose guest has its page as a secret, and runs."""
    installed.hide("# the page", "", f"--hello={SECRET}")
    installed.deploy()
    return installed


def texts(site: Site) -> Iterator[tuple[Path, str]]:
    """Yield every file of the state folder but those that are documented to hold secrets."""
    for path in site.state.folder.rglob("*"):
        hidden = path.is_relative_to(site.state.secrets) or path.name == "orders.json"
        if path.is_file() and not hidden:
            yield path, path.read_bytes().decode(errors="replace")


def shows_none(text: str) -> bool:
    """Whether a text shows neither secret, written as it is or as JSON and TOML have it."""
    words = [SECRET, OTHER, "hunter22", "größer", "horse"]
    return not any(word in text or json.dumps(word)[1:-1] in text for word in words)


def said(site: Site, *arguments: str) -> str:
    done = site.command(*arguments, check=False)
    return done.stdout + done.stderr


SHOWING = [
    ["status"],
    ["status", "--json"],
    ["history"],
    ["history", "--json"],
    ["plan"],
    ["plan", "--json"],
    ["logs"],
    ["logs", "--json"],
    ["logs", "www"],
    ["doctor"],
    ["doctor", "--json"],
]


def test_a_guest_gets_its_secret_arguments(secretive: Site) -> None:
    assert secretive.page() == SECRET


def test_what_is_redacted_is_the_argument_as_it_is_and_as_the_command_line_has_it(
    secretive: Site,
) -> None:
    orders = json.loads((secretive.state.generation_folder("www", 1) / "orders.json").read_text())
    *_, quoted = orders["argv"]
    assert quoted != f"--hello={SECRET}"
    assert {SECRET, f"--hello={SECRET}", quoted} < set(orders["redact"])
    assert "--ipv4=127.0.0.1/8" not in orders["redact"]


def test_nothing_shows_a_secret(secretive: Site) -> None:
    secretive.publish("two")
    pull = secretive.pull()
    secretive.hide(f"--hello={OTHER}")
    outputs = [pull.stdout, pull.stderr]
    outputs += [said(secretive, *command) for command in SHOWING]
    outputs += [said(secretive, command) for command in ("deploy", "reboot")]
    outputs += [said(secretive, "rollback", "www")]
    outputs += [said(secretive, *command) for command in SHOWING]
    assert [text for text in outputs if not shows_none(text)] == []
    assert [path for path, text in texts(secretive) if not shows_none(text)] == []


def test_a_changed_secret_replaces_the_guest_and_is_told_without_it(secretive: Site) -> None:
    secretive.hide(f"--hello={OTHER}")
    assert "www: replace: secrets changed; network unchanged" in said(secretive, "plan")
    secretive.command("deploy")
    assert (secretive.page(), secretive.outcomes()) == (OTHER, ["ended", "healthy"])


def test_a_secret_that_is_the_same_reboots_nothing(secretive: Site) -> None:
    secretive.hide(f"--hello={SECRET}", "# another comment")
    secretive.command("deploy")
    assert secretive.outcomes() == ["healthy"]


def test_a_reboot_boots_the_secret_that_ran(secretive: Site) -> None:
    secretive.hide(f"--hello={OTHER}")
    secretive.command("reboot")
    assert secretive.page() == SECRET


def test_a_rollback_boots_the_secret_of_its_time(secretive: Site) -> None:
    secretive.hide(f"--hello={OTHER}")
    secretive.command("deploy")
    secretive.command("rollback", "www")
    assert secretive.page() == SECRET


def test_a_secret_that_does_not_do_is_rolled_back_and_redacted(secretive: Site) -> None:
    secretive.hide(f"--wrong={OTHER}")
    secretive.publish("two")
    pull = secretive.pull()
    assert "unikernel: unknown option '[redacted]'." in pull.stderr
    assert shows_none(pull.stderr + said(secretive, "logs", "www", "--generation", "2"))
    assert secretive.page() == SECRET
    assert secretive.outcomes() == ["ended", "failed", "healthy"]


def test_a_guest_whose_secrets_cannot_be_read_runs_on_as_it_does(secretive: Site) -> None:
    path = secretive.hide(f"--hello={OTHER}")
    path.chmod(0o644)
    secretive.publish("two")
    pull = secretive.pull()
    assert f"secrets file {path} is open to others" in pull.stderr
    assert f"run: chmod 600 {path}" in pull.stderr
    assert (secretive.page(), secretive.outcomes()) == (SECRET, ["healthy"])
    assert secretive.command("deploy", check=False).returncode == 6


def test_secrets_that_are_gone_from_the_vault_are_told(secretive: Site) -> None:
    live = secretive.live()
    assert live is not None
    assert live.boot.secrets is not None
    secretive.hide(f"--hello={OTHER}")
    (secretive.state.secrets / live.boot.secrets).unlink()
    done = secretive.command("reboot", check=False)
    assert done.returncode == 6
    assert re.search("secret arguments .* cannot be read: No such file", done.stdout + done.stderr)
    assert secretive.page() == SECRET
