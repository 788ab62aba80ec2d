"""Where a sweep keeps its trials: a journal file in its folder, or a PostgreSQL data base."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from fastcv.recipe.bounds import shown

JOURNAL = "journal.log"
EXTRA = "a sweep needs Optuna: pip install 'fastcv[sweep]'"
DRIVER = "a sweep in PostgreSQL needs its driver: pip install 'fastcv[sweep-postgresql]'"
_KINDS = re.compile(r"postgres(ql)?(\+\w+)?://")


def optuna() -> ModuleType:
    """Import Optuna, which is an extra, and keep it from talking.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError(EXTRA) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def check_url(url: str | None) -> None:
    """Raise a ValueError unless `url` is None or that of a PostgreSQL data base."""
    if url is None or _KINDS.match(url):
        return
    if url.startswith("sqlite"):
        raise ValueError(
            "a sweep must not be kept in SQLite, which fails when several processes write: leave "
            "--storage out for a journal file, or name postgresql://HOST/NAME"
        )
    raise ValueError(f"--storage must read postgresql://HOST/NAME, got {shown(without_login(url))}")


def without_login(url: str) -> str:
    """Leave user and password out of an address."""
    return re.sub(r"://.*@", "://", url)


@contextmanager
def connected(url: str | None, folder: Path) -> Iterator[Any]:
    """Open the storage of a sweep: Optuna's journal file in its folder, or a data base.

    Raises:
        ValueError: there is no such data base, or it needs a package that is not installed.
    """
    storages = optuna().storages
    if url is None:
        journal = folder / JOURNAL
        _mend(journal)
        yield storages.JournalStorage(storages.journal.JournalFileBackend(str(journal)))
        return
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise ValueError(DRIVER) from error
    # A connection that broke while a trial trained is made anew.
    engine = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
    with answering(url):
        storage = storages.RDBStorage(_KINDS.sub("postgresql+psycopg://", url), engine)
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Say in a sentence that a data base does not answer.

    Raises:
        ValueError: it does not.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split())[:200]
        raise ValueError(
            f"the data base of a sweep must answer, {without_login(url)} does not ({reason}): give "
            "the same command again when it does, and the sweep goes on"
        ) from error


def _mend(journal: Path) -> None:
    """Cut a line off that a full disk or a power cut left half written: it makes all unreadable."""
    from optuna.storages.journal import JournalFileSymlinkLock

    if not journal.is_file() or not journal.stat().st_size:
        return
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()
    try:
        with journal.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.seek(0)
                whole = file.read().rpartition(b"\n")[0]
                file.truncate(len(whole) + 1 if whole else 0)
    finally:
        with suppress(RuntimeError):
            lock.release()
