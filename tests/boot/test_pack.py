"""Packing an image: what comes out again, and that it is always the same."""

from pathlib import Path

import pytest

from mirage_hooks.boot.convention import ENDINGS
from mirage_hooks.boot.pack import pack
from mirage_hooks.boot.unpack import PackedFile, unpack

IMAGE = b"#!/bin/sh\n" + b"exec sleep 1000\n" * 100_000


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(IMAGE)
    return path


@pytest.mark.parametrize("compression", ENDINGS)
def test_what_is_packed_unpacks_to_the_image(image: Path, compression: str) -> None:
    packed, again = image.with_name("packed"), image.with_name("again")
    pack(image, packed, compression)
    found = unpack(PackedFile(str(packed)), again, len(IMAGE))
    assert (found.compression, found.packed_size) == (compression, packed.stat().st_size)
    assert again.read_bytes() == IMAGE


@pytest.mark.parametrize("compression", ENDINGS)
def test_neither_time_nor_place_is_in_it(
    image: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = image.rename(image.with_name("elsewhere"))
    pack(elsewhere, image.with_name("one"), compression)
    monkeypatch.setattr("time.time", lambda: 1.0)
    pack(elsewhere.rename(image), image.with_name("two"), compression)
    assert image.with_name("one").read_bytes() == image.with_name("two").read_bytes()
