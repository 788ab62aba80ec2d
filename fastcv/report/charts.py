"""The report's pictures: its own charts, and the figures of runs."""

import csv
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from fastcv.experiment.comparison import Experiment, Result
from fastcv.experiment.directory import Run
from fastcv.experiment.words import measured, name, number, short
from fastcv.interpret import style
from fastcv.interpret.style import BLUE, GRAY, GREEN, INK, PURPLE, SMALL, VERMILION
from fastcv.interpret.training import curves
from fastcv.recipe.checks import BEATEN, NOT_BEATEN
from fastcv.recipe.metrics import HEADLINES

# Figures of a run that a report shows, in this order: the file's name and a caption.
SHOWN = {
    "curves": "Loss and accuracy by epoch",
    "confusion_matrix": "Confusion matrix: which classes are mistaken for which",
    "average_precision": "Average precision: how well each label is found",
    "predictions": "Predictions: images with their predicted and true classes",
    "activations": "Activations: what the layers of the net see",
}
WIDEST = 1080  # pixels
QUALITY = 80  # of WebP: the letters of a chart stay clean
# A broken PNG raises SyntaxError; the last two refuse one that would take too much memory.
_UNREADABLE = (
    *(OSError, SyntaxError, KeyError, ValueError, TypeError, OverflowError, csv.Error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)

REPORTED = "#B8B8B8"
TO_BEAT = {"facecolor": "white", "edgecolor": GRAY, "hatch": "////", "linewidth": 0.8}
ROW = 0.52  # inches of a step
FEWEST_STEPS = 3
LONGEST = 54  # letters in a line of a step's summary; there are two lines
_MARKS = {
    "within": (BLUE, "o"),
    "above": (VERMILION, "s"),
    "below": (VERMILION, "s"),
    BEATEN: (GREEN, "^"),
    NOT_BEATEN: (PURPLE, "v"),
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of the report.

    Args:
        name: file name without its ending: letters, digits, hyphens and underscores.
        caption: line below the picture.
        alt: alternative text.
        file: the PNG.
    """

    name: str
    caption: str
    alt: str
    file: Path


def of_run(
    experiment: Experiment, result: Result, folder: Path, warn: Callable[[str], None]
) -> list[Picture]:
    """Return the pictures of one run; a saved summary has none.

    The saved curves show the reported number of the run's own name. They are drawn again, into
    `folder`, for a changed run, which is compared with nothing, and under another name, whose
    report may give another number.
    """
    found = []
    prefix = f"{'own-' if experiment.own else ''}{slug(experiment.name)}-seed{result.seed}"
    changed = f"-changed-{result.path.name}" if result.path and result.changed else ""
    for stem, caption in SHOWN.items():
        file = result.path / "figures" / f"{stem}.png" if result.path else None
        if file is None or not file.is_file():
            continue
        picture, source = f"{prefix}{changed}-{stem}", file
        try:
            if stem == "curves" and (changed or result.recipe != experiment.name):
                source, file = result.path / "metrics.csv", folder / f"{picture}.png"
                style.save(_curves(experiment, result), file)
            _decode(file)
        except _UNREADABLE as error:
            reason = " ".join(str(error).split())
            warn(f"{source}: left out, it cannot be shown: {reason}")
            continue
        seed = f"seed {result.seed}"
        settings = ", with changed settings" if changed else ""
        alt = f"{caption}, of {experiment.name}, {seed}{settings}"
        found.append(Picture(name=picture, caption=f"{caption} ({seed})", alt=alt, file=file))
    return found


def _curves(experiment: Experiment, result: Result) -> Figure:
    """Draw a run's curves under the name of an experiment."""
    rows = Run(result.path).metrics
    if result.changed:
        return curves(rows, title=f"{experiment.name}, with changed settings")
    reported = {
        metric.replace("_", " "): value
        for metric, value in experiment.numbers.items()
        if metric.endswith("accuracy")
    }
    return curves(rows, reported, title=experiment.name)


def _decode(file: Path) -> None:
    """Decode a whole picture: broken data shows nowhere else."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file, formats=["PNG"]) as image:
            image.load()


def drawn(figure: Figure, name: str, caption: str, alt: str, folder: Path) -> Picture:
    """Save a chart of the report itself into a folder."""
    file = folder / f"{name}.png"
    style.save(figure, file)
    return Picture(name=name, caption=caption, alt=alt, file=file)


def webp(file: Path) -> tuple[bytes, int, int]:
    """Return a picture as WebP with its width and height in pixels, at most `WIDEST` wide."""
    with Image.open(file, formats=["PNG"]) as image:
        picture = image.convert("RGB")
    picture.thumbnail((WIDEST, 4 * WIDEST), Image.Resampling.LANCZOS)
    written = BytesIO()
    picture.save(written, format="WEBP", quality=QUALITY, method=4)
    return written.getvalue(), picture.width, picture.height


def slug(name: str) -> str:
    """Make a name fit for files and anchors: "mnist_cnn/one_cycle" is "mnist_cnn-one_cycle"."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


def ladder_metric(experiments: Sequence[Experiment]) -> str | None:
    """Return the accuracy that most steps report, the test's first.

    None where fewer than three steps report one, or nothing was run.
    """
    shown = steps(experiments)
    counts = Counter(metric for each in shown for metric in each.numbers if metric in HEADLINES)
    reporting = sum(each.headline in each.numbers for each in shown)
    if reporting < FEWEST_STEPS or not any(each.results for each in shown):
        return None
    del counts["train_accuracy"]  # every report has it, and it says least
    order = sorted(counts, key=lambda metric: (-counts[metric], HEADLINES.index(metric)))
    return order[0] if order else "train_accuracy"


def step_metric(each: Experiment, metric: str) -> str:
    """Choose the accuracy to plot for a step: the ladder's, else the nearest reported one.

    The best epoch's may replace it, and a test accuracy a validation accuracy, but never a
    training accuracy. Of a number to beat it is the headline, which alone is to be beaten.
    """
    if each.to_beat:
        return each.headline or metric
    order = (metric, f"best_{metric}", each.headline)
    nearest = next((other for other in order if other in each.numbers), metric)
    return metric if nearest == "train_accuracy" else nearest


def steps(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Return the steps of a ladder, without a recipe that is one of its own variants."""
    names = {each.name for each in experiments}
    return [each for each in experiments if "/" in each.name or names.isdisjoint(each.aliases)]


def ladder(recipe: str, experiments: Sequence[Experiment], metric: str) -> Figure:
    """Draw the experiments of a recipe as steps from the top, reported and measured accuracy."""
    shown = steps(experiments)
    title = f"{recipe}: {name(metric)}, reported and measured"
    figure = style.blank(title, height=1.3 + ROW * len(shown))
    axes = figure.subplots()
    style.dress(axes, x=name(metric), y="")
    axes.grid(False, axis="y")
    for row, each in enumerate(shown):
        nearest = step_metric(each, metric)
        note = "" if nearest == metric else f" ({short(nearest)})"
        _reported_bar(axes, row, each, nearest, note)
        _measured_bar(axes, row, each, nearest, note)
    _name_rows(axes, [_step(each, experiments[0]) for each in shown])
    axes.set_xlim(0, 1.12)
    axes.set_xticks([tenth / 5 for tenth in range(6)])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    for look, label in (
        ({"color": REPORTED}, "reported"),
        (TO_BEAT, "to beat"),
        ({"color": BLUE}, "measured: mean ± one standard deviation"),
    ):
        axes.barh(0, 0, label=label, **look)
    style.legend(axes, columns=3)
    return figure


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart, from the top."""
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _step(each: Experiment, recipe: Experiment) -> str:
    """Name a step, with its own summary if it has one."""
    step = each.name.partition("/")[2] or each.name
    summary = each.summary if each.summary != recipe.summary else ""
    lines = textwrap.wrap(summary, LONGEST, max_lines=2, placeholder=" …", break_on_hyphens=False)
    return "\n".join([step, *lines])


def _reported_bar(axes: Axes, row: int, each: Experiment, metric: str, note: str) -> None:
    value = each.numbers.get(metric)
    if value is None:
        write_beside(axes, 0, row - 0.2, f"no {short(metric)} accuracy reported", GRAY)
        return
    axes.barh(row - 0.2, value, 0.36, **(TO_BEAT if each.to_beat else {"color": REPORTED}))
    write_beside(axes, value, row - 0.2, number(metric, value) + note, GRAY)


def _measured_bar(axes: Axes, row: int, each: Experiment, metric: str, note: str) -> None:
    mean, spread = each.mean(metric), each.spread(metric)
    if mean is None:
        write_beside(axes, 0, row + 0.2, "not measured" if each.results else "not run", GRAY)
        return
    error = {"xerr": spread, "ecolor": INK, "capsize": 3} if spread is not None else {}
    axes.barh(row + 0.2, mean, 0.36, color=BLUE, **error)
    # `measured` itself counts the seeds where some lack the metric.
    count = len(each.values(metric))
    seeds = f", {count} seeds" if count == len(each.results) > 1 else ""
    text = measured(each, metric) + seeds + note
    write_beside(axes, mean + (spread or 0), row + 0.2, text, INK)


def write_beside(axes: Axes, x: float, y: float, text: str, color: str, **look: Any) -> None:
    """Write 4 points beside a place, such as the end of a bar."""
    place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (x, y), fontsize=SMALL, color=color, **(place | look))


def compared(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Return the experiments whose headline is both reported and measured, each under one name."""
    found: dict[str, Experiment] = {}
    for each in experiments:
        there = each.headline in each.numbers and each.mean(each.headline) is not None
        same = [found[alias] for alias in each.aliases if alias in found]
        if there and not any(other.numbers == each.numbers for other in same):
            found[each.name] = each
    return list(found.values())


def difference(each: Experiment) -> float:
    """Return measured minus reported headline, in percentage points."""
    return 100 * (each.mean(each.headline) - each.numbers[each.headline])


def differences(experiments: Sequence[Experiment]) -> Figure:
    """Draw how far the headlines of `compared` experiments lie from the reported ones."""
    figure = style.blank("Measured minus reported", height=1.5 + 0.36 * len(experiments))
    axes = figure.subplots()
    style.dress(axes, x="percentage points; the band is the tolerance", y="")
    axes.axvline(0, color=INK, linewidth=1.0)
    farthest = 1.0
    for row, each in enumerate(experiments):
        metric = each.headline
        away = difference(each)
        spread = 100 * (each.spread(metric) or 0)
        band = 0.0 if each.to_beat else 100 * each.reported.tolerance
        if band:
            axes.barh(row, 2 * band, 0.7, left=-band, color="#E8E8E8", zorder=0.5)
        color, marker = _MARKS[each.verdict(metric)]
        look = {"color": color, "marker": marker, "markersize": 7, "capsize": 3}
        axes.errorbar(away, row, xerr=spread or None, **look)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
        write_beside(axes, away + spread, row, f"{away:+.2f}", INK, xytext=(8, 0), bbox=box)
        farthest = max(farthest, abs(away) + spread, band)
    axes.set_xlim(-1.15 * farthest, 1.35 * farthest)
    _name_rows(axes, [f"{each.name}, {short(each.headline)}" for each in experiments])
    labels = {"within": "within tolerance", "above": "outside it"}
    for verdict in ("within", "above", BEATEN, NOT_BEATEN):
        (color, marker), label = _MARKS[verdict], labels.get(verdict, verdict)
        axes.plot([], [], color=color, marker=marker, linestyle="none", label=label)
    style.legend(axes, columns=4)
    return figure
