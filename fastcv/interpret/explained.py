"""Figures that explain a trained net: where it looks, how sure it is, how it sees a data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image

from fastcv.interpret.predicted import readable, shortened
from fastcv.interpret.style import (
    BLUE,
    DPI,
    GRAY,
    INK,
    LABEL,
    RIGHT,
    WRONG,
    blank,
    dress,
    percent,
)
from fastcv.predict.evaluation import Predictions, calibration_error, reliability

HEAT = colormaps["inferno"]
STRONGEST = 0.75  # opacity of the heat map where a class has the most evidence
MOST_FILTERS, PER_ROW, FILTER, GAP = 64, 16, 56, 6  # the last two in pixels
MOST_NAMED = 20  # classes up to which the map of embeddings names them
FEWEST = 30  # images for t-SNE, which needs neighbors
GRID = (20, 14)  # cells of the map of embeddings, each with one thumbnail at most
NEAR = (0.2, 0.032)  # names closer than this, in width and height of the map, would overlap
CAPTION = 7.2  # points
# inches
CELL, SIDE, LINE, MARGIN, HEAD = 1.7, 1.5, 0.125, 0.12, 0.42
LETTERS = 25  # of a caption that fit over a picture


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture with what there is to say about it.

    Args:
        picture: to show.
        lines: the caption.
        alt: alternative text.
        path: of the image; the last line of the caption.
        right: whether the net is right, which decides the color; None for neither.
    """

    picture: Image.Image
    lines: tuple[str, ...]
    alt: str
    path: str = ""
    right: bool | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """Tiles that belong together, under a heading; the heading may be empty."""

    heading: str
    tiles: tuple[Tile, ...]


def tiles(title: str, rows: Sequence[Row], *, smoke: bool = False) -> Figure:
    """Draw rows of pictures under their captions.

    Args:
        title: of the figure.
        rows: from top to bottom.
        smoke: whether to mark the figure as a smoke run's.
    """
    texts = [[[*tile.lines, *filter(None, [tile.path])] for tile in row.tiles] for row in rows]
    heights = [
        (bool(row.heading) + 0.5 + max(map(len, text))) * LINE + SIDE + MARGIN
        for row, text in zip(rows, texts, strict=True)
    ]
    # At least four cells wide, so that the title fits over a single picture.
    width = 2 * MARGIN + max(4, *(len(row.tiles) for row in rows)) * CELL
    height = HEAD + sum(heights) + (0.3 if smoke else 0.0)
    figure = blank(title, height=height, width=width, smoke=smoke)
    figure.set_layout_engine("none")
    figure.texts[0].set_y(1 - MARGIN / height)  # the title; by default a fraction below the top
    top = height - HEAD
    plain = {"ha": "left", "va": "top", "fontsize": CAPTION, "linespacing": 1.15}
    for row, text, tall in zip(rows, texts, heights, strict=True):
        below = top
        if row.heading:
            heading = shortened(row.heading, int(width * 15))
            figure.text(
                MARGIN / width, top / height, heading, color=INK, weight="bold", parse_math=False,
                **plain,
            )  # fmt: skip
            below -= 1.2 * LINE
        for place, (tile, lines) in enumerate(zip(row.tiles, text, strict=True)):
            left = MARGIN + place * CELL
            figure.text(
                left / width,
                below / height,
                "\n".join(shortened(line, LETTERS) for line in lines),
                color=_color(tile.right),
                parse_math=False,
                **plain,
            )
            bottom = top - tall + MARGIN
            axes = figure.add_axes(
                (left / width, bottom / height, SIDE / width, SIDE / height), anchor="SW"
            )
            axes.imshow(np.asarray(tile.picture.convert("RGB")), interpolation="antialiased")
            axes.set_axis_off()
        top -= tall
    return figure


def _color(right: bool | None) -> str:
    return INK if right is None else RIGHT if right else WRONG


def overlay(picture: Image.Image, cam: np.ndarray) -> Image.Image:
    """Lay a heat map over a picture: the more evidence, the brighter and the less transparent.

    Args:
        picture: what the net saw.
        cam: (h, w), at least 0; scaled by its own maximum.
    """
    strength = np.asarray(cam / max(float(cam.max()), 1e-12), dtype=np.float32)
    smooth = Image.fromarray(strength).resize(picture.size, Image.Resampling.BICUBIC)
    strength = np.asarray(smooth).clip(0, 1)
    opacity = STRONGEST * strength[..., None]
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    mixed = (1 - opacity) * pixels + opacity * 255 * HEAT(strength)[..., :3]
    return Image.fromarray(mixed.round().astype(np.uint8))


def reliability_curve(predictions: Predictions, *, smoke: bool = False) -> Figure:
    """Draw accuracy against confidence, and how many images have each confidence.

    Args:
        predictions: of N images.
        smoke: whether to mark the figure as a smoke run's.
    """
    rows = reliability(predictions)
    error = percent(calibration_error(predictions), 1)
    figure = blank(f"Reliability: expected calibration error {error}", height=4.6, smoke=smoke)
    axes, counts = figure.subplots(1, 2, width_ratios=(1, 1))
    confidence = [row["confidence"] for row in rows]
    accuracy = [row["accuracy"] for row in rows]
    axes.plot((0, 1), (0, 1), color=GRAY, linewidth=1, linestyle="--")
    axes.vlines(confidence, accuracy, confidence, color=WRONG, linewidth=1.2, alpha=0.7)
    axes.plot(
        confidence, accuracy, color=BLUE, marker="o", markersize=4.5, linewidth=1.4, clip_on=False
    )
    reached = "images with the label" if predictions.multi_label else "accuracy"
    dress(axes, x="confidence (below the diagonal the net is too sure)", y=reached)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    shown = predictions.probabilities if predictions.multi_label else predictions.confidences
    counts.hist(shown.ravel(), bins=15, range=(0, 1), color=BLUE, edgecolor="white")
    dress(counts, x="confidence", y="labels of images" if predictions.multi_label else "images")
    counts.set_xlim(0, 1)
    return figure


def project(features: np.ndarray) -> np.ndarray:
    """Lay features out in two dimensions: t-SNE from a PCA, or of few images the PCA alone.

    Shape:
        features: (N, F).
        returns: (N, 2), each dimension from 0 to 1.
    """
    # Here, because scikit-learn takes a second to import.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(features)
    points = np.zeros((count, 2), dtype=np.float32)
    rank = min(50, *features.shape)
    if count > 1:
        reduced = PCA(rank, random_state=0).fit_transform(features)
        if count >= FEWEST and rank > 2:
            reduced = TSNE(
                perplexity=min(30, (count - 1) / 3),
                init="pca",
                learning_rate="auto",
                random_state=0,
            ).fit_transform(reduced)
        points[:, : min(2, rank)] = reduced[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - low) / np.maximum(high - low, 1e-12)


def embedding_map(
    points: np.ndarray,
    pictures: Sequence[Image.Image],
    predictions: Predictions,
    *,
    smoke: bool = False,
) -> Figure:
    """Draw images where their features lie; neighbors look alike to the net.

    Each cell of a grid shows one image at most; the others are dots. Up to 20 classes are named
    where the median of their images lies.

    Args:
        points: (N, 2), as `project` returns them.
        pictures: of the N images.
        predictions: of the same N images.
        smoke: whether to mark the figure as a smoke run's.
    """
    right, targets = predictions.right, predictions.targets
    figure = blank(
        f"How the net sees {len(points):,} images: blue are right, vermilion wrong",
        height=7.0,
        smoke=smoke,
    )
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    colors = [_color(bool(each)) for each in right]
    axes.scatter(*points.T, s=9, c=colors, linewidths=0)
    cells = np.minimum((points * GRID).astype(int), np.array(GRID) - 1)
    # Wrong ones first: they are the rarer.
    order = np.lexsort((np.arange(len(points)), right))
    shown: dict[tuple[int, int], int] = {}
    for index in order.tolist():
        shown.setdefault(tuple(cells[index]), index)
    for index in shown.values():
        thumbnail = np.asarray(pictures[index].convert("RGB").resize((44, 44)))
        axes.add_artist(
            AnnotationBbox(
                OffsetImage(thumbnail, zoom=0.5),
                points[index],
                pad=0.08,
                bboxprops={"edgecolor": colors[index], "facecolor": colors[index], "linewidth": 1},
            )
        )
    if len(predictions.classes) <= MOST_NAMED:
        places: list[tuple[float, float]] = []
        for index, name in enumerate(readable(predictions.classes)):
            own = points[targets == index]
            if not len(own):
                continue
            x, y = np.median(own, axis=0)
            while any(abs(x - left) < NEAR[0] and abs(y - top) < NEAR[1] for left, top in places):
                y -= NEAR[1]
            places.append((x, y))
            axes.text(
                x,
                y,
                shortened(name, 24),
                ha="center",
                va="center",
                fontsize=LABEL,
                weight="bold",
                color=INK,
                parse_math=False,
                zorder=9,
                path_effects=[patheffects.withStroke(linewidth=3.5, foreground="white")],
            )
    return figure


def first_filters(weights: np.ndarray, *, smoke: bool = False) -> Figure:
    """Draw the filters of a net's first convolution, each on its own scale.

    Args:
        weights: (filters, channels, height, width); of three channels they are drawn in color, else
            the first channel is in gray.
        smoke: whether to mark the figure as a smoke run's.
    """
    shown = weights[:MOST_FILTERS].astype(np.float32)
    low = shown.min(axis=(1, 2, 3), keepdims=True)
    span = shown.max(axis=(1, 2, 3), keepdims=True) - low
    shown = (shown - low) / np.where(span > 0, span, 1)
    if shown.shape[1] != 3:
        shown = shown[:, :1].repeat(3, axis=1)
    count, _, height, width = weights.shape
    first = f", the first {MOST_FILTERS}" if count > MOST_FILTERS else ""
    title = (
        f"First convolution: {count} filters of {height} x {width}{first}, each on its own scale"
    )
    enlarged = max(1, FILTER // max(height, width))
    shown = shown.transpose(0, 2, 3, 1).repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    shown = np.pad(shown, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=1)
    missing = -len(shown) % PER_ROW
    shown = np.pad(shown, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=1)
    _, tall, wide, _ = shown.shape
    laid = shown.reshape(-1, PER_ROW, tall, wide, 3).transpose(0, 2, 1, 3, 4)
    pixels = laid.reshape(-1, PER_ROW * wide, 3)
    drawn = len(pixels) / DPI
    figure = blank(title, height=HEAD + drawn + MARGIN, smoke=smoke)
    figure.set_layout_engine("none")
    size = figure.get_size_inches() * DPI
    at = (MARGIN * DPI / size[0], MARGIN * DPI / size[1])
    axes = figure.add_axes((*at, pixels.shape[1] / size[0], len(pixels) / size[1]))
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    return figure
