"""An installation's identity: by it our links are known, and MACs are made."""

import os
import re
from pathlib import Path

import pytest

from mirage_hooks.boot import installation
from mirage_hooks.boot.links import INSTALLATION


def machine(path: Path, monkeypatch: pytest.MonkeyPatch, identity: str | None) -> None:
    """Have another machine-id(5); None for a machine without one."""
    file = path / "machine-id"
    monkeypatch.setattr(installation, "_MACHINE", file)
    if identity is not None:
        file.write_text(f"{identity}\n")


def test_an_installation_is_known_by_twelve_hex_digits(tmp_path: Path) -> None:
    assert re.fullmatch(INSTALLATION, installation.identify(tmp_path))


def test_a_repository_stays_the_same_installation(tmp_path: Path) -> None:
    assert installation.identify(tmp_path) == installation.identify(tmp_path)


def test_every_repository_is_an_installation_of_its_own(tmp_path: Path) -> None:
    assert installation.identify(tmp_path / "a") != installation.identify(tmp_path / "b")


def test_one_path_is_another_installation_on_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for identity in ("0" * 32, "1" * 32):
        machine(tmp_path, monkeypatch, identity)
        found.add(installation.identify(tmp_path))
    assert len(found) == 2


def test_the_hosts_own_id_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, "0123456789ab" + "0" * 20)
    assert installation.identify(tmp_path) != "0123456789ab"


@pytest.mark.parametrize("identity", [None, ""])
def test_a_host_without_an_id_goes_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str | None
) -> None:
    machine(tmp_path, monkeypatch, identity)
    here = installation.identify(tmp_path)
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    assert installation.identify(tmp_path) != here


def test_a_path_that_is_no_text_is_taken(tmp_path: Path) -> None:
    assert installation.identify(Path(os.fsdecode(b"/srv/\xff")))
