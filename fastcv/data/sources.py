"""Named data sets, and anybody's own image folders: where images come from.

A source is called with a path or none and answers with `Samples`: files or arrays with labels,
listed but not decoded. Where no path is given, a named set is looked for in ``$FASTCV_DATA/NAME``,
then in fastai's data folder, and fetched there if it is nowhere. A path may be the set's own
folder or the one above it; original files and image folders are both read.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fastcv.data import fetch
from fastcv.data.check import readable
from fastcv.data.folders import read_folders, split_folders
from fastcv.data.formats import Parts, read_cifar, read_cub, read_mnist
from fastcv.data.samples import Sample, Samples, labeled
from fastcv.data.splits import stratified

__all__ = [
    "ImageFolders",
    "Sample",
    "Samples",
    "birds",
    "cifar10",
    "cifar100",
    "digits",
    "mnist",
]


# Training and test images.
PUBLISHED = {
    "mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "birds": (3_000, 3_033),
}


def digits(path: Path | None = None, *, skip_bad: bool = False) -> Samples:
    """Give scikit-learn's 1,797 handwritten digits: 8 x 8 pixels, gray, 10 classes, all train.

    They come with scikit-learn, so nothing is looked for or fetched, and `skip_bad` has nothing
    to skip. Their 17 gray levels (0-16) are spread over 0-255.

    Raises:
        ValueError: a path is given.
    """
    if path is not None:
        raise ValueError(
            f"digits come with scikit-learn and lie in no folder, got '{path}': leave the path "
            "out, or take the source mnist or ImageFolders"
        )
    # Here, because scikit-learn takes a second to import, and other sources do without.
    from sklearn.datasets import load_digits

    levels, targets = load_digits(return_X_y=True)
    images = np.rint(levels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    train = [Sample(image, str(target)) for image, target in zip(images, targets, strict=True)]
    return labeled(train, [], [], root=None)


def mnist(path: Path | None = None, *, skip_bad: bool = False) -> Samples:
    """Give MNIST: 60,000 digits to train and 10,000 to test, 28 x 28 pixels, gray, 10 classes.

    Reads the idx files, plain or ``.gz``, or ``mnist_png/{training,testing}/DIGIT/*.png``.

    Args:
        path: the set's folder or the one above it; looked for, then fetched, if None.
        skip_bad: whether to decode every file and leave out, counted, those that cannot be read.

    Raises:
        ValueError: the data is not there and cannot be fetched, or is not as it should be.
    """
    return _named("mnist", path, read_mnist, skip_bad)


def cifar10(path: Path | None = None, *, skip_bad: bool = False) -> Samples:
    """Give CIFAR-10: 50,000 images to train and 10,000 to test, 32 x 32 pixels, RGB, 10 classes.

    Reads ``cifar-10-batches-py``, its checksums compared, or ``{train,test}/CLASS/*.png``.

    Args:
        path: the set's folder or the one above it; looked for, then fetched, if None.
        skip_bad: whether to decode every file and leave out, counted, those that cannot be read.

    Raises:
        ValueError: the data is not there and cannot be fetched, or is not as it should be.
    """
    return _named("cifar10", path, partial(read_cifar, name="CIFAR10"), skip_bad)


def cifar100(path: Path | None = None, *, skip_bad: bool = False) -> Samples:
    """Give CIFAR-100: 50,000 images to train and 10,000 to test, 32 x 32 pixels, RGB, 100 classes.

    Reads ``cifar-100-python`` (fine labels), its checksums compared, or
    ``{train,test}/CLASS/*.png``, also with fastai's folders of superclasses in between.

    The set itself holds 26 groups of images that are equal to the pixel, 10 of them in both parts
    and 17 under different labels: parts never share a file, but a few of these pictures.

    Args:
        path: the set's folder or the one above it; looked for, then fetched, if None.
        skip_bad: whether to decode every file and leave out, counted, those that cannot be read.

    Raises:
        ValueError: the data is not there and cannot be fetched, or is not as it should be.
    """
    original = partial(read_cifar, name="CIFAR100")
    return _named("cifar100", path, original, skip_bad, superclasses=True)


def birds(path: Path | None = None, *, skip_bad: bool = False) -> Samples:
    """Give Caltech-UCSD Birds 200 (2010): 3,000 photographs to train, 3,033 to test, 200 classes.

    Reads ``images`` with ``lists/{train,test}.txt``, or with ``images.txt`` and
    ``train_test_split.txt``. The larger 2011 set has the latter layout and is taken from a path
    or ``$FASTCV_DATA``, but never found in fastai's data folder nor fetched: no report is about
    it. fastai's `untar_data` knows that one alone, so the 2010 archives are fetched from where
    their authors put them, and their SHA-256 sums compared.

    Args:
        path: the set's folder or the one above it; looked for, then fetched, if None.
        skip_bad: whether to decode every file and leave out, counted, those that cannot be read.

    Raises:
        ValueError: the data is not there and cannot be fetched, or is not as it should be.
    """
    return _named("birds", path, read_cub, skip_bad)


def _named(
    name: str,
    path: Path | None,
    original: Callable[[Path], Parts | None],
    skip_bad: bool,
    superclasses: bool = False,
) -> Samples:
    """Read a named set from its original files, or else from image folders."""
    place = fetch.found(name, path) or fetch.fetched(name)
    inner = [place / folder for folder in fetch.FOLDERS[name] if (place / folder).is_dir()]
    for root in (place, *inner):
        parts = original(root)
        if parts is not None:
            break
    else:
        root = inner[0] if inner and not split_folders(place) else place
        parts = read_folders(root, superclasses)
    samples = labeled(*parts, root=root)
    here = len(samples.train), len(samples.test)
    if here != PUBLISHED[name]:
        # No error: a part of a set is good for a trial, and for nothing else.
        print(
            f"{name} in '{root}' is not as published: {here[0]:,} training and {here[1]:,} test "
            f"images, not {PUBLISHED[name][0]:,} and {PUBLISHED[name][1]:,}",
            file=sys.stderr,
        )
    return readable(samples) if skip_bad else samples


@dataclass(frozen=True, kw_only=True)
class ImageFolders:
    """Anybody's own images: one folder per class, in train/valid/test folders or in one.

    Train may also be called training; valid, val or validation; test, testing. Where there is no
    validation folder, validation images are held out of the training ones, stratified and seeded.

    Args:
        path: the folder; the one given in a call comes first.
        valid: what to hold out where there is no validation folder: a fraction (0-1) of each
            class, or an integer number of images of each; 0 for none.
        seed: which images are held out.
    """

    path: str | Path | None = None
    valid: int | float = 0.2
    seed: int = 42

    def __call__(self, path: Path | None = None, *, skip_bad: bool = False) -> Samples:
        """List the images, and hold some out if need be.

        Args:
            path: the folder; the value's own if None.
            skip_bad: whether to decode every file and leave out, counted, those that cannot be
                read.

        Raises:
            ValueError: there is no path, or the folder is not as it should be.
        """
        chosen = self.path if path is None else path
        if chosen is None:
            raise ValueError(
                "ImageFolders must know its folder: give --data PATH, or ImageFolders(path=...)"
            )
        root = Path(chosen).expanduser()
        samples = labeled(*read_folders(root), root=root)
        if skip_bad:
            samples = readable(samples)
        if samples.valid or self.valid == 0:
            return samples
        held, rest = stratified([label for _, label in samples.train], self.valid, self.seed)
        return samples._replace(
            train=[samples.train[index] for index in rest],
            valid=[samples.train[index] for index in held],
        )
