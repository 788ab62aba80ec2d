"""Decode images once into a uint8 array, keep it in a file, and map that into memory."""

import errno
import hashlib
import json
import mmap
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from fastcv.data.decoding import Decoding
from fastcv.data.sources.named import fastai_data
from fastcv.terminal import with_bar

# Images that are arrays, as in CIFAR's original files, are not written to a file below this many
# bytes: reading it back would take longer than copying them again.
HELD_IN_MEMORY = 512 * 2**20
LAYOUT = 2  # of the file; a new number makes all files stale
KEPT = 4  # files of the same decode settings in one folder; those unused the longest are removed
CHUNK = 64  # images a thread decodes before it asks for more
ABANDONED_SECONDS = 24 * 3600  # an unfinished file of this age has lost its writer
REMEDY = "replace it, or skip such images with --skip-bad (skip_bad=True)"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class Pixels(NamedTuple):
    """Decoded images, and the row of each requested one."""

    images: np.ndarray  # (N, side, side, channels), uint8; mapped from a file, or in memory
    rows: np.ndarray  # in `images`, of each requested image
    bad: dict[int, str]  # why an image cannot be read, by its place among the requested ones


def cached(
    images: Sequence[Path | np.ndarray],
    decoding: Decoding,
    root: Path | None = None,
    *,
    skip_bad: bool = False,
) -> Pixels:
    """Return the decoded images, from the cache's file unless it is missing or stale.

    The file lies in the data's hidden folder `.fastcv`, or in fastai's data folder if there is no
    folder of the data or it cannot be written. Its name is a hash of names, sizes and times of the
    files (or the pixels of arrays) and of the decode settings, so that a stale file is never found.
    It is renamed once it is whole: two processes that make it at once both succeed. Files that
    could not be read are tried again each time.

    Args:
        images: files, or pixels.
        decoding: how they become squares.
        root: the folder of the data; if it is moved, a cache in it is still found.
        skip_bad: whether files that cannot be read are left black and listed in `bad`.

    Raises:
        ValueError: an image cannot be read and `skip_bad` is off, the disk is too full, or no
            folder can be written.
    """
    in_memory = all(isinstance(image, np.ndarray) for image in images)
    if in_memory and len(images) * decoding.side**2 * decoding.channels <= HELD_IN_MEMORY:
        decoded = np.empty(_shape(len(images), decoding), np.uint8)
        bad = _decode_into(decoded, images, decoding, skip_bad, "")
        return Pixels(decoded, np.arange(len(images)), bad)

    names = [_identity(image, root, skip_bad) for image in images]
    sources = dict(zip(names, images, strict=True))
    order = sorted(sources)  # so that other splits of the same files find the same cache
    in_order = [sources[each] for each in order]
    decoded, faults = _opened_or_made(order, in_order, decoding, root, skip_bad)
    row_of = {each: row for row, each in enumerate(order)}
    rows = np.fromiter((row_of[each] for each in names), np.int64, len(names))
    bad = {place: faults[row] for place, row in enumerate(rows.tolist()) if row in faults}
    return Pixels(decoded, rows, bad)


def _shape(count: int, decoding: Decoding) -> tuple[int, int, int, int]:
    return count, decoding.side, decoding.side, decoding.channels


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
    order: list[str],
    images: list[Path | np.ndarray],
    decoding: Decoding,
    root: Path | None,
    skip_bad: bool,
) -> tuple[np.ndarray, dict[int, str]]:
    """Map the cache's file, making it if needed; return it with the faults of its rows."""
    shape = _shape(len(images), decoding)
    for folder, marks in _folders(root):
        made_from = "\n".join([f"{LAYOUT} {PIL.__version__} {decoding}", *marks, *order])
        key = hashlib.sha256(os.fsencode(made_from)).hexdigest()
        path = folder / f"{decoding.side}px-{decoding.channels}ch-{key[:20]}.npy"
        opened = _opened(path, shape)
        if opened is not None:
            decoded, before = opened
            faults = _tried_again(before, images, decoding)
            if faults and not skip_bad:
                raise ValueError(f"{next(iter(faults.values()))}: {REMEDY}")
            if faults.keys() == before.keys():
                return decoded, faults
        # For example, another user's file of that name must not be replaced.
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                _make(path, images, decoding, skip_bad)
                _remove_unused(folder, path.name)
                opened = _opened(path, shape)
                assert opened is not None
                return opened
    neither = "" if root is None else f"'{root / '.fastcv'}' cannot, nor can "
    raise ValueError(
        f"the image cache needs a folder that can be written, but {neither}fastai's data folder"
        f"{'' if neither else ' cannot'}: make one writable, set FASTAI_HOME to one that is, or "
        "set cache='off'"
    )


def _folders(root: Path | None) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder that may hold the cache's file, and what marks the file's name there."""
    if root is not None:
        yield root / ".fastcv", []
    try:
        folder = fastai_data() / "fastcv"
    except (ValueError, RuntimeError):  # the home folder is missing or cannot be written
        return
    # Images of many roots share this folder, and may share names.
    yield folder, [] if root is None else [os.path.realpath(root)]


def _tried_again(
    faults: dict[int, str], images: list[Path | np.ndarray], decoding: Decoding
) -> dict[int, str]:
    """Decode the images with faults again, and return those that still fail."""
    rows = list(faults)
    scratch = np.empty(_shape(len(rows), decoding), np.uint8)
    still = _decode_into(scratch, [images[row] for row in rows], decoding, True, "")
    return {rows[place]: fault for place, fault in still.items()}


def _opened(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[int, str]] | None:
    """Map a whole cache file into memory, and read the faults stored behind its images."""
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
        fits = size < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        mapped.madvise(mmap.MADV_WILLNEED if fits else mmap.MADV_RANDOM)
    return np.frombuffer(mapped, np.uint8, size, start).reshape(shape), faults


def _make(path: Path, images: list[Path | np.ndarray], decoding: Decoding, skip_bad: bool) -> None:
    """Write the cache's file under another name, and rename it once it is whole."""
    shape = _shape(len(images), decoding)
    size, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    needs = f"the image cache needs {_amount(size)} in '{path.parent}', but"
    remedy = "free some, or set cache='off'"
    if free < size:
        raise ValueError(f"{needs} {_amount(free)} is free: {remedy}")
    partial = path.with_name(f"{path.stem}-{secrets.token_hex(4)}.partial")
    try:
        decoded = _allocated(partial, shape)
        faults = _decode_into(decoded, images, decoding, skip_bad, f"decoding into '{path.parent}'")
        decoded.flush()
        del decoded
        with partial.open("a") as file:
            json.dump(faults, file)
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise ValueError(f"{needs} the system says '{error.strerror}': {remedy}") from error
    finally:
        partial.unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty
            path.parent.rmdir()


def _amount(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


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
    for path in folder.glob("*"):
        with suppress(OSError):  # another process may have removed it
            last_use[path] = path.stat().st_mtime
    same = [path for path in last_use if path.match(f"{settings}-*.npy")]
    unused = sorted(same, key=last_use.__getitem__, reverse=True)[KEPT:]
    unfinished = [path for path in last_use if path.suffix == ".partial"]
    abandoned = [path for path in unfinished if last_use[path] < time.time() - ABANDONED_SECONDS]
    for path in [*unused, *abandoned]:
        with suppress(OSError):  # on Windows another process may have it open
            path.unlink(missing_ok=True)
