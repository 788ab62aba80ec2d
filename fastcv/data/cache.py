"""Decode images once into a uint8 array, keep it in a file, and map that into memory."""

import errno
import hashlib
import json
import mmap
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from fastcv.data.decoding import Decoding
from fastcv.data.sources.named import fastai_data
from fastcv.files import amount
from fastcv.terminal import with_bar

FOLDER = ".fastcv"  # in a data set's own folder
SHARED = "fastcv"  # in fastai's data folder, for data sets that have none or cannot be written to
# Images that are arrays, as in CIFAR's original files, are not written to a file below this many
# bytes: reading it back would take longer than copying them again.
HELD_IN_MEMORY = 512 * 2**20
LAYOUT = 2  # of the file; a new number makes all files stale
KEPT = 4  # files of the same decode settings in one folder; those unused the longest are removed
CHUNK = 64  # images a thread decodes before it asks for more
ABANDONED_SECONDS = 24 * 3600  # an unfinished file of this age has lost its writer
REMEDY = "replace it, or skip such images with --skip-bad (skip_bad=True)"
NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class Pixels(NamedTuple):
    """Decoded images, and the row of each listed one."""

    images: np.ndarray  # (N, side, side, channels), uint8; mapped from a file, or in memory
    rows: np.ndarray  # in `images`, of each listed image; -1 for one that is not used
    bad: dict[int, str]  # why an image cannot be read, by its place among the listed ones


class _Kept(NamedTuple):
    """The content of a cache's file."""

    images: np.ndarray  # (N, side, side, channels), uint8
    order: list[str]  # the identities of its images
    faults: dict[int, str]  # why an image cannot be read, by its row


def cached(
    images: Sequence[Path | np.ndarray],
    decoding: Decoding,
    root: Path | None = None,
    *,
    used: Iterable[int] | None = None,
    skip_bad: bool = False,
) -> Pixels | None:
    """Return the decoded images, from the cache's file unless it is missing or stale.

    The file lies in the data's hidden folder `.fastcv`, or in fastai's data folder if there is no
    folder of the data or it cannot be written. Its name is a hash of names, sizes and times of the
    files (or the pixels of arrays) and of the decode settings, so that a stale file is never found.
    It is renamed once it is whole: two processes that make it at once both succeed. Files that
    could not be read are tried again each time.

    A file of all listed images also serves those that use some of them; if there is none, only what
    is used is decoded.

    If no file can be written, which one line on stderr tells, the images are decoded into memory.

    Args:
        images: files, or pixels.
        decoding: how they become squares.
        root: the folder of the data; if it is moved, a cache in it is still found.
        used: places of the images that are needed; None for all.
        skip_bad: whether files that cannot be read are left black and listed in `bad`.

    Returns:
        None if no file can be written and memory is too small.

    Raises:
        ValueError: an image that is used cannot be read and `skip_bad` is off.
    """
    places = np.arange(len(images)) if used is None else np.unique(np.asarray(list(used), np.int64))
    wanted = [images[place] for place in places.tolist()]
    in_memory = all(isinstance(image, np.ndarray) for image in wanted)
    if in_memory and _bytes(len(wanted), decoding) <= HELD_IN_MEMORY:
        decoded = np.empty(_shape(len(wanted), decoding), np.uint8)
        faults = _decode_into(decoded, wanted, decoding, skip_bad, "")
        own = np.arange(len(wanted))
    else:
        needed = set(places.tolist())
        names = [
            _identity(image, root, skip_bad or place not in needed)
            for place, image in enumerate(images)
        ]
        listed = dict(zip(names, images, strict=True))
        asked = [names[place] for place in places.tolist()]
        kept = _opened_or_made(
            {name: listed[name] for name in asked}, listed, decoding, root, skip_bad
        )
        if kept is None:
            return None
        decoded = kept.images
        row_of = {name: row for row, name in enumerate(kept.order)}
        own = np.fromiter((row_of[name] for name in asked), np.int64, len(asked))
        faults = {at: kept.faults[row] for at, row in enumerate(own.tolist()) if row in kept.faults}
    rows = np.full(len(images), -1)
    rows[places] = own
    return Pixels(decoded, rows, {int(places[at]): fault for at, fault in faults.items()})


def _shape(count: int, decoding: Decoding) -> tuple[int, int, int, int]:
    return count, decoding.side, decoding.side, decoding.channels


def _bytes(count: int, decoding: Decoding) -> int:
    return count * decoding.side**2 * decoding.channels


def _identity(image: Path | np.ndarray, root: Path | None, skip_bad: bool) -> str:
    """Name an image by what decides its pixels: name, size and times, or the pixels' hash."""
    if isinstance(image, np.ndarray):
        return f"{image.shape} {hashlib.sha256(np.ascontiguousarray(image)).hexdigest()}"
    path = os.fspath(image)
    name = path if root is None else path.removeprefix(f"{root}{os.sep}")
    try:
        status = os.stat(path)
    except OSError as error:
        if skip_bad:
            return f"{name}\0unknown"
        raise ValueError(f"image '{image}' cannot be read: {error.strerror}: {REMEDY}") from error
    # The second time changes with the first, and when another file is renamed to this name.
    return f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"


def _opened_or_made(
    asked: Mapping[str, Path | np.ndarray],
    listed: Mapping[str, Path | np.ndarray],
    decoding: Decoding,
    root: Path | None,
    skip_bad: bool,
) -> _Kept | None:
    """Find a file of what is listed or of what is asked for; make the latter if there is none.

    Images come by their identities. None if there can be no file, and memory is too small.
    """
    order = sorted(asked)  # so that other splits of the same files find the same cache
    reasons = []
    for folder, marks in _folders(root):
        for each in (order,) if len(listed) == len(asked) else (sorted(listed), order):
            made_from = "\n".join([f"{LAYOUT} {PIL.__version__} {decoding}", *marks, *each])
            key = hashlib.sha256(os.fsencode(made_from)).hexdigest()
            path = folder / f"{decoding.side}px-{decoding.channels}ch-{key[:20]}.npy"
            kept = _still_good(_opened(path, each, decoding), asked, decoding, skip_bad)
            if kept is not None:
                return kept
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            _make(path, _sources(asked, listed, decoding, root, skip_bad), decoding, skip_bad)
        except OSError as error:  # for example, another user's file of that name must stay
            reasons.append(f"'{folder}': {error.strerror or error}")
            continue
        _remove_unused(folder, path.name)
        kept = _opened(path, order, decoding)
        assert kept is not None
        return kept
    size = _bytes(len(order), decoding)
    why = "; ".join(reasons) or "there is no folder for it"
    if not _fits_in_memory(size):
        _tell(f"no image cache ({why}): images are decoded at each use, which is slower")
        return None
    _tell(f"no image cache ({why}): images are decoded into memory, for this run alone")
    decoded = np.empty(_shape(len(order), decoding), np.uint8)
    faults = _decode_into(decoded, [asked[name] for name in order], decoding, skip_bad, "decoding")
    return _Kept(decoded, order, faults)


def _sources(
    asked: Mapping[str, Path | np.ndarray],
    listed: Mapping[str, Path | np.ndarray],
    decoding: Decoding,
    root: Path | None,
    skip_bad: bool,
) -> list[Path | np.ndarray]:
    """Return what a file is made of: the images, or their larger squares from another file."""
    order = sorted(asked)
    larger = replace(decoding, side=decoding.via or decoding.side, via=None)
    kept = decoding.via and _opened_or_made(asked, listed, larger, root, skip_bad)
    if not kept:
        return [asked[name] for name in order]
    squares = {
        name: square
        for row, (name, square) in enumerate(zip(kept.order, kept.images, strict=True))
        if row not in kept.faults  # whose file fails again
    }
    return [squares.get(name, asked[name]) for name in order]


@cache
def _tell(line: str) -> None:
    """Print a line on stderr, once."""
    print(line, file=sys.stderr)


def _fits_in_memory(size: int) -> bool:
    if not hasattr(os, "sysconf"):  # as on Windows
        return True
    return size < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _folders(root: Path | None) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder that may hold the cache's file, and what marks the file's name there."""
    if root is not None:
        yield root / FOLDER, []
    try:
        folder = fastai_data() / SHARED
    except (ValueError, RuntimeError):  # the home folder is missing or cannot be written
        return
    # Images of many roots share this folder, and may share names.
    yield folder, [] if root is None else [os.path.realpath(root)]


def _still_good(
    kept: _Kept | None,
    asked: Mapping[str, Path | np.ndarray],
    decoding: Decoding,
    skip_bad: bool,
) -> _Kept | None:
    """Try the images with faults again; None if one of them can be read by now."""
    if kept is None:
        return None
    rows = [row for row in kept.faults if kept.order[row] in asked]
    scratch = np.empty(_shape(len(rows), decoding), np.uint8)
    images = [asked[kept.order[row]] for row in rows]
    found = _decode_into(scratch, images, decoding, True, "")
    if found and not skip_bad:
        raise ValueError(f"{next(iter(found.values()))}: {REMEDY}")
    if len(found) < len(rows):
        return None
    return kept._replace(faults=dict(zip(rows, found.values(), strict=True)))


def _opened(path: Path, order: list[str], decoding: Decoding) -> _Kept | None:
    """Map a whole cache file into memory, and read the faults stored behind its images."""
    shape = _shape(len(order), decoding)
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            found, _, kind = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            size = int(np.prod(shape))
            if found != shape or kind != np.uint8:
                return None
            file.seek(start + size)
            faults = {int(row): fault for row, fault in json.load(file).items()}
            # Copy-on-write, because torch warns of read-only memory.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):
        return None
    with suppress(OSError):  # its time of last use decides whether it is removed
        os.utime(path)
    if hasattr(mapped, "madvise"):
        # A file that fits is read ahead as a whole, a larger one only where it is used.
        mapped.madvise(mmap.MADV_WILLNEED if _fits_in_memory(size) else mmap.MADV_RANDOM)
    return _Kept(np.frombuffer(mapped, np.uint8, size, start).reshape(shape), order, faults)


def _make(
    path: Path, images: Sequence[Path | np.ndarray], decoding: Decoding, skip_bad: bool
) -> None:
    """Write the cache's file under another name, and rename it once it is whole.

    Raises:
        OSError: there is no room for it, or it cannot be written.
    """
    shape = _shape(len(images), decoding)
    size, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    partial = path.with_name(f"{path.stem}-{secrets.token_hex(4)}.partial")
    try:
        if free < size:
            raise OSError(errno.ENOSPC, f"{amount(free)} is free of {amount(size)} needed")
        decoded = _allocated(partial, shape)
        faults = _decode_into(decoded, images, decoding, skip_bad, f"decoding into '{path.parent}'")
        decoded.flush()
        del decoded
        with partial.open("a") as file:
            json.dump(faults, file)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty
            path.parent.rmdir()


def _allocated(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Map a new file with its space reserved: writing a sparse one on a full disk kills Python."""
    decoded = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in NOT_SUPPORTED:
                    raise
    return decoded


def _decode_into(
    decoded: np.ndarray,
    images: Sequence[Path | np.ndarray],
    decoding: Decoding,
    skip_bad: bool,
    announced: str,
) -> dict[int, str]:
    """Decode all images into `decoded`, and return why some cannot be read, by their place.

    In threads on all cores, because Pillow decodes and resizes outside Python's lock.
    """

    def decode(start: int) -> dict[int, str]:
        bad = {}
        for place in range(start, min(start + CHUNK, len(images))):
            try:
                decoded[place] = decoding(images[place])
            except ValueError as error:
                if isinstance(images[place], np.ndarray):
                    raise
                if not skip_bad:
                    raise ValueError(f"{error}: {REMEDY}") from error
                decoded[place] = 0
                bad[place] = str(error)
        return bad

    faults: dict[int, str] = {}
    threads = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        chunks = threads.map(decode, range(0, len(images), CHUNK))
        for bad in with_bar(chunks, CHUNK, len(images), announced) if announced else chunks:
            faults |= bad
    finally:
        threads.shutdown(cancel_futures=True)
    return faults


def _remove_unused(folder: Path, name: str) -> None:
    """Remove the files unused the longest, and files that dead processes left unfinished."""
    settings = name.rpartition("-")[0]
    last_use = {}
    for path in folder.glob(f"{settings}-*.npy"):
        with suppress(OSError):  # another process may have removed it
            last_use[path] = path.stat().st_mtime
    for path in sorted(last_use, key=last_use.__getitem__, reverse=True)[KEPT:]:
        with suppress(OSError):  # on Windows another process may have it open
            path.unlink(missing_ok=True)
    remove_abandoned(folder)


def remove_abandoned(folder: Path) -> None:
    """Remove the files that dead processes left unfinished."""
    for path in folder.glob("*.partial"):
        with suppress(OSError):  # another process may have removed it
            if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
