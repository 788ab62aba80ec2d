"""Images with the net's predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from fastcv.interpret.predicted import Predictions, readable, shortened
from fastcv.interpret.style import RIGHT, WRONG, blank, percent

# inches
CELL, PICTURE, CAPTION, FILE, MARGIN, HEAD = 1.7, 1.36, 0.46, 0.14, 0.12, 0.42
NAME = 22  # characters that fit over a picture, after "true: "
CAPTION_SIZE = 7.2  # points
MOST_PIXELS = 224  # of a picture's longer side; more would not show at 120 dpi
SMALL_IMAGE = 64  # pixels up to which every pixel is shown as a square


def prediction_grid(
    predictions: Predictions,
    n: int = 24,
    seed: int = 0,
    *,
    title: str = "Predictions",
    smoke: bool = False,
) -> Figure:
    """Draw random images with their predicted and true class names.

    There are `n`, or all if there are fewer. A caption has three lines: a tick or a cross with the
    net's confidence, the predicted name, the true name. Misclassified images are framed. The number
    of correct images follows the title.

    Raises:
        ValueError: `n` is below 1.
    """
    total = len(predictions.targets)
    count = _at_least_one(n, total)
    chosen = np.sort(np.random.default_rng(seed).choice(total, size=count, replace=False))
    right = int(predictions.right[chosen].sum())
    title = f"{title}: {right} of {count} correct, drawn at random from {total:,}"
    return _grid(predictions, chosen, title, columns=6, smoke=smoke)


def top_losses(
    predictions: Predictions, n: int = 16, *, title: str = "Top losses", smoke: bool = False
) -> Figure:
    """Draw the images with the largest losses, largest first, as `prediction_grid` does.

    The captions also have the loss and the file. The number of images follows the title.

    Raises:
        ValueError: `n` is below 1.
    """
    total = len(predictions.targets)
    count = _at_least_one(n, total)
    chosen = np.argsort(-predictions.losses, kind="stable")[:count]
    title = f"{title}: {count} of {total:,}"
    return _grid(predictions, chosen, title, columns=4, smoke=smoke, losses=True)


def _at_least_one(n: int, total: int) -> int:
    if n < 1:
        raise ValueError(f"n, the number of images, must be at least 1, got {n}")
    return min(n, total)


def _grid(
    predictions: Predictions,
    chosen: Sequence[int],
    title: str,
    *,
    columns: int,
    smoke: bool,
    losses: bool = False,
) -> Figure:
    """Lay images out row by row in cells of one size, each under its caption."""
    columns = min(columns, len(chosen))
    rows = -(-len(chosen) // columns)
    foot = 0.3 if smoke else 0.0
    # At least four cells wide, so that the title fits over a single picture.
    width = 2 * MARGIN + max(columns, 4) * CELL
    cell = PICTURE + CAPTION + (FILE if losses else 0)
    height = HEAD + rows * (cell + MARGIN) + MARGIN + foot
    figure = blank(title, height=height, width=width, smoke=smoke)
    figure.set_layout_engine("none")
    names, right = readable(predictions.classes), predictions.right
    for place, i in enumerate(chosen):
        row, column = divmod(place, columns)
        left = MARGIN + column * CELL
        bottom = height - HEAD - (row + 1) * cell - row * MARGIN
        axes = figure.add_axes(
            (left / width, bottom / height, PICTURE / width, PICTURE / height), anchor="NW"
        )
        _show(axes, predictions.image(int(i)))
        axes.set_xticks([])
        axes.set_yticks([])
        predicted, true = (shortened(text, NAME) for text in predictions.texts(i, names))
        mark, color = ("✓", RIGHT) if right[i] else ("✗", WRONG)
        axes.spines[:].set(visible=not right[i], color=WRONG, linewidth=2.5)
        confidence = percent(predictions.probabilities[i].max())
        loss = f", loss {predictions.losses[i]:.2f}" if losses else ""
        file = f"\n{shortened(Path(predictions.paths[i]).name, NAME)}" if losses else ""
        axes.set_title(
            f"{mark} {confidence}{loss}\n{predicted}\ntrue: {true}{file}",
            loc="left",
            fontsize=CAPTION_SIZE,
            color=color,
            pad=4,
            linespacing=1.15,
            parse_math=False,
        )
    return figure


def _show(axes: Axes, image: Image.Image) -> None:
    small = max(image.size) <= SMALL_IMAGE
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        pixels = np.asarray(image).astype(np.float32)
        low, high = pixels.min(), max(pixels.max(), pixels.min() + 1)
    else:
        image = image.convert("L" if image.mode in ("L", "1", "LA") else "RGB")
        if not small:
            image.thumbnail((MOST_PIXELS, MOST_PIXELS))
        pixels, low, high = np.asarray(image), 0, 255
    smoothing = "nearest" if small else "antialiased"
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, interpolation=smoothing)
