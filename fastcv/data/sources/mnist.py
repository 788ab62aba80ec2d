"""MNIST: 28 x 28 pixels, gray."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from fastcv.augment.pixels import Normalize
from fastcv.data.samples import Parts, Sample, Samples
from fastcv.data.sources.named import NamedSet

# Over the pixels of all training images.
MNIST_STATS = Normalize(mean=(0.1307,), std=(0.3081,))


def mnist(path: Path | None = None) -> Samples:
    """Load MNIST: 60,000 training and 10,000 test digits, 28 x 28 pixels, gray, 10 classes.

    Reads the idx files, plain or ``.gz``, or ``mnist_png/{training,testing}/DIGIT/*.png``.
    """
    return MNIST.samples(path)


def read_mnist(root: Path) -> Parts | None:
    """Read MNIST's original idx files, plain or compressed (``.gz``).

    They lie in `root`, or in its ``raw`` or ``MNIST/raw``, where torchvision puts them.

    Raises:
        ValueError: a file is missing, truncated or not an idx file, or the numbers of images and
            labels differ.
    """
    for folder in (root, root / "raw", root / "MNIST" / "raw"):
        if _idx_file(folder, "train-images", 3) is not None:
            return _idx_pair(folder, "train"), [], _idx_pair(folder, "t10k")
    return None


def _idx_file(folder: Path, kind: str, dimensions: int) -> Path | None:
    # The files circulate both as train-images-idx3-ubyte and as train-images.idx3-ubyte.
    stems = (folder / f"{kind}{joint}idx{dimensions}-ubyte" for joint in "-.")
    places = (Path(f"{stem}{suffix}") for stem in stems for suffix in ("", ".gz"))
    return next(filter(Path.is_file, places), None)


def _idx_pair(folder: Path, part: str) -> list[Sample]:
    arrays = []
    for kind, dimensions in ((f"{part}-images", 3), (f"{part}-labels", 1)):
        path = _idx_file(folder, kind, dimensions)
        if path is None:
            raise ValueError(
                f"MNIST must be four files, but '{folder}' lacks '{kind}-idx{dimensions}-ubyte': "
                "add it, plain or as .gz"
            )
        arrays.append(_read_idx(path, dimensions))
    images, labels = arrays  # (N, 28, 28), (N,)
    if len(images) != len(labels):
        raise ValueError(
            f"MNIST must have a label for each image, but in '{folder}' '{part}' has {len(images)} "
            f"images and {len(labels)} labels: remove the files and fetch them again"
        )
    return [Sample(image, str(label)) for image, label in zip(images, labels.tolist(), strict=True)]


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of unsigned bytes: two zeros, the type 8, the rank, big-endian sizes."""
    damaged = f"'{path}' must be a whole idx file of unsigned bytes, but it is damaged or truncated"
    try:
        # A .gz file carries its own checksum, which reading to the end compares.
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{damaged}: remove it and fetch it again") from error
    header = 4 + 4 * dimensions
    if len(content) >= header and content[:4] == bytes((0, 0, 8, dimensions)):
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        if len(content) == header + int(np.prod(shape, dtype=np.int64)):
            return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    raise ValueError(f"{damaged}: remove it and fetch it again")


def _download(folder: Path) -> None:
    # Here, because torchvision takes seconds to import, and data that is there does without.
    from torchvision import datasets

    datasets.MNIST(folder, download=True)
    for archive in (folder / "MNIST" / "raw").glob("*.gz"):
        archive.unlink()


MNIST = NamedSet(
    name="mnist",
    folders=("mnist", "mnist_png", "MNIST"),
    published=(60_000, 10_000),
    read=read_mnist,
    download=_download,
    by_hand="MNIST's four idx files, or folders 'training' and 'testing' of class folders,",
)
