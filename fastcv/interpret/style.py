"""The style that all figures share, and how a figure becomes a file."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from fastcv.files import write_bytes

WIDTH = 9.0  # inches; 1080 pixels at DPI
DPI = 120
LARGEST_FILE = 400_000  # bytes

# Okabe and Ito's palette, told apart under every common color blindness.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, GRAY, GRID = "#222222", "#6B6B6B", "#DDDDDD"
TRAIN, VALID = BLUE, VERMILION
RIGHT, WRONG = BLUE, VERMILION

# points
TITLE, LABEL, SMALL = 11.5, 9.5, 8.5
LINE = 1.6

SMOKE = "smoke run: toy images, random weights"
PLAIN_NUMBERS = FuncFormatter(lambda value, _: f"{value:g}")
COUNTS = FuncFormatter(lambda value, _: f"{value:,.0f}")


def blank(title: str, *, height: float, width: float = WIDTH, smoke: bool = False) -> Figure:
    """Return a figure with a title and, for a smoke run, a line that says so; sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08, wspace=0.04)
    look = {"x": 0.1 / width, "ha": "left", "weight": "bold"}
    figure.suptitle(title, fontsize=TITLE, color=INK, parse_math=False, **look)
    if smoke:
        figure.supxlabel(SMOKE, fontsize=LABEL, color=WRONG, **look)
    return figure


def dress(axes: Axes, *, x: str, y: str) -> None:
    """Label the axes of a line chart, and draw a thin grid and two spines."""
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    axes.tick_params(which="both", labelsize=SMALL, colors=GRAY, labelcolor=INK, length=3)
    axes.grid(True, which="major", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRAY)


def count_along(axes: Axes) -> None:
    """Label the x axis with few, round, whole numbers, as epochs or steps need."""
    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=7, steps=(1, 2, 5, 10), integer=True, min_n_ticks=1)
    )
    axes.xaxis.set_major_formatter(COUNTS)


def legend(axes: Axes, *, columns: int) -> None:
    """Put a legend above the axes, where it hides no data, if any line has a label."""
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        borderaxespad=0,
        ncols=columns,
        fontsize=SMALL,
        labelcolor=INK,
        frameon=False,
        handlelength=2.2,
        columnspacing=1.4,
    )


def percent(fraction: float, digits: int = 0) -> str:
    """Return a fraction 0-1 as the reports print it: `64.13 %`."""
    return f"{100 * fraction:.{digits}f} %"


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG of at most 400 kB, whole or not at all.

    It has 120 dpi. A figure that would be larger, as of many photographs, gets a palette of 256
    colors, and fewer dots per inch if that is not enough. Missing folders are created.
    """
    path = Path(path)
    for dpi, colors in ((DPI, None), *((dpi, 256) for dpi in range(DPI, 39, -10))):
        png = _png(figure, dpi, colors)
        if len(png) <= LARGEST_FILE:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, png)


def _with_palette(image: Image.Image, colors: int) -> Image.Image:
    """Reduce a picture to a palette, dithered: else skies and leaves become flat patches.

    White keeps its own color, or the background would be tinted and dithered too.
    """
    chosen = image.quantize(colors - 1)
    palette = chosen.getpalette()
    indices = np.array(image.quantize(palette=chosen, dither=Image.Dither.FLOYDSTEINBERG))
    indices[(np.asarray(image) == 255).all(axis=2)] = len(palette) // 3
    reduced = Image.fromarray(indices)
    reduced.putpalette([*palette, 255, 255, 255])
    return reduced


def _png(figure: Figure, dpi: int, colors: int | None) -> bytes:
    image = _drawn(figure, dpi)
    if colors:
        image = _with_palette(image, colors)
    written = BytesIO()
    image.save(written, format="PNG", optimize=True, dpi=(dpi, dpi))
    return written.getvalue()


def _drawn(figure: Figure, dpi: int) -> Image.Image:
    """Draw a figure on white, and leave it as it was; `savefig` would draw it twice."""
    canvas, own_dpi, face = figure.canvas, figure.dpi, figure.get_facecolor()
    drawing = FigureCanvasAgg(figure)  # first: a change of dpi would resize the window of another
    try:
        figure.set_dpi(dpi)
        figure.set_facecolor("white")
        with warnings.catch_warnings():
            # Class names in a script that the font lacks are drawn as boxes.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            drawing.draw()
        return Image.fromarray(np.asarray(drawing.buffer_rgba())).convert("RGB")
    finally:
        figure.set_dpi(own_dpi)
        figure.set_facecolor(face)
        figure.set_canvas(canvas)
