"""The confusion matrix, for ten classes or for two hundred."""

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from fastcv.interpret.predicted import Predictions, readable, shortened
from fastcv.interpret.style import GRAY, INK, LABEL, SMALL, blank, percent

MOST_NUMBERED = 20  # classes up to which cells hold numbers
MOST_NAMED = 40  # classes up to which rows and columns have names
PAIRS = 20
# Steeper near 0: a good net's errors are a few percent of a class, and must be visible.
SHARE = PowerNorm(gamma=0.5, vmin=0, vmax=1)


def confusion_matrix(
    predictions: Predictions, *, title: str = "Confusion matrix", smoke: bool = False
) -> Figure:
    """Draw a confusion matrix: true classes in rows, predicted ones in columns.

    A cell's color is its share of the row. With up to 20 classes the cells hold counts; with more,
    the most confused pairs are listed beside the matrix. A class without images has an empty row.
    Accuracy and number of images follow the title.
    """
    counts = confusions(predictions)
    classes = len(counts)
    names = readable(predictions.classes)
    images = f"{len(predictions.targets):,} images"
    title = f"{title}: {percent(predictions.accuracy, 2)} of {images} correct"
    numbered = classes <= MOST_NUMBERED
    if numbered:
        figure = blank(title, height=6.4, width=7.4, smoke=smoke)
        axes = figure.subplots()
    else:
        figure = blank(title, height=5.6, width=10.5, smoke=smoke)
        axes, beside = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _write_pairs(beside, counts, names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(shares, cmap="Blues", norm=SHARE, interpolation="nearest")
    if numbered:
        for row, column in zip(*counts.nonzero(), strict=True):
            color = "white" if SHARE(shares[row, column]) > 0.55 else INK
            text = axes.text(column, row, f"{counts[row, column]}", ha="center", va="center")
            text.set(fontsize=LABEL if classes <= 12 else 6.5, color=color)
    named = classes <= MOST_NAMED
    if named:
        labels = [shortened(name, 22) for name in names]
        axes.set_yticks(range(classes), labels, parse_math=False)
        turned = {}
        if max(map(len, labels)) > 2:
            slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
            turned = slanted if numbered else {"rotation": 90}
        axes.set_xticks(range(classes), labels, parse_math=False, **turned)
    for label, write in (("predicted class", axes.set_xlabel), ("true class", axes.set_ylabel)):
        write(label if named else f"{label} (index)", fontsize=LABEL, color=INK)
    size = 7 if named and not numbered else SMALL
    axes.tick_params(labelsize=size, length=0 if named else 3, labelcolor=INK, color=GRAY)
    axes.spines[:].set(color=GRAY, linewidth=0.6)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.75, aspect=30, pad=0.02)
    ticks = (0, 0.02, 0.1, 0.25, 0.5, 1)
    bar.set_ticks(ticks, labels=[percent(tick) for tick in ticks])
    bar.ax.tick_params(labelsize=SMALL, length=0, labelcolor=INK)
    bar.outline.set_visible(False)
    bar.set_label("share of the true class's images", fontsize=LABEL, color=INK)
    return figure


def confusions(predictions: Predictions) -> np.ndarray:
    """Count images by (true class, predicted class): (classes, classes) int."""
    classes = len(predictions.classes)
    cells = predictions.targets * classes + predictions.predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def most_confused(counts: np.ndarray, most: int = PAIRS) -> list[tuple[int, int]]:
    """Return the most frequent (true, predicted) pairs of different classes.

    Equal counts are sorted by their share of the true class, then by the order of classes.
    """
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    totals = counts.sum(axis=1)
    pairs = [(int(row), int(column)) for row, column in zip(*wrong.nonzero(), strict=True)]
    return sorted(pairs, key=lambda pair: (-counts[pair], totals[pair[0]], pair))[:most]


def _write_pairs(axes: Axes, counts: np.ndarray, names: tuple[str, ...]) -> None:
    axes.set_axis_off()
    totals = counts.sum(axis=1)
    pairs = most_confused(counts)
    look = {"va": "center", "color": INK, "parse_math": False, "in_layout": False}
    write = partial(axes.text, transform=axes.transAxes, **look)
    heading = "Most confused pairs (true → predicted)" if pairs else "No image is misclassified"
    write(0, 1 - 0.5 / (PAIRS + 1), heading, fontsize=LABEL, weight="bold")
    for i, (true, predicted) in enumerate(pairs, start=1):
        y = 1 - (i + 0.5) / (PAIRS + 1)
        pair = f"{shortened(names[true], 24)} → {shortened(names[predicted], 24)}"
        write(0, y, f"{counts[true, predicted]} of {totals[true]}", fontsize=SMALL)
        write(0.17, y, pair, fontsize=SMALL)
