"""The programs that run images: where they are found, and what they say of themselves."""

from pathlib import Path

import pytest

from mirage_hooks.boot import targets
from mirage_hooks.boot.errors import ConfigError, HostError
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.targets import tenders
from mirage_hooks.boot.targets.tenders import Program

SPT = Program("solo5-spt")


@pytest.fixture
def tender(tmp_path: Path) -> Path:
    """A program that says what the real one says."""
    path = tmp_path / "solo5-spt"
    path.write_text("#!/bin/sh\n[ $1 = --version ] && printf 'solo5 v1\\nABI version 2\\n' >&2\n")
    path.chmod(0o755)
    return path


def test_a_tender_is_found_on_the_hosts_path(tender: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenders, "PATH", str(tender.parent))
    assert tenders.find("spt", SPT, Tenders()) == str(tender)


def test_a_tender_is_found_where_the_host_file_says(tender: Path) -> None:
    assert tenders.find("spt", SPT, Tenders(spt=str(tender))) == str(tender)


# Whoever runs a hook has a PATH of their own, and what it finds may be theirs.
def test_the_path_of_who_runs_this_does_not_count(
    tender: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tender.parent))
    with pytest.raises(HostError):
        tenders.find("spt", Program("solo5-spt-of-this-test"), Tenders())


@pytest.mark.parametrize(
    ("program", "hint"),
    [
        (Program("no-such-tender"), "install it, or name it: spt = '/path/to/no-such-tender'"),
        (Program("no-such-tender", "tenders"), "apt-get install tenders, or name it: "),
    ],
)
def test_a_tender_that_is_missing_is_told_with_how_to_have_it(program: Program, hint: str) -> None:
    with pytest.raises(HostError) as error:
        tenders.find("spt", program, Tenders())
    assert error.value.message == "no-such-tender is not on this host's PATH"
    assert error.value.hint.startswith(hint)


def test_a_tender_that_others_may_write_is_not_run(tender: Path) -> None:
    tender.chmod(0o757)
    with pytest.raises(HostError, match="may be written by everybody"):
        tenders.find("spt", SPT, Tenders(spt=str(tender)))


@pytest.mark.parametrize("kind", ["missing", "not executable", "a folder"])
def test_what_cannot_be_executed_is_no_tender(tender: Path, kind: str) -> None:
    path = tender.parent if kind == "a folder" else tender
    if kind == "missing":
        tender.unlink()
    elif kind == "not executable":
        tender.chmod(0o644)
    with pytest.raises(HostError, match=f"{path} is no program that can be executed"):
        tenders.find("spt", SPT, Tenders(spt=str(path)))


def test_a_tender_says_which_abi_it_runs(tender: Path) -> None:
    assert tenders.abi(str(tender)) == 2


@pytest.mark.parametrize("says", ["", "ABI version two", "the ABI version 2", "ABI version 2.1"])
def test_a_tender_that_names_no_abi_is_refused_with_what_it_said(tender: Path, says: str) -> None:
    tender.write_text(f"#!/bin/sh\necho '{says}'\n")
    with pytest.raises(HostError) as error:
        tenders.abi(str(tender))
    assert error.value.message == f"{tender} --version names no ABI: {says!r}"


def test_what_is_no_program_does_not_say_what_it_is(tender: Path) -> None:
    tender.write_bytes(b"\x7fELF")
    with pytest.raises(HostError, match=r"does not say what it is: .*Exec format error"):
        tenders.abi(str(tender))


def test_a_tender_that_never_answers_is_given_up(
    tender: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenders, "_ANSWER_SECONDS", 0.1)
    tender.write_text("#!/bin/sh\nexec sleep 5\n")
    with pytest.raises(HostError, match=r"does not say what it is: .*timed out"):
        tenders.abi(str(tender))


# Which targets there are.


def test_a_target_is_found_by_its_tender(tender: Path) -> None:
    assert "spt" in targets.found(Tenders(spt=str(tender)))


def test_a_target_whose_tender_is_missing_is_not_found(tmp_path: Path) -> None:
    assert "spt" not in targets.found(Tenders(spt=f"{tmp_path}/none"))


def test_unix_needs_no_tender() -> None:
    assert "unix" in targets.found(Tenders())


def test_a_target_that_cannot_be_run_is_refused_with_those_that_can() -> None:
    with pytest.raises(ConfigError) as error:
        targets.named("muen")
    assert error.value.message == "target muen cannot be run by this version"
    assert error.value.hint == "it runs: unix, hvt, spt, virtio, xen"


@pytest.mark.parametrize("wanted", ["hvt", "unix"])
def test_an_image_for_another_target_is_refused(wanted: str) -> None:
    with pytest.raises(ConfigError) as error:
        targets.refuse_other("spt/www.spt", "spt", wanted)
    assert error.value.message == f"image spt/www.spt is for target spt, the guest for {wanted}"
