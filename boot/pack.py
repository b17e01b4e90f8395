"""Images into their packing: the same bytes from the same image, whenever and wherever."""

import bz2
import gzip
import lzma
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_Packer = Callable[[IO[bytes]], IO[bytes]]

# By the names that unpack.py has for them. Of gzip's, neither the time nor the name of a file is in
# it (RFC 1952, 2.3.1).
_PACKERS: dict[str, _Packer] = {
    "bzip2": cast("_Packer", partial(bz2.BZ2File, mode="wb")),
    "gzip": cast("_Packer", partial(gzip.GzipFile, "", "wb", 9, mtime=0)),
    "xz": cast("_Packer", partial(lzma.LZMAFile, mode="wb")),
    "zstd": cast("_Packer", partial(zstd.ZstdFile, mode="wb", level=19)),
}


def pack(image: Path, packed: Path, compression: str) -> None:
    """Compress an image into a file. Raises OSError."""
    with (
        image.open("rb") as source,
        packed.open("wb") as file,
        _PACKERS[compression](file) as output,
    ):
        shutil.copyfileobj(source, output, 1 << 20)
