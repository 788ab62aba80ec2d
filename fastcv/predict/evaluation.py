"""The predictions of a set of images, and the numbers that judge a net by them."""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from fastcv import files
from fastcv.predict.multi_label import average_precisions, holds

BINS = 15  # of confidence, as Guo et al. 2017 have it
TABLE = "predictions.npz"
NO_LABEL = "no label"
NORMAL_95 = 1.959963984540054  # of a normal distribution, for an interval of 95 %
# What numpy and zipfile raise of a file that was cut or changed.
DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Predictions:
    """A net's predictions on a set of images, in the set's order.

    Args:
        paths: (N,), a name for each image: its path, or where there is none its place in the set.
        probabilities: (N, classes), rows sum to 1.
        targets: (N,), indices of the true classes. Of several labels an image, (N, classes), 1
            where it has a label; the probabilities are then those of each label.
        losses: (N,), cross-entropy of each image, as `cross_entropies` computes it.
        classes: names, in the order of the columns.
        image: returns the i-th image as it was before augmentation and normalization; None where
            the images are not at hand.
        thresholds: of several labels an image, the probability from which each label holds; None
            for 0.5. Where several nets predicted the images, (N, classes), for each image its
            net's.

    Raises:
        ValueError: the lengths do not agree, or there is no image.
    """

    paths: tuple[str, ...]
    probabilities: np.ndarray
    targets: np.ndarray
    losses: np.ndarray
    classes: tuple[str, ...]
    image: Callable[[int], Image.Image] | None = None
    thresholds: tuple[float, ...] | np.ndarray | None = None

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
    def multi_label(self) -> bool:
        """Whether images have several labels, or none."""
        return self.targets.ndim == 2

    @property
    def predicted(self) -> np.ndarray:
        """Index of the likeliest class, (N,); of several labels, which hold, (N, classes) bool."""
        if self.multi_label:
            return holds(self.probabilities, self.thresholds)
        return self.probabilities.argmax(axis=1)

    def texts(self, index: int, names: Sequence[str] | None = None) -> tuple[str, str]:
        """Return the predicted and the true class of an image, or all labels, as text.

        Args:
            index: of the image.
            names: to call the classes by; None for their own.
        """
        names = self.classes if names is None else names
        if not self.multi_label:
            return names[self.probabilities[index].argmax()], names[self.targets[index]]
        several_nets = np.ndim(self.thresholds) == 2
        thresholds = self.thresholds[index] if several_nets else self.thresholds
        pair = holds(self.probabilities[index], thresholds), self.targets[index]
        texts = (", ".join(names[place] for place in np.flatnonzero(each)) for each in pair)
        predicted, true = (text or NO_LABEL for text in texts)
        return predicted, true

    @property
    def confidences(self) -> np.ndarray:
        """Probability of the likeliest class, (N,)."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Whether the likeliest class is the true one, or all labels are right, (N,) bool."""
        if self.multi_label:
            return (self.predicted == (self.targets > 0)).all(axis=1)
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
        accuracy: top-1; of several labels an image, the fraction of images with all labels right.
        interval: Wilson's 95 % interval of the accuracy.
        top5: fraction of images whose class is among the five likeliest; None of five or fewer
            classes.
        loss: mean cross-entropy.
        calibration_error: expected calibration error over 15 bins of equal width.
        macro_f1: F1 score, the mean over the classes that have images.
        per_class: a row for each class: precision, recall, f1, support, and the class that its
            images are most often mistaken for. Of several labels an image, also average precision
            and threshold.
        average_precision: of several labels an image, the mean of the labels' average precisions.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    top5: float | None
    loss: float
    calibration_error: float
    macro_f1: float
    per_class: tuple[dict[str, Any], ...]
    average_precision: float | None = None


def evaluate(predictions: Predictions) -> Evaluation:
    """Judge a net by its predictions."""
    rows, several = per_class(predictions), predictions.multi_label
    return Evaluation(
        images=len(predictions.targets),
        accuracy=predictions.accuracy,
        interval=wilson(int(predictions.right.sum()), len(predictions.targets)),
        top5=None if several or len(predictions.classes) <= 5 else top_k(predictions, 5),
        loss=float(predictions.losses.mean()),
        calibration_error=calibration_error(predictions),
        macro_f1=float(np.mean([row["f1"] for row in rows if row["support"]] or [0.0])),
        per_class=tuple(rows),
        average_precision=average_precision(predictions) if several else None,
    )


def cross_entropies(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each image, whatever loss the net was trained with.

    That is -log of the true class's probability; of several labels an image, the mean over the
    labels of -log of the probability of each yes or no. A probability of 0 counts as the smallest
    number above it.

    Shape:
        probabilities: (N, classes), as in `Predictions`.
        targets: (N,), or of several labels (N, classes).
        returns: (N,).
    """
    exact = probabilities.astype(np.float64)
    least = np.finfo(probabilities.dtype).smallest_subnormal
    if targets.ndim == 1:
        of_truth = np.take_along_axis(exact, targets[:, None], axis=1)
    else:
        of_truth = np.where(targets > 0, exact, 1 - exact)
    return -np.log(np.maximum(of_truth, least)).mean(axis=1)


def tempered(predictions: Predictions, temperature: float) -> Predictions:
    """Return predictions as the net makes them when its logits are divided by a temperature.

    A softmax keeps logits up to a constant, a sigmoid as they are, so this needs no logits.

    Args:
        predictions: at a temperature of 1.
        temperature: above 0.
    """
    exact = predictions.probabilities.astype(np.float64)
    scaled = exact ** (1 / temperature)
    if predictions.multi_label:
        total = scaled + (1 - exact) ** (1 / temperature)
    else:
        total = scaled.sum(axis=1, keepdims=True)
    probabilities = (scaled / total).astype(np.float32)
    losses = cross_entropies(probabilities, predictions.targets)
    return replace(predictions, probabilities=probabilities, losses=losses)


def average_precision(predictions: Predictions) -> float:
    """Return the mean of the average precisions of the labels that an image has."""
    found = average_precisions(predictions.probabilities, predictions.targets)
    return float(np.mean(found[~np.isnan(found)])) if not np.isnan(found).all() else float("nan")


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

    Of several labels an image, each label's probability is compared with how often it is there.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    confidences, right = predictions.confidences, predictions.right
    if predictions.multi_label:
        confidences, right = predictions.probabilities.ravel(), predictions.targets.ravel() > 0
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
    total = predictions.targets.size
    return sum(
        row["images"] / total * abs(row["accuracy"] - row["confidence"])
        for row in reliability(predictions, bins)
    )


def per_class(predictions: Predictions) -> list[dict[str, Any]]:
    """Return a row for each class: precision, recall, F1, support, most confused with.

    Of several labels an image there is nothing to be confused with, but an average precision (None
    if no image has the label) and the threshold (None if several nets have their own).
    """
    several = predictions.multi_label
    if several:
        has, said = predictions.targets > 0, predictions.predicted
        right, support, claimed = (each.sum(axis=0) for each in (has & said, has, said))
        wrong = np.zeros((len(right), 1), int)
    else:
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
    if several:
        ranked = average_precisions(predictions.probabilities, predictions.targets).tolist()
        thresholds = predictions.thresholds
        if thresholds is None or np.ndim(thresholds) == 2:
            thresholds = [0.5 if thresholds is None else None] * len(rows)
        for row, ap, threshold in zip(rows, ranked, thresholds, strict=True):
            row |= {"average_precision": None if math.isnan(ap) else ap, "threshold": threshold}
    return rows


def rows(predictions: Predictions) -> list[dict[str, Any]]:
    """Return a row for each image, as predictions.csv has them."""
    each = zip(
        predictions.paths,
        map(predictions.texts, range(len(predictions.paths))),
        predictions.right.tolist(),
        predictions.confidences.tolist(),
        predictions.losses.tolist(),
        strict=True,
    )
    return [
        {
            "path": path,
            "true": true,
            "predicted": predicted,
            "right": int(right),
            "confidence": round(confidence, 6),
            "loss": round(loss, 6),
        }
        for path, (predicted, true), right, confidence, loss in each
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

    Probabilities and losses are kept as float32.
    """
    arrays: dict[str, np.ndarray] = {}
    for part, found in parts.items():
        arrays |= {
            f"{part}/paths": np.array(found.paths),
            f"{part}/probabilities": found.probabilities.astype(np.float32),
            f"{part}/targets": found.targets.astype(np.int32),
            f"{part}/losses": found.losses.astype(np.float32),
            f"{part}/classes": np.array(found.classes),
        }
        if found.thresholds is not None:
            arrays[f"{part}/thresholds"] = np.array(found.thresholds)
    written = BytesIO()
    np.savez_compressed(written, **arrays)
    files.write_bytes(file, written.getvalue())


def parts(file: Path) -> tuple[str, ...]:
    """Return the parts whose predictions a file holds.

    Raises:
        ValueError: it is damaged.
    """
    try:
        # numpy leaves a damaged file open that it has opened itself.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return tuple(dict.fromkeys(name.partition("/")[0] for name in arrays.files))
    except DAMAGE as error:
        raise ValueError(
            f"{str(file)!r} must hold predictions, it cannot be read: {error}; remove it, and the "
            "images are predicted again"
        ) from error


def is_rounded(file: Path, part: str) -> bool:
    """Whether a file keeps the probabilities of a part as float16, as older files do.

    Raises:
        ValueError: as `read` does.
    """
    return _arrays(file, part)["probabilities"].dtype == np.float16


def read(file: Path, part: str) -> Predictions:
    """Read the predictions of one part: "valid" or "test".

    Losses that were kept beside float16 are those of the training, with label smoothing, and are
    computed anew.

    Raises:
        ValueError: there is no such file or no such part in it, or it is damaged.
    """
    found = _arrays(file, part)
    probabilities, targets = found["probabilities"], found["targets"].astype(np.int64)
    rounded = probabilities.dtype == np.float16
    thresholds = found.get("thresholds")
    if thresholds is not None and thresholds.ndim == 1:
        thresholds = tuple(thresholds.tolist())
    return Predictions(
        paths=tuple(found["paths"].tolist()),
        probabilities=probabilities.astype(np.float32),
        targets=targets,
        losses=cross_entropies(probabilities, targets) if rounded else found["losses"],
        classes=tuple(found["classes"].tolist()),
        thresholds=thresholds,
    )


def _arrays(file: Path, part: str) -> dict[str, np.ndarray]:
    """Read the arrays of one part by their names."""
    names = ("paths", "probabilities", "targets", "losses", "classes")
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            there = ("thresholds",) if f"{part}/thresholds" in arrays.files else ()
            return {name: arrays[f"{part}/{name}"] for name in (*names, *there)}
    except DAMAGE as error:
        raise ValueError(
            f"the predictions of the {part} images must be in {str(file)!r}, they cannot be read: "
            f"{error}"
        ) from error


def matched(classes: Sequence[str], folders: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Match the class names of a foreign folder with a net's, by name.

    Returns:
        The index of the net's class for each folder that has one, and the folders that have none.
    """
    known = {name: index for index, name in enumerate(classes)}
    found = {name: known[name] for name in folders if name in known}
    return found, [name for name in folders if name not in known]
