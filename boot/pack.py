"""Images into their packing: the same bytes from the same image, whenever and wherever."""

import bz2
import gzip
import lzma
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# By the names that unpack.py has for them. Of gzip's, neither the time nor the name of a file is in
# it (RFC 1952, 2.3.1).
_PACKERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    "bzip2": lambda file: cast("IO[bytes]", bz2.open(file, "wb")),
    "gzip": lambda file: cast("IO[bytes]", gzip.GzipFile("", "wb", 9, file, 0)),
    "xz": lambda file: cast("IO[bytes]", lzma.open(file, "wb")),
    "zstd": lambda file: cast("IO[bytes]", zstd.open(file, "wb", level=19)),
}


def pack(image: Path, packed: Path, compression: str) -> None:
    """Compress an image into a file. Raises OSError."""
    with (
        image.open("rb") as source,
        packed.open("wb") as file,
        _PACKERS[compression](file) as output,
    ):
        shutil.copyfileobj(source, output, 1 << 20)
