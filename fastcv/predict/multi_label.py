"""Images with several labels: how well each is ranked, and from which probability it holds."""

from collections.abc import Sequence

import numpy as np


def average_precisions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the average precision of each label, a fraction 0-1; NaN for one that no image has.

    It is the sum of the precisions at each distinct score, from the highest down, each weighted
    with the recall that it adds. No curve is interpolated.

    Shape:
        scores: (N, labels).
        targets: (N, labels), 1 where an image has a label.
        returns: (labels,).
    """
    return np.array(
        [_average_precision(*each) for each in zip(scores.T, targets.T > 0, strict=True)]
    )


def _average_precision(scores: np.ndarray, has: np.ndarray) -> float:
    if not has.any():
        return float("nan")
    counts, right, _ = _ranked(scores, has)
    added = np.diff(right, prepend=0)
    return float((added * right / counts).sum() / has.sum())


def fit_thresholds(probabilities: np.ndarray, targets: np.ndarray) -> tuple[float, ...]:
    """Return for each label the probability from which it holds, such that its F1 score is highest.

    A threshold lies halfway between the probabilities of two images. Of equally good ones the one
    nearest to 0.5 is taken, and 0.5 for a label that no image has. Fit them on validation images,
    never on those that a number is reported for.

    Shape:
        probabilities: (N, labels), 0-1.
        targets: (N, labels), 1 where an image has a label.
    """
    return tuple(_threshold(*each) for each in zip(probabilities.T, targets.T > 0, strict=True))


def _threshold(probabilities: np.ndarray, has: np.ndarray) -> float:
    if not has.any():
        return 0.5
    counts, right, values = _ranked(probabilities.astype(np.float64), has)
    f1 = 2 * right / (counts + has.sum())
    below = np.append(values[1:], 0.0)
    middles = (values + below) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(middles[best[np.abs(middles[best] - 0.5).argmin()]])


def _ranked(scores: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each distinct score from the highest down, the images of at least that score.

    Returns:
        their number, how many of them have the label, and the score.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return ends + 1, np.cumsum(has[order])[ends], ranked[ends]


def holds(probabilities: np.ndarray, thresholds: Sequence[float] | None) -> np.ndarray:
    """Return which labels hold, bool, of the shape of `probabilities`, (..., labels)."""
    return probabilities >= (0.5 if thresholds is None else np.asarray(thresholds))
