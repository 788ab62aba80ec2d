"""Where named data sets lie, and fetching those that lie nowhere."""

import hashlib
import http.client
import os
import re
import shutil
import socket
import tarfile
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.error import HTTPError, URLError

# Names a set's folder goes by: ours first, then those of its authors, torchvision and fastai.
FOLDERS = {
    "mnist": ("mnist", "mnist_png", "MNIST"),
    "cifar10": ("cifar10", "CIFAR10", "cifar-10", "CIFAR-10", "cifar-10-batches-py"),
    "cifar100": ("cifar100", "CIFAR100", "cifar-100", "CIFAR-100", "cifar-100-python"),
    "birds": (
        "birds",
        "CUB_200_2010",
        "CUB-200-2010",
        "CUB_200",
        "CUB-200",
        "CUB_200_2011",
        "CUB-200-2011",
    ),
}

# Seconds a server may be silent before it counts as gone.
SILENCE = 60


class Archive(NamedTuple):
    """A packed file to fetch, and the SHA-256 sum it must have."""

    file: str
    url: str
    sha256: str


# Where the authors' page links to since Caltech stopped serving it. `confirm=t` stands for the
# click that Google asks for above 100 MB. Sums: TensorFlow Datasets' caltech_birds2010, version
# 0.1.1, and the same in torchvision's prototype of CUB-200.
BIRDS = (
    Archive(
        "lists.tgz",
        "https://drive.usercontent.google.com/download"
        "?id=1vZuZPqha0JjmwkdaS_XtYryE3Jf5Q1AC&export=download&confirm=t",
        "aeacbd5e3539ae84ea726e8a266a9a119c18f055cd80f3836d5eb4500b005428",
    ),
    Archive(
        "images.tgz",
        "https://drive.usercontent.google.com/download"
        "?id=1GDr1OkoXdhaXWGA8S3MAq3a522Tak-nx&export=download&confirm=t",
        "2a6d2246bbb9778ca03aa94e2e683ccb4f8821a36b7f235c0822e659d60a803e",
    ),
)

BY_HAND = {
    "mnist": "MNIST's four idx files, or folders 'training' and 'testing' of class folders",
    "cifar10": "'cifar-10-batches-py', or folders 'train' and 'test' of class folders",
    "cifar100": "'cifar-100-python', or folders 'train' and 'test' of class folders",
    "birds": "the 2010 set's folders 'images' and 'lists'",
}

FAILURES = (
    OSError,
    RuntimeError,
    EOFError,
    http.client.HTTPException,
    tarfile.TarError,
    zlib.error,
)


def found(name: str, path: Path | None = None) -> Path | None:
    """Look for a named data set: in `path`, else in ``$FASTCV_DATA``, else in fastai's data folder.

    Folders go by any of the set's names (`FOLDERS`); empty ones do not count. The birds of 2011
    are not taken from fastai's folder, where they may lie for another purpose.

    Returns:
        `path` itself, or the first folder found; None if there is none.

    Raises:
        ValueError: `path` or ``$FASTCV_DATA`` is no folder.
    """
    if path is not None:
        given = Path(path).expanduser()
        if not given.is_dir():
            what = "is a file" if given.exists() else "does not exist"
            raise ValueError(
                f"the data of {name} must lie in a folder, but '{given}' {what}: "
                "give the set's folder, or the one above it"
            )
        return given
    if os.environ.get("FASTCV_DATA"):
        data = Path(os.environ["FASTCV_DATA"]).expanduser()
        if not data.is_dir():
            raise ValueError(
                f"$FASTCV_DATA must name a folder of data sets, but there is none at '{data}': "
                "make it, or unset the variable"
            )
        for folder in FOLDERS[name]:
            if _filled(data / folder):
                return data / folder
    data = _fastai_data()
    for folder in FOLDERS[name]:
        if "2011" not in folder and _filled(data / folder):
            return data / folder
    return None


def fetched(name: str) -> Path:
    """Fetch a named data set into fastai's data folder, with a progress bar.

    All is written into a hidden folder beside the one it will be, which gets its name once it is
    whole; whatever goes wrong, that folder is removed. Of several processes that fetch the same
    set at once, the first to finish puts it there, and the others take that one.

    Returns:
        the folder it is in.

    Raises:
        ValueError: no answer, a checksum differs, or the folder cannot be written.
    """
    target = _fastai_data() / name
    # Not tempfile.mkdtemp: its folders are closed to other users, and this one is to stay.
    part = target.with_name(f".{name}-{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        with _patience(SILENCE):
            DOWNLOADS[name](part)
        try:
            os.rename(part, target)
        except OSError:
            if not _filled(target):
                raise
    except FAILURES as error:
        raise ValueError(
            f"{name} is not on this machine and must be fetched, but {_reason(error)}: "
            f"try again, or put {BY_HAND[name]} into '{target}', $FASTCV_DATA/{name} or "
            "a folder of your own (--data PATH)"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _filled(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is not None


def _fastai_data() -> Path:
    """Ask fastai for its data folder (``~/.fastai/data`` unless its configuration differs)."""
    # Here, because this import takes seconds, and data that a path names does without.
    from fastai.data.external import fastai_path

    try:
        with warnings.catch_warnings():
            # Where fastai makes its configuration, it leaves the file for Python to close.
            warnings.simplefilter("ignore", ResourceWarning)
            return Path(fastai_path("data"))
    except OSError as error:
        raise ValueError(
            "fastai must have a folder for its configuration and data, but "
            f"'{error.filename}' cannot be written ({error.strerror}): set $FASTAI_HOME, or give "
            "the data's place with --data PATH"
        ) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let sockets give up after so many silent seconds: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RuntimeError) and "corrupted" in said:
        return "what came is truncated or altered (its checksum is not the published one)"
    # torchvision's MNIST tells of all its servers in one RuntimeError.
    no_answer = re.search("<urlopen error (.*?)>", said)
    if isinstance(error, RuntimeError) and no_answer:
        return f"its servers gave no whole answer ({no_answer[1]})"
    if isinstance(error, tarfile.TarError | EOFError | zlib.error):
        return f"what came cannot be unpacked ({said})"
    if isinstance(error, HTTPError):
        return f"its server refused ({said})"
    if isinstance(error, URLError | TimeoutError | ConnectionError | http.client.HTTPException):
        return f"its server gave no whole answer ({getattr(error, 'reason', said)})"
    return f"that failed ({said})"


def _download_cifar(folder: Path, name: Literal["CIFAR10", "CIFAR100"]) -> None:
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    dataset = getattr(datasets, name)
    download_url(dataset.url, folder, dataset.filename, dataset.tgz_md5)
    _unpack(folder / dataset.filename)


def _download_mnist(folder: Path) -> None:
    from torchvision.datasets import MNIST

    MNIST(folder, download=True)
    for archive in (folder / "MNIST" / "raw").glob("*.gz"):
        archive.unlink()


def _download_birds(folder: Path) -> None:
    from torchvision.datasets.utils import download_url

    for archive in BIRDS:
        packed = folder / archive.file
        download_url(archive.url, folder, archive.file)
        with packed.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != archive.sha256:
                raise RuntimeError(f"'{archive.file}' is corrupted")
        _unpack(packed)


def _unpack(packed: Path) -> None:
    """Unpack an archive beside itself, and remove it."""
    with tarfile.open(packed) as archive:
        # The filter keeps members from being written outside of the folder.
        archive.extractall(packed.parent, filter="data")
    packed.unlink()


DOWNLOADS: dict[str, Callable[[Path], None]] = {
    "mnist": _download_mnist,
    "cifar10": partial(_download_cifar, name="CIFAR10"),
    "cifar100": partial(_download_cifar, name="CIFAR100"),
    "birds": _download_birds,
}
