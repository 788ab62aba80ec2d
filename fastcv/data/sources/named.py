"""What the named data sets share: finding one, fetching it, reading it, counting its images."""

import os
import re
import shutil
import socket
import sys
import tarfile
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from fastcv.data.samples import Parts, Samples, labeled
from fastcv.data.sources.folders import read_folders, split_folders

SILENCE = 60  # seconds a server may be silent before it counts as gone
FAILURES = (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError, zlib.error)


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """A published data set: where it lies, how it is read and fetched, and its number of images."""

    name: str  # in messages, and of the folder it is fetched into
    # Names its folder goes by: ours first, then its authors', torchvision's, fastai's.
    folders: tuple[str, ...]
    # Those of `folders` that fastai's data folder may hold for another purpose.
    not_from_fastai: tuple[str, ...] = ()
    published: tuple[int, int]  # numbers of training and test images
    read: Callable[[Path], Parts | None]  # reads a folder's original files; None if there are none
    download: Callable[[Path], None]  # downloads the set into a folder and unpacks it
    by_hand: str  # what to copy into a folder if the set cannot be fetched
    superclasses: bool = False  # as in `read_folders`

    def samples(self, path: Path | None) -> Samples:
        """Find or fetch the set, and read its original files or else its image folders.

        Raises:
            ValueError: the set is nowhere and cannot be fetched, or its files are not whole.
        """
        place = self.find(path) or self.fetch()
        inner = [place / folder for folder in self.folders if (place / folder).is_dir()]
        for root in (place, *inner):
            parts = self.read(root)
            if parts is not None:
                break
        else:
            root = inner[0] if inner and not split_folders(place) else place
            parts = read_folders(root, self.superclasses)
        samples = labeled(parts, root)
        found = len(samples.train), len(samples.test)
        if found != self.published:
            # Not an error: part of a set is enough to try things out, though not to compare.
            print(
                f"{self.name} in '{root}' is not as published: it has {found[0]:,} training and "
                f"{found[1]:,} test images, not {self.published[0]:,} and {self.published[1]:,}",
                file=sys.stderr,
            )
        return samples

    def find(self, path: Path | None = None) -> Path | None:
        """Return `path`, or else the set's folder in ``$FASTCV_DATA`` or fastai's data folder.

        Empty folders do not count.

        Raises:
            ValueError: ``$FASTCV_DATA`` is not a folder.
        """
        if path is not None:
            return Path(path).expanduser()
        if os.environ.get("FASTCV_DATA"):
            data = Path(os.environ["FASTCV_DATA"]).expanduser()
            if not data.is_dir():
                raise ValueError(
                    f"$FASTCV_DATA must name a folder of data sets, but there is none at '{data}': "
                    "create it, or unset the variable"
                )
            if place := _first_filled(data, self.folders):
                return place
        folders = [each for each in self.folders if each not in self.not_from_fastai]
        return _first_filled(fastai_data(), folders)

    def fetch(self) -> Path:
        """Fetch the set into fastai's data folder with a progress bar, and return its folder there.

        Everything is written into a hidden folder beside the final one, which is renamed once it is
        whole; if anything goes wrong, it is removed. If several processes fetch the same set at
        once, the first to finish puts it there, and the others use that one.

        Raises:
            ValueError: no server answers, a checksum differs, or the folder cannot be written.
        """
        target = fastai_data() / self.name
        # Not tempfile.mkdtemp: its folders are closed to other users, and this one is to stay.
        part = target.with_name(f".{self.name}-{uuid.uuid4().hex}.part")
        try:
            part.mkdir(parents=True)
            with _patience(SILENCE):
                self.download(part)
            try:
                os.rename(part, target)
            except OSError:
                if not _first_filled(target.parent, [target.name]):
                    raise
        except FAILURES as error:
            raise ValueError(
                f"{self.name} is not on this machine and must be fetched, but {_reason(error)}: "
                f"try again, or copy {self.by_hand} into '{target}', $FASTCV_DATA/{self.name} or "
                "any folder that you pass by --data PATH"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return target


def unpack(packed: Path) -> None:
    """Unpack an archive beside itself, and remove it."""
    with tarfile.open(packed) as archive:
        # The filter keeps members from being written outside of the folder.
        archive.extractall(packed.parent, filter="data")
    packed.unlink()


def _first_filled(data: Path, folders: Iterable[str]) -> Path | None:
    places = [data / folder for folder in folders]
    return next((each for each in places if each.is_dir() and any(each.iterdir())), None)


def fastai_data() -> Path:
    """Return fastai's data folder (``~/.fastai/data`` unless its configuration differs).

    Raises:
        ValueError: fastai cannot write its configuration.
    """
    # Here, because this import takes seconds, and data with a path does without.
    from fastai.data.external import fastai_path

    try:
        with warnings.catch_warnings():
            # fastai leaves the configuration file that it creates for Python to close.
            warnings.simplefilter("ignore", ResourceWarning)
            return Path(fastai_path("data"))
    except OSError as error:
        raise ValueError(
            "fastai must have a folder for its configuration and data, but "
            f"'{error.filename}' cannot be written ({error.strerror}): set $FASTAI_HOME, or pass "
            "the data's folder by --data PATH"
        ) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let sockets give up after this many silent seconds: torchvision sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RuntimeError) and "corrupted" in text:
        return "the download is truncated or altered (its checksum is not the published one)"
    # torchvision's MNIST reports all its servers in one RuntimeError.
    no_answer = re.search("<urlopen error (.*?)>", text)
    if isinstance(error, RuntimeError) and no_answer:
        return f"no server answered in full ({no_answer[1]})"
    if isinstance(error, tarfile.TarError | EOFError | zlib.error):
        return f"the download cannot be unpacked ({text})"
    if isinstance(error, HTTPError):
        return f"its server refused ({text})"
    if isinstance(error, URLError | TimeoutError | ConnectionError | HTTPException):
        return f"its server did not answer in full ({getattr(error, 'reason', text)})"
    return f"that failed ({text})"
