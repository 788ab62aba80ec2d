"""Compare two nets on the same images, and test whether the difference is chance."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from fastcv.predict.evaluation import NORMAL_95, Predictions


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two nets compared on the images that both have predicted.

    Attributes:
        images: their number.
        accuracies: of the first net and of the second, fractions 0-1.
        difference: second minus first.
        interval: 95 % interval of the difference.
        only_first: images that only the first net has right.
        only_second: images that only the second net has right.
        p_value: of McNemar's exact test that both are equally good.
        differ: places in the first net's predictions of the images whose predicted classes differ.
        partners: places of the same images in the second net's predictions.
    """

    images: int
    accuracies: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float
    differ: tuple[int, ...]
    partners: tuple[int, ...]


def compare(first: Predictions, second: Predictions) -> Paired:
    """Compare two nets on the images that both have predicted, matched by their names.

    The interval is the adjusted Wald interval of a difference of paired fractions (Agresti and Min
    2005); the test is McNemar's, exact.

    Raises:
        ValueError: the classes differ, no image is in both, or one has another label.
    """
    if first.multi_label or second.multi_label:
        raise ValueError(
            "two runs to compare must have one label an image, got several: compare what "
            "fastcv validate prints of each"
        )
    if sorted(first.classes) != sorted(second.classes):
        raise ValueError(
            f"two runs to compare must have the same classes, got {len(first.classes)} and "
            f"{len(second.classes)}, of which {len({*first.classes} & {*second.classes})} agree"
        )
    places = {path: place for place, path in enumerate(second.paths)}
    pairs = [(here, places[path]) for here, path in enumerate(first.paths) if path in places]
    if not pairs:
        raise ValueError(
            "two runs to compare must have predicted the same images, got none that is in both: "
            "give them the same data and split"
        )
    here, there = (np.array(each) for each in zip(*pairs, strict=True))
    names = np.array(first.classes), np.array(second.classes)
    true = names[0][first.targets[here]]
    if (true != names[1][second.targets[there]]).any():
        raise ValueError("an image must have the same label in both runs, but some have another")
    said = names[0][first.predicted[here]], names[1][second.predicted[there]]
    right = said[0] == true, said[1] == true
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    differ = np.flatnonzero(said[0] != said[1])
    accuracies = float(right[0].mean()), float(right[1].mean())
    return Paired(
        images=len(pairs),
        accuracies=accuracies,
        difference=accuracies[1] - accuracies[0],
        interval=difference_interval(only_first, only_second, len(pairs)),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
        differ=tuple(here[differ].tolist()),
        partners=tuple(there[differ].tolist()),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test; 1 where the nets never disagree."""
    total = only_first + only_second
    return float(binomtest(only_second, total, 0.5).pvalue) if total else 1.0


def difference_interval(only_first: int, only_second: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two paired accuracies, second minus first.

    Source: Agresti and Min 2005, doi:10.1002/sim.1781: half an image is added to each of the four
    cells.
    """
    first, second, total = only_first + 0.5, only_second + 0.5, images + 2.0
    middle = (second - first) / total
    half = NORMAL_95 * math.sqrt((first + second) - (second - first) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)
