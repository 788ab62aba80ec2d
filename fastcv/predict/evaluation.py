"""The predictions of a set of images, and the numbers that judge a net by them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastcv import files

BINS = 15  # of confidence, as Guo et al. 2017 have it
TABLE = "predictions.npz"
NORMAL_95 = 1.959963984540054  # of a normal distribution, for an interval of 95 %


@dataclass(frozen=True, eq=False)
class Predictions:
    """A net's predictions on a set of images, in the set's order.

    Args:
        paths: (N,), a name for each image: its path, or where there is none its place in the set.
        probabilities: (N, classes), rows sum to 1.
        targets: (N,), indices of the true classes.
        losses: (N,), cross-entropy of each image.
        classes: names, in the order of the columns.
        image: returns the i-th image as it was before augmentation and normalization; None where
            the images are not at hand.

    Raises:
        ValueError: the lengths do not agree, or there is no image.
    """

    paths: tuple[str, ...]
    probabilities: np.ndarray
    targets: np.ndarray
    losses: np.ndarray
    classes: tuple[str, ...]
    image: Callable[[int], Image.Image] | None = None

    def __post_init__(self):
        n = len(self.targets)
        if n == 0:
            raise ValueError("predictions must be of at least one image, got none")
        wanted = (n, len(self.classes))
        if self.probabilities.shape != wanted or len(self.losses) != n or len(self.paths) != n:
            raise ValueError(
                f"{n} targets of {len(self.classes)} classes need probabilities of shape {wanted}, "
                f"{n} losses and {n} paths, got {self.probabilities.shape}, {len(self.losses)} and "
                f"{len(self.paths)}"
            )

    @property
    def predicted(self) -> np.ndarray:
        """Index of the likeliest class, (N,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidences(self) -> np.ndarray:
        """Probability of the likeliest class, (N,)."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Whether the likeliest class is the true one, (N,) bool."""
        return self.predicted == self.targets

    @property
    def accuracy(self) -> float:
        """Fraction of images predicted right, 0-1."""
        return float(self.right.mean())

    def confusion(self) -> np.ndarray:
        """Count images by true class (rows) and predicted class, (classes, classes)."""
        size = len(self.classes)
        counts = np.bincount(self.targets * size + self.predicted, minlength=size * size)
        return counts.reshape(size, size)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The numbers that judge a net by its predictions.

    Accuracies, errors and scores are fractions 0-1.

    Attributes:
        images: their number.
        accuracy: top-1.
        interval: Wilson's 95 % interval of the accuracy.
        top5: fraction of images whose class is among the five likeliest; None of five or fewer
            classes.
        loss: mean cross-entropy.
        calibration_error: expected calibration error over 15 bins of equal width.
        macro_f1: F1 score, the mean over the classes that have images.
        per_class: a row for each class: precision, recall, f1, support, and the class that its
            images are most often mistaken for.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    top5: float | None
    loss: float
    calibration_error: float
    macro_f1: float
    per_class: tuple[dict[str, Any], ...]


def evaluate(predictions: Predictions) -> Evaluation:
    """Judge a net by its predictions."""
    rows = per_class(predictions)
    return Evaluation(
        images=len(predictions.targets),
        accuracy=predictions.accuracy,
        interval=wilson(int(predictions.right.sum()), len(predictions.targets)),
        top5=top_k(predictions, 5) if len(predictions.classes) > 5 else None,
        loss=float(predictions.losses.mean()),
        calibration_error=calibration_error(predictions),
        macro_f1=float(np.mean([row["f1"] for row in rows if row["support"]])),
        per_class=tuple(rows),
    )


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a fraction, both ends 0-1.

    Source: Wilson 1927; it holds near 0 and 1 and for few images, where a normal interval does not.
    """
    if not 0 <= right <= total or total < 1:
        raise ValueError(f"right must be 0 to total, and total at least 1, got {right} of {total}")
    share, square = right / total, NORMAL_95**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = (
        NORMAL_95
        / (1 + square / total)
        * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    )
    return max(0.0, middle - half), min(1.0, middle + half)


def top_k(predictions: Predictions, k: int) -> float:
    """Return the fraction of images whose true class is among the k likeliest."""
    best = np.argpartition(-predictions.probabilities, k - 1, axis=1)[:, :k]
    return float((best == predictions.targets[:, None]).any(axis=1).mean())


def reliability(predictions: Predictions, bins: int = BINS) -> list[dict[str, float]]:
    """Return confidence and accuracy in bins of equal width of confidence; empty bins are left out.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    confidences, right = predictions.confidences, predictions.right
    places = np.minimum((confidences * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(confidences[inside].mean()),
            "accuracy": float(right[inside].mean()),
            "images": int(inside.sum()),
        }
        for place in range(bins)
        if (inside := places == place).any()
    ]


def calibration_error(predictions: Predictions, bins: int = BINS) -> float:
    """Return the expected calibration error: how far confidence lies from accuracy, on average."""
    total = len(predictions.targets)
    return sum(
        row["images"] / total * abs(row["accuracy"] - row["confidence"])
        for row in reliability(predictions, bins)
    )


def per_class(predictions: Predictions) -> list[dict[str, Any]]:
    """Return a row for each class: precision, recall, F1, support, most confused with."""
    counts = predictions.confusion()
    right, support, claimed = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    wrong = counts - np.diag(right)
    rows = []
    for index, name in enumerate(predictions.classes):
        precision = float(right[index] / claimed[index]) if claimed[index] else 0.0
        recall = float(right[index] / support[index]) if support[index] else 0.0
        both = precision + recall
        worst = int(wrong[index].argmax())
        rows.append(
            {
                "class": name,
                "precision": precision,
                "recall": recall,
                "f1": 2 * precision * recall / both if both else 0.0,
                "support": int(support[index]),
                "most_confused_with": predictions.classes[worst] if wrong[index, worst] else "",
            }
        )
    return rows


def rows(predictions: Predictions) -> list[dict[str, Any]]:
    """Return a row for each image, as predictions.csv has them."""
    names = predictions.classes
    each = zip(
        predictions.paths,
        predictions.targets.tolist(),
        predictions.predicted.tolist(),
        predictions.confidences.tolist(),
        predictions.losses.tolist(),
        strict=True,
    )
    return [
        {
            "path": path,
            "true": names[true],
            "predicted": names[predicted],
            "right": int(true == predicted),
            "confidence": round(confidence, 6),
            "loss": round(loss, 6),
        }
        for path, true, predicted, confidence, loss in each
    ]


def top_losses(predictions: Predictions, n: int | None = None) -> list[dict[str, Any]]:
    """Return the images with the largest losses, largest first, as top_losses.csv has them.

    Args:
        predictions: of N images.
        n: number of images; all if None.
    """
    columns = ("path", "true", "predicted", "confidence", "loss")
    found = rows(predictions)
    order = np.argsort(-predictions.losses, kind="stable")[:n]
    return [{key: found[index][key] for key in columns} for index in order]


def save(parts: dict[str, Predictions], file: Path) -> None:
    """Write the predictions of some parts, as {"valid": ..., "test": ...}, as one compressed table.

    Probabilities are kept as float16.
    """
    arrays: dict[str, np.ndarray] = {}
    for part, found in parts.items():
        arrays |= {
            f"{part}/paths": np.array(found.paths),
            f"{part}/probabilities": found.probabilities.astype(np.float16),
            f"{part}/targets": found.targets.astype(np.int32),
            f"{part}/losses": found.losses.astype(np.float32),
            f"{part}/classes": np.array(found.classes),
        }
    written = BytesIO()
    np.savez_compressed(written, **arrays)
    files.write_bytes(file, written.getvalue())


def parts(file: Path) -> tuple[str, ...]:
    """Return the parts whose predictions a file holds.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return tuple(dict.fromkeys(name.partition("/")[0] for name in arrays.files))
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(file)!r} must hold predictions: {error}") from error


def read(file: Path, part: str) -> Predictions:
    """Read the predictions of one part: "valid" or "test".

    Raises:
        ValueError: there is no such file or no such part in it, or it is damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {
                name: arrays[f"{part}/{name}"]
                for name in ("paths", "probabilities", "targets", "losses", "classes")
            }
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the predictions of the {part} images must be in {str(file)!r}, they cannot be read: "
            f"{error}"
        ) from error
    return Predictions(
        paths=tuple(found["paths"].tolist()),
        probabilities=found["probabilities"].astype(np.float32),
        targets=found["targets"].astype(np.int64),
        losses=found["losses"],
        classes=tuple(found["classes"].tolist()),
    )


def matched(classes: Sequence[str], folders: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Match the class names of a foreign folder with a net's, by name.

    Returns:
        The index of the net's class for each folder that has one, and the folders that have none.
    """
    known = {name: index for index, name in enumerate(classes)}
    found = {name: known[name] for name in folders if name in known}
    return found, [name for name in folders if name not in known]
