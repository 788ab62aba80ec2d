"""What a source returns: images, their labels, and the part of the data set they belong to."""

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class Sample(NamedTuple):
    """One image and the name of its class.

    Attributes:
        image: its file, or its pixels: (H, W) or (H, W, 3), uint8.
        label: one of the data set's class names.
    """

    image: Path | np.ndarray
    label: str


Parts = tuple[list[Sample], list[Sample], list[Sample]]  # train, valid, test


class Samples(NamedTuple):
    """A whole data set, listed but not decoded.

    Attributes:
        train: never empty, and holds every class.
        valid, test: empty if the data set has no such part.
        classes: the class names, sorted; a label's place here is its number.
        root: the folder the files were found in; None for data that lies in no folder.
        skipped: number of images left out because they could not be read.
        groups: the group of an image's file: images of one group, for example of one patient, are
            never split between training and validation. Images without one are on their own.
    """

    train: list[Sample]
    valid: list[Sample]
    test: list[Sample]
    classes: tuple[str, ...]
    root: Path | None
    skipped: int = 0
    groups: Mapping[Path, str] = MappingProxyType({})

    def groups_of(self, samples: Sequence[Sample]) -> list[str | None]:
        """Return the group of each of some samples, or None."""
        if not self.groups:
            return [None] * len(samples)
        files = (isinstance(sample.image, Path) for sample in samples)
        return [
            self.groups.get(sample.image) if file else None
            for sample, file in zip(samples, files, strict=True)
        ]


def _check_name(sample: Sample) -> None:
    """Raise a ValueError unless the tables and the JSON of a run can name an image."""
    for name in (sample.label, str(sample.image) if isinstance(sample.image, Path) else ""):
        if not name.isascii():
            try:
                name.encode("utf-8")
            except UnicodeEncodeError as error:
                shown = os.fsencode(name).decode("utf-8", "backslashreplace")
                raise ValueError(
                    f"names of folders and images must be text in UTF-8, got '{shown}': rename it"
                ) from error


def labeled(parts: Parts, root: Path | None, skipped: int = 0) -> Samples:
    """Join training, validation and test samples into a data set, and collect their class names.

    Raises:
        ValueError: there are fewer than two images, there is only one class, or a class cannot be
            learned because it has no training image; or a name is not UTF-8.
    """
    train, valid, test = parts
    place = "the data set" if root is None else f"'{root}'"
    images = len(train) + len(valid) + len(test)
    if images < 2:
        count = "no image" if images == 0 else "one image only"
        raise ValueError(f"{place} must hold at least two images, got {count}: add more")
    for sample in chain(*parts):
        _check_name(sample)
    classes = {sample.label for sample in train}
    for part, found in (("validation", valid), ("test", test)):
        for label in sorted({sample.label for sample in found} - classes):
            raise ValueError(
                f"every class must have training images, but in {place} class '{label}' has some "
                f"for {part} only: add training images of it, or remove the class"
            )
    if len(classes) < 2:
        raise ValueError(
            f"{place} must hold at least two classes, got one ('{min(classes)}'): "
            "pass the folder that holds one folder per class"
        )
    return Samples(train, valid, test, tuple(sorted(classes)), root, skipped)
