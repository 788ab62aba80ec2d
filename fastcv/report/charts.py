"""The report's own figures: reported beside measured, a ladder at a time and all at once."""

import textwrap
from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fastcv.experiment.comparison import Experiment
from fastcv.experiment.words import measured, name, number, short
from fastcv.interpret.style import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    PURPLE,
    SMALL,
    VERMILION,
    blank,
    dress,
    legend,
)
from fastcv.recipe.checks import BEATEN, NOT_BEATEN
from fastcv.recipe.metrics import HEADLINES

REPORTED = "#B8B8B8"
TO_BEAT = {"facecolor": "white", "edgecolor": GRAY, "hatch": "////", "linewidth": 0.8}
ROW = 0.52  # inches that a step takes
FEWEST_STEPS = 3
LONGEST = 54  # letters of a line of what a step changes; there are two


def ladder_metric(experiments: Sequence[Experiment]) -> str | None:
    """The accuracy that most steps report, the test's first; None where fewer than three report."""
    drawn = steps(experiments)
    counts = Counter(metric for each in drawn for metric in each.numbers if metric in HEADLINES)
    if sum(each.headline in each.numbers for each in drawn) < FEWEST_STEPS:
        return None
    del counts["train_accuracy"]  # every report has it, and it says least
    order = sorted(counts, key=lambda metric: (-counts[metric], HEADLINES.index(metric)))
    return order[0] if order else "train_accuracy"


def step_metric(each: Experiment, metric: str) -> str:
    """The accuracy that is drawn of a step: the ladder's, else the nearest that its report gives.

    The best epoch's stands for it, and a test accuracy for a validation one; of training never
    one beside the others. Of a bar it is its headline, which alone is to be beaten.
    """
    if each.is_bar:
        return each.headline or metric
    order = (metric, f"best_{metric}", each.headline)
    nearest = next((other for other in order if other in each.numbers), metric)
    return metric if nearest == "train_accuracy" else nearest


def steps(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The steps of a ladder: a recipe that is another name of one of its variants is left out."""
    names = {each.name for each in experiments}
    return [
        each for each in experiments if "/" in each.name or not names.intersection(each.aliases)
    ]


def ladder(recipe: str, experiments: Sequence[Experiment], metric: str) -> Figure:
    """Draw the experiments of one recipe as steps, reported and measured side by side.

    Args:
        recipe: its name.
        experiments: in the order of the steps, from the top.
        metric: an accuracy.
    """
    drawn = steps(experiments)
    figure = blank(
        f"{recipe}: {name(metric)}, reported and measured", height=1.3 + ROW * len(drawn)
    )
    axes = figure.subplots()
    dress(axes, x=name(metric), y="")
    axes.grid(False, axis="y")
    for row, each in enumerate(drawn):
        shown = step_metric(each, metric)
        other = "" if shown == metric else f" ({short(shown)})"
        _reported_bar(axes, row, each, shown, other)
        _measured_bar(axes, row, each, shown, other)
    names = [_step(each, experiments[0]) for each in drawn]
    axes.set_yticks(range(len(drawn)), names, parse_math=False)
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([tenth / 5 for tenth in range(6)])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    for look, said in (
        ({"color": REPORTED}, "reported"),
        (TO_BEAT, "to beat"),
        ({"color": BLUE}, "measured, mean; the line is ± one standard deviation"),
    ):
        axes.barh(0, 0, label=said, **look)
    legend(axes, columns=3)
    return figure


def _step(each: Experiment, recipe: Experiment) -> str:
    """Name a step, and what it changes where the recipe's docstring says so."""
    step = each.name.partition("/")[2] or each.name
    told = each.summary if each.summary != recipe.summary else ""
    lines = textwrap.wrap(told, LONGEST, max_lines=2, placeholder=" …", break_on_hyphens=False)
    return "\n".join([step, *lines])


def _reported_bar(axes: Axes, row: int, each: Experiment, metric: str, other: str) -> None:
    value = each.numbers.get(metric)
    if value is None:
        _write(axes, 0, row - 0.2, f"no {short(metric)} accuracy reported", GRAY)
        return
    axes.barh(row - 0.2, value, 0.36, **(TO_BEAT if each.is_bar else {"color": REPORTED}))
    _write(axes, value, row - 0.2, number(metric, value) + other, GRAY)


def _measured_bar(axes: Axes, row: int, each: Experiment, metric: str, other: str) -> None:
    mean, spread = each.mean(metric), each.spread(metric)
    if mean is None:
        said = "not measured" if each.results else "not run"
        _write(axes, 0, row + 0.2, said, GRAY)
        return
    error = {"xerr": spread, "ecolor": INK, "capsize": 3} if spread is not None else {}
    axes.barh(row + 0.2, mean, 0.36, color=BLUE, **error)
    # Where some seeds lack the metric, `measured` says so itself.
    count = len(each.values(metric))
    seeds = f", {count} seeds" if count == len(each.results) > 1 else ""
    text = measured(each, metric) + seeds + other
    _write(axes, mean + (spread or 0), row + 0.2, text, INK)


def _write(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    """Write beside the end of a bar: 4 points away from it."""
    axes.annotate(
        text,
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        color=color,
    )


def compared(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The experiments whose headline is both reported and measured, each under one name."""
    found: dict[str, Experiment] = {}
    for each in experiments:
        there = each.headline in each.numbers and each.mean(each.headline) is not None
        same = [found[alias] for alias in each.aliases if alias in found]
        if there and not any(other.numbers == each.numbers for other in same):
            found[each.name] = each
    return list(found.values())


def differences(experiments: Sequence[Experiment]) -> Figure:
    """Draw how far each measured headline lies from the reported one, in percentage points.

    Args:
        experiments: of `compared`.

    Raises:
        ValueError: there are none.
    """
    if not experiments:
        raise ValueError("a figure of differences needs one experiment that was run, got none")
    figure = blank("Measured minus reported", height=1.5 + 0.36 * len(experiments))
    axes = figure.subplots()
    dress(axes, x="percentage points; the band is the tolerance", y="")
    axes.axvline(0, color=INK, linewidth=1.0)
    farthest = 1.0
    for row, each in enumerate(experiments):
        metric = each.headline
        away = 100 * (each.mean(metric) - each.numbers[metric])
        spread = 100 * (each.spread(metric) or 0)
        band = 0.0 if each.is_bar else 100 * each.reported.tolerance
        if band:
            axes.barh(row, 2 * band, 0.7, left=-band, color="#E8E8E8", zorder=0.5)
        color, marker = _VERDICTS[each.verdict(metric)]
        axes.errorbar(
            away, row, xerr=spread or None, color=color, marker=marker, markersize=7, capsize=3
        )
        axes.annotate(
            f"{away:+.2f}",
            (away + spread, row),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
        )
        farthest = max(farthest, abs(away) + spread, band)
    axes.set_xlim(-1.15 * farthest, 1.35 * farthest)
    names = [f"{each.name}, {short(each.headline)}" for each in experiments]
    axes.set_yticks(range(len(experiments)), names, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(experiments) - 0.4, -0.6)
    for color, marker, said in (
        (BLUE, "o", "within tolerance"),
        (VERMILION, "s", "outside it"),
        (GREEN, "^", "beaten"),
        (PURPLE, "v", "not beaten"),
    ):
        axes.plot([], [], color=color, marker=marker, linestyle="none", label=said)
    legend(axes, columns=4)
    return figure


_VERDICTS = {
    "within": (BLUE, "o"),
    "above": (VERMILION, "s"),
    "below": (VERMILION, "s"),
    BEATEN: (GREEN, "^"),
    NOT_BEATEN: (PURPLE, "v"),
}
