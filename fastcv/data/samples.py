"""What a source returns: images, their labels, and the part of the data set they belong to."""

import os
from collections import Counter
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
        label: one of the data set's class names; a tuple of any number of them, sorted, in a data
            set of several labels an image.
    """

    image: Path | np.ndarray
    label: str | tuple[str, ...]


def labels_of(sample: Sample) -> tuple[str, ...]:
    """Return all labels of an image."""
    return sample.label if isinstance(sample.label, tuple) else (sample.label,)


def multi_hot(samples: Sequence[Sample], classes: Sequence[str]) -> np.ndarray:
    """Return (N, classes), float32: 1 where an image has a label, else 0."""
    number = {name: index for index, name in enumerate(classes)}
    hot = np.zeros((len(samples), len(classes)), np.float32)
    for row, sample in zip(hot, samples, strict=True):
        row[[number[label] for label in labels_of(sample)]] = 1
    return hot


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

    @property
    def multi_label(self) -> bool:
        """Whether images have several labels, or none."""
        return isinstance(self.train[0].label, tuple)

    def strata(self, samples: Sequence[Sample]) -> list[str]:
        """Return the class by which each of some samples is stratified.

        Of several labels it is the rarest one, so that rare labels are shared out first.
        """
        if not self.multi_label:
            return [sample.label for sample in samples]
        counts = Counter(label for sample in samples for label in labels_of(sample))
        rarest = [
            min(labels_of(sample), key=lambda label: (counts[label], label), default="")
            for sample in samples
        ]
        sizes = Counter(rarest)  # one that is alone could not be shared out
        return [each if sizes[each] > 1 else max(sizes, key=sizes.get) for each in rarest]

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
    for name in (*labels_of(sample), str(sample.image) if isinstance(sample.image, Path) else ""):
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
    classes = {label for sample in train for label in labels_of(sample)}
    for part, found in (("validation", valid), ("test", test)):
        for label in sorted({label for sample in found for label in labels_of(sample)} - classes):
            raise ValueError(
                f"every class must have training images, but in {place} class '{label}' has some "
                f"for {part} only: add training images of it, or remove the class"
            )
    if any(isinstance(sample.label, tuple) for sample in train):
        if not classes:
            raise ValueError(f"some images of {place} must have a label, but none has: add some")
    elif len(classes) < 2:
        raise ValueError(
            f"{place} must hold at least two classes, got one ('{min(classes)}'): "
            "pass the folder that holds one folder per class"
        )
    return Samples(train, valid, test, tuple(sorted(classes)), root, skipped)
