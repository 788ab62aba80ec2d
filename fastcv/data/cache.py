"""Decoded images as one uint8 array: made once, kept in a file, mapped into memory."""

import contextlib
import hashlib
import json
import mmap
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from fastcv.data.decoding import Decoding

# Pixels that come as arrays, as the original CIFAR files give them, are not written to a file
# below this many bytes: reading it back would take longer than putting them together anew.
HELD_IN_MEMORY = 512 * 2**20
LAYOUT = 1  # of the file; a new number makes all files stale
KEPT = 4  # files of the same decode settings in one folder; the longest unused go
CHUNK = 64  # images a thread decodes before it asks for more
BAR_WIDTH = 24  # characters
REDRAW_SECONDS = 0.1
ABANDONED_SECONDS = 24 * 3600  # an unfinished file as old as this has lost its writer


class Pixels(NamedTuple):
    """Decoded images, and where each one that was asked for stands.

    Attributes:
        images: (N, side, side, channels), uint8; mapped from a file, or in memory.
        rows: for each image asked for, its row in `images`.
        bad: for each image asked for that cannot be read, by its place, why.
    """

    images: np.ndarray
    rows: np.ndarray
    bad: dict[int, str]


def cached(
    images: Sequence[Path | np.ndarray],
    decoding: Decoding,
    root: Path | None = None,
    *,
    skip_bad: bool = False,
) -> Pixels:
    """Give the decoded images, from the cache's file if it is there and not stale, else made anew.

    The file lies in the hidden folder `.fastcv` of the data, or in fastai's data folder where
    that cannot be written or there is none. Its name says what it was made from: names, sizes and
    times of the files (or the pixels of arrays) and the decode settings, so that a stale one is
    never found. It is written under another name first: two processes that make it at once both
    make it whole.

    Args:
        images: files, or pixels.
        decoding: how they become squares of one size.
        root: the folder of the data; file names below it are part of the key, itself it is not.
        skip_bad: whether files that cannot be read are left black and told in `bad`.

    Raises:
        ValueError: an image cannot be read and `skip_bad` is off, or the disk is too full.
    """
    in_memory = all(isinstance(image, np.ndarray) for image in images)
    if in_memory and len(images) * decoding.side**2 * decoding.channels <= HELD_IN_MEMORY:
        decoded = np.empty(_shape(len(images), decoding), np.uint8)
        bad = _decode_into(decoded, images, decoding, skip_bad, "")
        return Pixels(decoded, np.arange(len(images)), bad)

    names = _identities(images, root)
    sources = dict(zip(names, images, strict=True))
    order = sorted(sources)  # so that other splits of the same files find the same cache
    made_from = "\n".join([f"{LAYOUT} {PIL.__version__} {decoding}", *order])
    key = hashlib.sha256(os.fsencode(made_from)).hexdigest()
    name = f"{decoding.side}px-{decoding.channels}ch-{key[:20]}.npy"
    decoded, faults = _opened_or_made(
        name, [sources[each] for each in order], decoding, root, skip_bad
    )
    row_of = {each: row for row, each in enumerate(order)}
    rows = np.fromiter((row_of[each] for each in names), np.int64, len(names))
    bad = {place: faults[row] for place, row in enumerate(rows.tolist()) if row in faults}
    return Pixels(decoded, rows, bad)


def _shape(count: int, decoding: Decoding) -> tuple[int, int, int, int]:
    return count, decoding.side, decoding.side, decoding.channels


def _identities(images: Sequence[Path | np.ndarray], root: Path | None) -> list[str]:
    """Name each image by what decides its pixels: name, size and time, or the pixels' hash.

    Raises:
        ValueError: a file is not there.
    """
    below = f"{root}{os.sep}" if root is not None else ""
    identities = []
    for image in images:
        if isinstance(image, np.ndarray):
            digest = hashlib.sha256(np.ascontiguousarray(image)).hexdigest()
            identities.append(f"{image.shape} {digest}")
            continue
        path = os.fspath(image)
        try:
            status = os.stat(path)
        except OSError as error:
            raise ValueError(f"image '{image}' cannot be read: {error.strerror}") from error
        name = path.removeprefix(below)
        identities.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
    return identities


def _opened_or_made(
    name: str,
    images: list[Path | np.ndarray],
    decoding: Decoding,
    root: Path | None,
    skip_bad: bool,
) -> tuple[np.ndarray, dict[int, str]]:
    """Map the cache's file, which is made if there is none; with what is wrong with which row."""
    shape = _shape(len(images), decoding)
    folder = _folder(root, name)
    decoded = _mapped(folder / name, shape)
    if decoded is None:
        faults = _make(folder / name, images, decoding, skip_bad)
        _remove_unused(folder, name)
        decoded = _mapped(folder / name, shape)
        assert decoded is not None
        return decoded, faults
    faults = _read_faults(folder / name)
    if faults and not skip_bad:
        raise ValueError(next(iter(faults.values())))
    return decoded, faults


def _folder(root: Path | None, name: str) -> Path:
    """Where the cache's file is, or else where it can be written."""
    if root is not None:
        folder = root / ".fastcv"
        if (folder / name).is_file() or _can_write(folder):
            return folder
    # Here, because this import takes seconds and is seldom needed.
    from fastai.data.external import fastai_path

    folder = Path(fastai_path("data")) / "fastcv"
    if not _can_write(folder):
        raise ValueError(
            f"the image cache needs a folder that can be written, but '{folder}' cannot: "
            "make it writable, or set cache='off'"
        )
    return folder


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Map a cache file into memory, or None where there is none or it is not whole."""
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            found, _, kind = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            size = int(np.prod(shape))
            if found != shape or kind != np.uint8 or os.fstat(file.fileno()).st_size < start + size:
                return None
            # Copy-on-write, because torch warns of memory that must not be written.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):
        return None
    with suppress(OSError):  # the time of its last use, by which old files are removed
        os.utime(path)
    if hasattr(mapped, "madvise"):
        # A file that fits is read ahead whole; of a larger one only what is asked for.
        fits = size < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        mapped.madvise(mmap.MADV_WILLNEED if fits else mmap.MADV_RANDOM)
    return np.frombuffer(mapped, np.uint8, size, start).reshape(shape)


def _faults_file(path: Path) -> Path:
    return path.with_suffix(".bad.json")


def _read_faults(path: Path) -> dict[int, str]:
    try:
        told = json.loads(_faults_file(path).read_text())
    except FileNotFoundError:
        return {}
    return {int(row): fault for row, fault in told.items()}


def _make(
    path: Path, images: list[Path | np.ndarray], decoding: Decoding, skip_bad: bool
) -> dict[int, str]:
    """Write the cache's file under another name and rename it once it is whole."""
    shape = _shape(len(images), decoding)
    size, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if free < size:
        raise ValueError(
            f"the image cache needs {size / 1e9:.1f} GB in '{path.parent}', but "
            f"{free / 1e9:.1f} GB is free: free some, or set cache='off'"
        )
    partial = path.with_name(f"{path.stem}-{secrets.token_hex(4)}.partial")
    try:
        decoded = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        faults = _decode_into(decoded, images, decoding, skip_bad, f"decoding into '{path.parent}'")
        decoded.flush()
        del decoded
        if faults:  # first, so that no file is ever found without its faults
            partial_faults = partial.with_suffix(".json.partial")
            partial_faults.write_text(json.dumps(faults))
            os.replace(partial_faults, _faults_file(path))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds something
            path.parent.rmdir()
    return faults


def _decode_into(
    decoded: np.ndarray,
    images: Sequence[Path | np.ndarray],
    decoding: Decoding,
    skip_bad: bool,
    announced: str,
) -> dict[int, str]:
    """Decode all images by all cores.

    Threads, since Pillow decodes and resizes outside Python's lock.

    Returns:
        what is wrong with the images that cannot be read, by their place.
    """

    def decode(start: int) -> dict[int, str]:
        bad = {}
        for place in range(start, min(start + CHUNK, len(images))):
            try:
                decoded[place] = decoding(images[place])
            except ValueError as error:
                if not skip_bad or isinstance(images[place], np.ndarray):
                    raise
                decoded[place] = 0
                bad[place] = str(error)
        return bad

    faults: dict[int, str] = {}
    threads = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        chunks = threads.map(decode, range(0, len(images), CHUNK))
        for bad in _with_bar(chunks, len(images), announced) if announced else chunks:
            faults |= bad
    finally:
        threads.shutdown(cancel_futures=True)
    return faults


def _with_bar(chunks: Iterator[dict], total: int, what: str) -> Iterator[dict]:
    """Pass the chunks on, with a bar on a terminal, with one line at the end anywhere else."""
    live, drawn, started = sys.stderr.isatty(), 0.0, time.perf_counter()
    for number, chunk in enumerate(chunks, start=1):
        yield chunk
        now = time.perf_counter()
        if live and now - drawn > REDRAW_SECONDS:
            drawn, done = now, min(number * CHUNK, total)
            bar = "█" * round(done / total * BAR_WIDTH)
            sys.stderr.write(f"\r\x1b[2K{what} {bar:░<{BAR_WIDTH}} {done:,}/{total:,} images")
            sys.stderr.flush()
    seconds = time.perf_counter() - started
    start = "\r\x1b[2K" if live else ""
    sys.stderr.write(f"{start}{what}: {total:,} images, {seconds:.1f} s\n")


def _remove_unused(folder: Path, name: str) -> None:
    """Remove the files that were longest not used, and what dead processes left unfinished."""
    settings = name.rpartition("-")[0]
    last_use = {}
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # another process may have removed it
            last_use[path] = path.stat().st_mtime
    same = [path for path in last_use if path.match(f"{settings}-*.npy")]
    unused = sorted(same, key=last_use.__getitem__, reverse=True)[KEPT:]
    unfinished = [path for path in last_use if path.suffix == ".partial"]
    abandoned = [path for path in unfinished if last_use[path] < time.time() - ABANDONED_SECONDS]
    for path in [*unused, *abandoned]:
        for file in (path, _faults_file(path)):
            with suppress(OSError):  # on Windows another process may have it open
                file.unlink(missing_ok=True)
