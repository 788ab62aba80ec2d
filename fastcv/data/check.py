"""Find images that cannot be read, and go on without them."""

import os
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from fastcv.data.decoding import read_image, resized
from fastcv.data.samples import Sample, Samples, labeled, labels_of


def check_images(
    samples: Iterable[Sample], channels: int = 3, side: int | None = None
) -> list[tuple[Path, str]]:
    """Decode every file, and list those that cannot be read.

    Only decoding finds a truncated JPEG, so this costs what filling a cache costs (60,000 images of
    32 pixels: some seconds). It runs in threads, as Pillow works outside Python's lock.

    Args:
        samples: may hold arrays too, which are never bad.
        channels: 3 for RGB, 1 for gray.
        side: pixels that the shorter sides will be resized to; None if they will not be resized.

    Returns:
        (file, sentence that names it) of each bad file, in the order of `samples`.
    """
    paths = [sample.image for sample in samples if isinstance(sample.image, Path)]

    def fault(path: Path) -> str | None:
        try:
            picture = read_image(path, channels)
            if side is not None:
                resized(picture.size, side, f"image '{path}'")
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        faults = threads.map(fault, paths)
        return [(path, reason) for path, reason in zip(paths, faults, strict=True) if reason]


def without(samples: Samples, bad: Collection[Path]) -> Samples:
    """Leave bad images out and count them in `skipped`.

    Raises:
        ValueError: a class has lost all its training images.
    """
    if not bad:
        return samples
    gone = set(bad)
    train, valid, test = (
        [sample for sample in part if not (isinstance(sample.image, Path) and sample.image in gone)]
        for part in samples[:3]
    )
    count = sum(map(len, samples[:3])) - len(train) - len(valid) - len(test)
    left = {label for sample in train for label in labels_of(sample)}
    for label in sorted(set(samples.classes) - left):
        raise ValueError(
            f"every class must have readable training images, but in '{samples.root}' class "
            f"'{label}' has none: replace them, or remove the class"
        )
    parts = labeled((train, valid, test), root=samples.root, skipped=samples.skipped + count)
    return parts._replace(groups=samples.groups)


def readable(samples: Samples, side: int | None = None) -> Samples:
    """Check the images as `check_images` does, leave bad ones out and count them in `skipped`.

    Raises:
        ValueError: a class has no training image that can be read.
    """
    bad = check_images(chain(*samples[:3]), side=side)
    return without(samples, [path for path, _ in bad])
