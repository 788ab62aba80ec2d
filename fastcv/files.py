"""Write files whole or not at all, and keep a run directory to one process at a time."""

import csv
import errno
import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

LOCK = ".lock"
# EFBIG: a file would be larger than `ulimit -f` allows.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NoRoom(ValueError):
    """A file could not be written, because the disk is full, or as full as it may be."""


class _Watched(io.FileIO):
    """A file that remembers why writing failed: torch's writer raises something else after it."""

    failed: OSError | None = None

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            self.failed = error
            raise


@contextmanager
def atomic(path: Path, size: int = 0) -> Iterator[BinaryIO]:
    """Open a file that gets its name when it is complete; after an error nothing has changed.

    Args:
        path: the file.
        size: about how many bytes it will have, if that is known.

    Raises:
        NoRoom: the disk is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    raw = None
    try:
        part.unlink(missing_ok=True)  # of a process killed earlier, or a link to somewhere else
        raw = _Watched(part, "xb")
        with io.BufferedWriter(raw) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the new name with an empty file
        os.replace(part, path)
    except Exception as error:
        full = error if is_no_room(error) else getattr(raw, "failed", None)
        if full is None or not is_no_room(full):
            raise
        written = part.stat().st_size if part.exists() else 0
        part.unlink(missing_ok=True)
        raise no_room(path, full, max(size, written + 1)) from error
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder: Path, what: str) -> None:
    """Make a folder if there is none.

    Args:
        folder: its path.
        what: what is going to be written into it, for the error: "a report".

    Raises:
        ValueError: the system refuses to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{what} must go into a folder that can be written to, {str(folder)!r} cannot be: "
            f"{error.strerror}"
        ) from error


def make_way(file: Path, what: str) -> None:
    """Make the folder of a file that is going to be written, if there is none.

    Args:
        file: its path.
        what: what the file is, for the error: "a page".

    Raises:
        ValueError: the system refuses to, or the file is a folder.
    """
    if file.is_dir():
        raise ValueError(f"{what} must be a file, {str(file)!r} is a folder: name a file in it")
    make_folder(file.parent, what)


def is_no_room(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or the largest size of a file is exhausted."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


def no_room(path: Path, error: OSError, size: int = 0) -> NoRoom:
    """Return the error that says what is to be done about a full disk.

    Args:
        path: what was written.
        error: what the system said.
        size: bytes that it needs; 0: unknown.
    """
    needs = f"{amount(size)} or more" if size else "more"
    with suppress(OSError):
        return NoRoom(
            f"writing {path.name!r} needs {needs} in {str(path.parent)!r}, where "
            f"{amount(shutil.disk_usage(path.parent).free)} is free ({error.strerror}): make room "
            "there"
        )
    return NoRoom(f"writing {str(path)!r} needs {needs} ({error.strerror}): make room there")


def amount(size: int) -> str:
    """Write a number of bytes in its natural unit: "12 bytes", "4 kB", "1.3 MB", "2.0 GB"."""
    if size < 1e3:
        return f"{size} byte{'s' * (size != 1)}"
    if size < 1e5:
        return f"{math.ceil(size / 1e3)} kB"
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed left half written in a folder nobody writes to."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic(path, len(content)) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV with a column for every key of any row, whole or not at all."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a CSV file, if it exists; numbers become int or float, empty cells None.

    Raises:
        ValueError: it is not CSV in UTF-8, or a row lacks cells.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} must be CSV in UTF-8: {error}") from error
    if any(None in row or None in row.values() for row in rows):
        raise ValueError(f"every row of {str(path)!r} must have all its columns: it is damaged")
    return [{name: _number(text) for name, text in row.items()} for row in rows]


def _number(text: str) -> int | float | str | None:
    if text == "":
        return None
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a run directory."""
    if not (path / LOCK).exists():
        return False
    try:
        with FileLock(path / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # as `lock` has it
        return False


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keep a run directory to one process while it trains; two would overwrite each other's files.

    On a file system without locks, nothing is locked.

    Raises:
        ValueError: another process holds the lock.
    """
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"a run must be trained by one process at a time, and another trains {str(path)!r}: "
            f"wait for it, or stop it first"
        ) from None
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        (path / LOCK).unlink(missing_ok=True)  # while the lock is held: nobody waits for it
        lock.release()
