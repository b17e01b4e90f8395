"""What a published image says of itself: to git, to sha256sum, and to whoever publishes next."""

import hashlib
from pathlib import Path

import pytest

from mirage_hooks.boot import provenance
from mirage_hooks.boot.provenance import Origin, Publication
from support import run

SHA = "0f" * 20


def publication(packed: bytes = b"packed", **origin: str) -> Publication:
    return Publication(
        "www",
        "hvt",
        f"hvt/{SHA}/www.hvt.bz2",
        "ab" * 32,
        hashlib.sha256(packed).hexdigest(),
        Origin(SHA, **origin),
    )


def trailers(tmp_path: Path, message: str) -> dict[str, str]:
    """Return a message's trailers, as git reads them."""
    (tmp_path / "message").write_text(message)
    read = run("git", "interpret-trailers", "--parse", "message", cwd=tmp_path).stdout
    return dict(line.split(": ", 1) for line in read.splitlines())


def test_git_reads_where_it_comes_from(tmp_path: Path) -> None:
    message = publication(repository="https://example.org/site", run="https://example.org/7")
    assert trailers(tmp_path, message.message()) == {
        "Guest": "www",
        "Target": "hvt",
        "Image": f"hvt/{SHA}/www.hvt.bz2",
        "Image-Digest": f"sha256:{'ab' * 32}",
        "Source-Repository": "https://example.org/site",
        "Source-Commit": SHA,
        "CI-Run": "https://example.org/7",
    }


def test_the_subject_says_it_in_a_line() -> None:
    assert publication().message().splitlines()[0] == f"publish www for hvt: {SHA[:7]}"


def test_what_nobody_says_is_left_out(tmp_path: Path) -> None:
    assert not {"CI-Run", "Source-Repository"} & trailers(tmp_path, publication().message()).keys()


@pytest.mark.parametrize("run", ["x\nImage-Digest: sha256:00", "x\r\n\nReviewed-by: me", "\x1b[2J"])
def test_a_variable_of_cis_adds_no_line(tmp_path: Path, run: str) -> None:
    asked = publication(run="x").message(), publication(run=run).message()
    first, second = (trailers(tmp_path, one) for one in asked)
    assert {**second, "CI-Run": "x"} == first


def test_a_token_in_a_url_stays_out(tmp_path: Path) -> None:
    message = publication(repository="https://ci:secret@example.org/site").message()
    assert trailers(tmp_path, message)["Source-Repository"] == "https://example.org/site"


def test_sha256sum_checks_the_image_by_it(tmp_path: Path) -> None:
    (tmp_path / "www.hvt.bz2").write_bytes(b"packed")
    (tmp_path / "checksum").write_text(publication(b"packed").checksum("2026-01-01"))
    checked = run("sha256sum", "--strict", "-c", "checksum", cwd=tmp_path)
    assert checked.stdout == "www.hvt.bz2: OK\n"


def test_whoever_publishes_next_reads_it() -> None:
    facts = provenance.read(publication().checksum("2026-01-01"))
    assert (facts["Source-Commit"], facts["Published"]) == (SHA, "2026-01-01")
