"""Sweeps in the report: their best settings, what mattered, and every trial as a line."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fastcv.experiment import words
from fastcv.experiment.sweep.space import Choice, Part, Range, parse
from fastcv.experiment.sweep.summary import NAME, Sweep, Trial, read
from fastcv.interpret import style
from fastcv.interpret.style import BLUE, GRAY, INK, SMALL, VERMILION
from fastcv.recipe.metrics import should_fall
from fastcv.report.charts import Picture, drawn, slug, write_beside
from fastcv.report.read import UNREADABLE, sentence

BEST = 10  # trials of the table
LONGEST = 22  # letters of a value beside an axis
_COLORS = colormaps["Blues"]


@dataclass(frozen=True, kw_only=True)
class SweepSection:
    """A sweep in words and pictures.

    Args:
        sweep: what it found.
        columns: of the table of its best trials.
        rows: of that table, the best first.
        pictures: importances, if they are known, and parallel coordinates.
    """

    sweep: Sweep
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    pictures: tuple[Picture, ...]

    @property
    def sentence(self) -> str:
        """What was searched, by how many trials, and what came of it."""
        sweep = self.sweep
        searched = f"{sweep.recipe}: {', '.join(sweep.search)}"
        smoke = ", smoke runs whose numbers mean nothing" if sweep.smoke else ""
        return f"{searched}. {sweep.size}{smoke}: {sweep.counts}. {self.result}."

    @property
    def result(self) -> str:
        """The best value in words."""
        best = self.sweep.best
        if best is None:
            return "No trial is finished"
        return f"Best: {self.sweep.result}, of trial {best.number}"


def gather(folders: Iterable[str | Path], warn: Callable[[str], None]) -> list[Sweep]:
    """Read the sweeps in some folders at any depth, by name."""
    found = {}
    for folder in folders:
        for place, inner, files in os.walk(folder):
            if NAME in files:
                inner.clear()
                path = Path(place)
                try:
                    found[path.resolve()] = read(path)
                except UNREADABLE as error:
                    warn(f"{path}: left out, it cannot be read: {sentence(error)}")
    return sorted(found.values(), key=lambda sweep: sweep.name)


def section(sweep: Sweep, number: int, folder: Path) -> SweepSection:
    """Describe the sweep of this number in the report, and draw its charts into a folder."""
    name = f"sweep-{number}-{slug(sweep.name)}"
    pictures = []
    if sweep.importances:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in sweep.importances.items())
        pictures.append(
            drawn(
                importances(sweep),
                f"{name}-importances",
                "Importance: the share of each setting in the variance of the value (fANOVA)",
                f"A bar for each setting: {shares}",
                folder,
            )
        )
    if len(sweep.finished) > 1:
        pictures.append(
            drawn(
                parallel(sweep),
                f"{name}-trials",
                "Every finished trial as a line through its settings to what it measured; "
                "darker is better, the best is orange",
                f"Parallel coordinates of {len(sweep.finished)} trials; the best: "
                + ", ".join(f"{key} {text}" for key, text in sweep.best.settings.items()),
                folder,
            )
        )
    keys = [text.partition("=")[0] for text in sweep.search]
    return SweepSection(
        sweep=sweep,
        columns=("trial", words.name(sweep.final), *keys, "epochs", "time"),
        rows=tuple(_row(sweep, trial) for trial in sweep.finished[:BEST]),
        pictures=tuple(pictures),
    )


def _row(sweep: Sweep, trial: Trial) -> tuple[str, ...]:
    value = words.in_words(sweep.final, trial.value).removeprefix(words.name(sweep.final)).strip()
    return (
        str(trial.number),
        value,
        *sweep.cells(trial),
        str(trial.epochs),
        words.duration(trial.seconds),
    )


def importances(sweep: Sweep) -> Figure:
    """Draw the share of each setting in the variance of the values."""
    shares = sweep.importances
    title = f"{sweep.name}: what decides the {words.name(sweep.final)}"
    figure = style.blank(title, height=1.2 + 0.34 * len(shares), smoke=sweep.smoke)
    axes = figure.subplots()
    style.dress(axes, x="share of the variance", y="")
    axes.grid(False, axis="y")
    axes.barh(range(len(shares)), list(shares.values()), 0.6, color=BLUE)
    for row, share in enumerate(shares.values()):
        write_beside(axes, share, row, style.percent(share), INK)
    axes.set_yticks(range(len(shares)), list(shares), parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return figure


def parallel(sweep: Sweep) -> Figure:
    """Draw every finished trial as a line through its settings to its value."""
    parts = list(map(parse, sweep.search))
    trials = sweep.finished[::-1]  # the best is drawn last, above the others
    values = [trial.value for trial in trials]
    low, high = min(values), max(values)
    figure = style.blank(f"{sweep.name}: {len(trials)} trials", height=4.6, smoke=sweep.smoke)
    axes = figure.subplots()
    for rank, trial in enumerate(trials, 1):
        heights = [place(part, trial.settings.get(part.key, "")) for part in parts]
        heights.append((trial.value - low) / (high - low) if high > low else 0.5)
        best = rank == len(trials)
        axes.plot(
            range(len(heights)),
            heights,
            color=VERMILION if best else _COLORS(0.2 + 0.7 * rank / len(trials)),
            linewidth=2.4 if best else 1.0,
            solid_joinstyle="round",
        )
    for number, part in enumerate(parts):
        _axis(axes, number, ticks(part))
    accuracy = sweep.monitor.endswith("accuracy")
    shown = {
        height: words.percent(value, 1) if accuracy else f"{value:.4g}"
        for height in (0.0, 0.25, 0.5, 0.75, 1.0)
        if high > low or height == 0.5
        for value in [low + height * (high - low)]
    }
    _axis(axes, len(parts), shown)
    names = [part.key for part in parts] + [words.name(sweep.final)]
    if should_fall(sweep.monitor):
        names[-1] += " (low is good)"
    axes.set_xticks(range(len(names)), names, fontsize=SMALL, color=INK, parse_math=False)
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.set_xlim(-0.25, len(parts) + 0.45)
    axes.set_ylim(-0.05, 1.05)
    axes.spines[:].set_visible(False)
    return figure


def place(part: Part, text: str) -> float:
    """Return the height of a value on its axis, 0-1; choices lie at equal distances."""
    if isinstance(part, Choice):
        known = part.options.index(text) if text in part.options else 0
        return known / (len(part.options) - 1)
    scale = math.log if part.log else float
    try:
        share = (scale(float(text)) - scale(part.low)) / (scale(part.high) - scale(part.low))
    except ValueError:  # of a file that was changed by hand
        return 0.0
    return float(np.clip(share, 0, 1))


def ticks(part: Part) -> dict[float, str]:
    """Return the heights at which values stand beside an axis."""
    if isinstance(part, Choice):
        return {place(part, text): _short(text) for text in part.options}
    heights = (0.0, 0.25, 0.5, 0.75, 1.0)
    texts = [_at(part, height) for height in heights]
    if part.log and part.high >= 100 * part.low:
        powers = range(math.ceil(math.log10(part.low)), math.floor(math.log10(part.high)) + 1)
        texts = [f"{10.0**power:g}" for power in powers]
    return {place(part, text): text for text in texts}


def _at(part: Range, height: float) -> str:
    if part.log:
        value = part.low * (part.high / part.low) ** height
    else:
        value = part.low + height * (part.high - part.low)
    return str(round(value)) if part.whole else f"{value:.2g}"


def _axis(axes: Axes, x: int, labels: dict[float, str]) -> None:
    axes.plot([x, x], [0, 1], color=GRAY, linewidth=1.0, zorder=3)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    for height, text in labels.items():
        axes.plot([x - 0.015, x], [height, height], color=GRAY, linewidth=1.0, zorder=3)
        look = {"xytext": (5, 0), "bbox": box, "zorder": 4, "parse_math": False}
        write_beside(axes, x, height, text, INK, **look)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def as_text(sweeps: Sequence[Sweep]) -> str:
    """Return a line for each sweep, to print."""
    lines = []
    for sweep in sweeps:
        lines.append(f"sweep {sweep.name}: {sweep.size}, best: {sweep.result}")
        if sweep.command:
            lines.append(f"  {sweep.command}")
    return "\n".join(lines)
