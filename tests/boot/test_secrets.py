"""Secret arguments: whose files are taken, and what the vault keeps and gives away."""

import json
import os
import pwd
import re
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot.errors import ConfigError, Error, HostError
from mirage_hooks.boot.secrets import Vault, load, words
from support import USER

SECRET = "--password=hunter22"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of secret arguments."""
    path = tmp_path / "www.args"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """A vault with nothing in it yet."""
    return Vault(tmp_path / "secrets")


def refusal(path: Path) -> Error:
    """Return the error a file is refused with, which shows nothing of it."""
    with pytest.raises(Error) as refused:
        load(str(path))
    assert "hunter" not in str(refused.value)
    assert refused.value.message.startswith(f"secrets file {path}")
    assert refused.value.hint
    return refused.value


# The host's file.


def test_each_line_is_an_argument_as_it_stands(path: Path) -> None:
    path.write_text("--a=b c\n --d\ne#f\n")
    assert load(str(path)) == ("--a=b c", " --d", "e#f")


def test_blank_lines_and_comments_are_passed_over(path: Path) -> None:
    path.write_text("\n# of www\n  \n--a=b\n#--c=d")
    assert load(str(path)) == ("--a=b",)


def test_a_file_may_be_empty(path: Path) -> None:
    path.write_text("")
    assert load(str(path)) == ()


def test_a_file_may_have_64_kib(path: Path) -> None:
    path.write_text("x" * 65536)
    assert len(load(str(path))[0]) == 65536


def test_a_file_of_more_than_64_kib_is_refused(path: Path) -> None:
    path.write_text("x" * 65537)
    assert "more than 64 KiB" in refusal(path).message


def test_a_symbolic_link_is_followed(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    assert load(str(link)) == (SECRET,)


def test_of_a_symbolic_link_its_target_is_judged(path: Path) -> None:
    path.chmod(0o640)
    link = path.with_name("link")
    link.symlink_to(path)
    assert "is open to others" in refusal(link).message


def remove(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def link_to_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove, "cannot be read: No such file"),
        (make_folder, "is not a regular file"),
        (make_pipe, "is not a regular file"),
        (link_to_device, "is not a regular file"),
    ],
)
def test_what_is_no_file_is_refused(path: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(path)
    refused = refusal(path)
    assert isinstance(refused, HostError)
    assert words in refused.message


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o644, 0o666])
def test_a_file_that_others_may_read_or_write_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    refused = refusal(path)
    assert refused.message == f"secrets file {path} is open to others"
    assert refused.hint == f"run: chmod 600 {shlex.quote(str(path))}"


@as_root
def test_a_file_of_another_user_is_refused(path: Path) -> None:
    assert USER is not None
    os.chown(path, pwd.getpwnam(USER).pw_uid, -1)
    refused = refusal(path)
    assert refused.message == f"secrets file {path} belongs to user {USER}"
    assert refused.hint == f"run: chown root {shlex.quote(str(path))}"


def test_a_file_that_is_no_text_is_refused(path: Path) -> None:
    path.write_bytes(b"--password=hunter\xff\n")
    assert isinstance(refusal(path), ConfigError)


@pytest.mark.parametrize("char", ["\0", "\t", "\r", "\x1b", "\x7f", "\x85", "\u2028", "\u202e"])
def test_a_control_character_is_refused_by_its_line(path: Path, char: str) -> None:
    path.write_text(f"--a=b\n--password=hunter{char}\n", newline="")
    refused = refusal(path)
    assert isinstance(refused, ConfigError)
    assert refused.message == f"secrets file {path}: line 2 holds a control character"


# What is not to be shown.


def test_an_argument_and_its_value_are_not_to_be_shown() -> None:
    assert words([SECRET]) == [SECRET, "hunter22"]


def test_the_value_is_all_after_the_first_equals_sign() -> None:
    assert words(["--key=ab=="]) == ["--key=ab==", "ab=="]


def test_a_short_value_alone_may_be_shown() -> None:
    assert words(["--pages=123"]) == ["--pages=123"]


@given(st.lists(st.text()))
def test_the_longest_comes_first(arguments: list[str]) -> None:
    found = words(arguments)
    assert found == sorted(found, key=len, reverse=True)
    assert set(arguments) <= set(found)


# The vault.


@given(st.lists(st.text(st.characters(exclude_categories=["C"]))).map(tuple))
def test_what_is_kept_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, arguments: tuple[str, ...]
) -> None:
    vault = Vault(tmp_path_factory.getbasetemp() / "vault")
    assert vault.read(vault.add(arguments)) == arguments


def test_the_same_arguments_have_the_same_digest(vault: Vault) -> None:
    assert vault.add((SECRET,)) == vault.add((SECRET,))


def test_how_arguments_are_divided_makes_another_digest(vault: Vault) -> None:
    assert vault.add(("a b",)) != vault.add(("a", "b"))


def test_two_vaults_have_nothing_in_common(tmp_path: Path) -> None:
    digests = {Vault(tmp_path / name).add((SECRET,)) for name in ("one", "two")}
    assert len(digests) == 2


def test_the_vault_is_private(vault: Vault, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        vault.add((SECRET,))
    finally:
        os.umask(old)
    folder = tmp_path / "secrets"
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_vault_holds_its_key_and_a_file_a_digest(vault: Vault, tmp_path: Path) -> None:
    digest = vault.add((SECRET,))
    folder = tmp_path / "secrets"
    assert {path.name for path in folder.iterdir()} == {"key", digest}
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert json.loads((folder / digest).read_text()) == [SECRET]
    assert len((folder / "key").read_bytes()) == 32


def test_a_key_that_another_process_has_just_made_is_kept(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "secrets" / "key"
    link = os.link

    def late(source: Path, target: Path) -> None:
        key.write_bytes(b"k" * 32)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    vault.add((SECRET,))
    assert key.read_bytes() == b"k" * 32
    assert len(list(key.parent.iterdir())) == 2


@pytest.mark.parametrize("key", [b"", b"k" * 31, b"k" * 33])
def test_a_damaged_key_is_refused(vault: Vault, tmp_path: Path, key: bytes) -> None:
    vault.add((SECRET,))
    (tmp_path / "secrets" / "key").write_bytes(key)
    with pytest.raises(HostError, match="key is damaged\n  run: rm "):
        vault.add((SECRET,))


def test_arguments_that_are_gone_are_told(vault: Vault, tmp_path: Path) -> None:
    digest = vault.add((SECRET,))
    (tmp_path / "secrets" / digest).unlink()
    with pytest.raises(HostError, match=f"{digest} cannot be read: No such file"):
        vault.read(digest)


@pytest.mark.parametrize("data", [b"", b"[]", b'["--password=hunter23"]'])
def test_arguments_that_were_damaged_are_told(vault: Vault, tmp_path: Path, data: bytes) -> None:
    digest = vault.add((SECRET,))
    (tmp_path / "secrets" / digest).write_bytes(data)
    with pytest.raises(HostError, match="were damaged on this host's disk") as damaged:
        vault.read(digest)
    assert "hunter" not in str(damaged.value)


def test_arguments_that_were_damaged_are_kept_anew(vault: Vault, tmp_path: Path) -> None:
    digest = vault.add((SECRET,))
    (tmp_path / "secrets" / digest).write_bytes(b"")
    assert vault.read(vault.add((SECRET,))) == (SECRET,)


def test_a_vault_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="secret arguments cannot be kept in") as refused:
        Vault(tmp_path / "file").add((SECRET,))
    assert "hunter" not in str(refused.value)


def test_what_is_not_to_be_kept_is_deleted(vault: Vault) -> None:
    kept, other = vault.add((SECRET,)), vault.add(("--other",))
    vault.collect({kept})
    assert vault.read(kept) == (SECRET,)
    with pytest.raises(HostError):
        vault.read(other)


def test_what_a_crash_left_behind_is_deleted(vault: Vault, tmp_path: Path) -> None:
    digest = vault.add((SECRET,))
    (tmp_path / "secrets" / f".{digest}.1.new").touch()
    vault.collect(set())
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["key"]


def test_an_arguments_digest_is_the_same_after_others_were_deleted(vault: Vault) -> None:
    digest = vault.add((SECRET,))
    vault.collect(set())
    assert vault.add((SECRET,)) == digest


def test_there_may_be_nothing_to_delete(vault: Vault) -> None:
    vault.collect(set())
