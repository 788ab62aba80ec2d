"""The files that the image cache has written: find them, list them, remove them."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastcv.data.cache import FOLDER, SHARED, remove_abandoned
from fastcv.data.sources.named import fastai_data
from fastcv.files import amount
from fastcv.terminal import aligned

DEPTH = 2  # folders between the one that is searched and a data set's own


@dataclass(frozen=True, kw_only=True)
class CacheFile:
    """A file of decoded images.

    Attributes:
        side: pixels.
        images: their number; None if the file is damaged.
        size: bytes.
        used: the time it was last opened, seconds since 1970.
    """

    path: Path
    side: int
    images: int | None
    size: int
    used: float


def cache(
    folder: Path | None = None, *, clear: bool = False, write: Callable[[str], None] = print
) -> None:
    """List the cache's files, or remove them.

    Args:
        folder: where data sets lie, or one of them. None searches the current folder,
            `$FASTCV_DATA` and fastai's data folder.
        clear: remove what would be listed. A training that runs keeps what it has opened.
        write: receives each line.

    Raises:
        ValueError: `folder` is none, or a file cannot be removed.
    """
    if folder is not None and not folder.is_dir():
        raise ValueError(f"PATH must be a folder, {str(folder)!r} is not one")
    found = sorted(find(_searched() if folder is None else [folder]), key=lambda each: each.path)
    total = amount(sum(each.size for each in found))
    count = f"{len(found)} file{'s' * (len(found) != 1)}, {total}"
    if not found:
        where = "here, in $FASTCV_DATA and in fastai's data folder" if folder is None else folder
        write(f"no image cache found ({where})")
    elif clear:
        for each in found:
            _remove(each.path)
        write(f"removed {count}")
    else:
        rows = [("folder", "size", "images", "on disk", "last use")]
        for each in found:
            images = "damaged" if each.images is None else f"{each.images:,}"
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.used))
            row = (str(each.path.parent), f"{each.side} px", images, amount(each.size), used)
            rows.append(row)
        for line in aligned(rows):
            write(line)
        write(f"{count}; --clear removes them, and they are made again where they are needed")


def find(folders: Iterable[Path]) -> Iterator[CacheFile]:
    """Find the cache's files in some folders, and in the folders up to two levels below."""
    seen = set()
    for folder in folders:
        places = [folder, folder / SHARED]
        for depth in range(DEPTH + 1):
            with suppress(OSError):  # it cannot be listed
                places += folder.glob("/".join([*["*"] * depth, FOLDER]))
        for place in places:
            real = os.path.realpath(place)
            if real not in seen and (place.name in (FOLDER, SHARED)):
                seen.add(real)
                yield from _files(place)


def _searched() -> list[Path]:
    folders = [Path.cwd()]
    if os.environ.get("FASTCV_DATA"):
        folders.append(Path(os.environ["FASTCV_DATA"]).expanduser())
    with suppress(ValueError):  # there is none
        folders.append(fastai_data())
    return folders


def _files(place: Path) -> Iterator[CacheFile]:
    try:
        files = list(place.iterdir())
    except OSError:  # it is no folder, or somebody else's
        return
    for path in files:
        # What it holds besides is nobody's business.
        if named := re.fullmatch(r"(\d+)px-\dch-[0-9a-f]{20}\.npy", path.name):
            with suppress(OSError):  # another process has removed it
                status = path.stat()
                yield CacheFile(
                    path=path,
                    side=int(named[1]),
                    images=_images(path),
                    size=status.st_size,
                    used=status.st_mtime,
                )


def _images(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            return np.lib.format.read_array_header_1_0(file)[0][0]
    except (OSError, ValueError, IndexError):
        return None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"'{path}' cannot be removed: {error.strerror}") from error
    remove_abandoned(path.parent)
    with suppress(OSError):  # it holds other files
        path.parent.rmdir()
