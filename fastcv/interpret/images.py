"""Images with the net's predictions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from fastcv.interpret.predicted import Predictions, readable, shortened
from fastcv.interpret.style import RIGHT, WRONG, blank, percent

# inches
CELL, PICTURE, CAPTION, MARGIN, HEAD = 1.7, 1.36, 0.46, 0.12, 0.42
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

    A caption has three lines: a tick or a cross with the net's confidence, the predicted name, the
    true name. Misclassified images are framed.

    Args:
        predictions: for N images.
        n: number of images; all, if there are fewer.
        seed: of the random choice.
        title: the figure's title, in front of the number of correct images.
        smoke: whether to mark the figure as a smoke run's.

    Raises:
        ValueError: `n` is below 1.
    """
    total = len(predictions.targets)
    count = _at_least_one(n, total)
    chosen = np.sort(np.random.default_rng(seed).choice(total, size=count, replace=False))
    right = int(predictions.right[chosen].sum())
    title = f"{title}: {right} of {count} correct, drawn at random from {total:,}"
    captions = [_caption(predictions, i) for i in chosen]
    return _grid(predictions, chosen, captions, title, columns=6, smoke=smoke)


def top_losses(
    predictions: Predictions, n: int = 16, *, title: str = "Top losses", smoke: bool = False
) -> Figure:
    """Draw the images with the largest losses, largest first, as `prediction_grid` does.

    The captions also have the loss.

    Args:
        predictions: for N images.
        n: number of images; all, if there are fewer.
        title: the figure's title, in front of the number of images.
        smoke: whether to mark the figure as a smoke run's.

    Raises:
        ValueError: `n` is below 1.
    """
    total = len(predictions.targets)
    count = _at_least_one(n, total)
    chosen = np.argsort(-predictions.losses, kind="stable")[:count]
    captions = [
        _caption(predictions, i, extra=f", loss {predictions.losses[i]:.2f}") for i in chosen
    ]
    return _grid(
        predictions, chosen, captions, f"{title}: {count} of {total:,}", columns=4, smoke=smoke
    )


def _at_least_one(n: int, total: int) -> int:
    if n < 1:
        raise ValueError(f"n, the number of images, must be at least 1, got {n}")
    return min(n, total)


def _caption(predictions: Predictions, i: int, extra: str = "") -> str:
    names = [shortened(name, NAME) for name in readable(predictions.classes)]
    predicted, true = predictions.predicted[i], predictions.targets[i]
    mark = "✓" if predicted == true else "✗"
    confidence = percent(predictions.probabilities[i, predicted])
    return f"{mark} {confidence}{extra}\n{names[predicted]}\ntrue: {names[true]}"


def _grid(
    predictions: Predictions,
    chosen: Sequence[int],
    captions: Sequence[str],
    title: str,
    *,
    columns: int,
    smoke: bool,
) -> Figure:
    """Lay images out row by row in cells of one size, each under its caption."""
    columns = min(columns, len(chosen))
    rows = -(-len(chosen) // columns)
    foot = 0.3 if smoke else 0.0
    # At least four cells wide, so that the title fits over a single picture.
    width = 2 * MARGIN + max(columns, 4) * CELL
    height = HEAD + rows * (CAPTION + PICTURE + MARGIN) + MARGIN + foot
    figure = blank(title, height=height, width=width, smoke=smoke)
    figure.set_layout_engine("none")
    for place, (i, caption) in enumerate(zip(chosen, captions, strict=True)):
        row, column = divmod(place, columns)
        left = MARGIN + column * CELL
        bottom = height - HEAD - (row + 1) * (CAPTION + PICTURE) - row * MARGIN
        axes = figure.add_axes(
            (left / width, bottom / height, PICTURE / width, PICTURE / height), anchor="NW"
        )
        right = bool(predictions.right[i])
        _show(axes, predictions.image(int(i)))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set(visible=not right, color=WRONG, linewidth=2.5)
        axes.set_title(
            caption,
            loc="left",
            fontsize=CAPTION_SIZE,
            color=RIGHT if right else WRONG,
            pad=4,
            linespacing=1.15,
            parse_math=False,
        )
    return figure


def _show(axes: Axes, image: Image.Image) -> None:
    small = max(image.size) <= SMALL_IMAGE
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        pixels = np.asarray(image).astype(np.float32)
        limits = (pixels.min(), max(pixels.max(), pixels.min() + 1))
    else:
        image = image.convert("L" if image.mode in ("L", "1", "LA") else "RGB")
        if not small:
            image.thumbnail((MOST_PIXELS, MOST_PIXELS))
        pixels, limits = np.asarray(image), (0, 255)
    axes.imshow(
        pixels,
        cmap="gray",
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest" if small else "antialiased",
    )
