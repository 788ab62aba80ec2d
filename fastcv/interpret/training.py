"""Figures of a training: curves, schedule, and LR finder."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fastcv.interpret import style
from fastcv.interpret.style import BLUE, GRAY, GREEN, INK, LINE, PURPLE, TRAIN, VALID, VERMILION

DASHES = ("--", ":", "-.")
SUGGESTION_MARKS = (("o", VERMILION), ("s", GREEN), ("^", PURPLE), ("D", INK), ("v", GRAY))


def curves(
    rows: Sequence[Mapping],
    reported: Mapping[str, float] | None = None,
    title: str = "Loss and accuracy",
    *,
    smoke: bool = False,
) -> Figure:
    """Draw training and validation loss and accuracy against the epoch, over all stages.

    `rows` are those of metrics.csv in order, one an epoch: `stage`, `epoch` (from 1, over all
    stages), `train_loss`, `valid_loss`, and `train_accuracy`, `valid_accuracy` (fractions 0-1). An
    empty or missing number is left out of its curve. `reported` maps a name to an accuracy, drawn
    as a dashed line; a name that starts with "train" has the color of the training curve. The loss
    axis is logarithmic if a few large losses would flatten the rest.

    Raises:
        ValueError: `rows` is empty.
    """
    if not rows:
        raise ValueError("curves need the rows of at least one epoch, got none")
    figure = style.blank(title, height=4.0, smoke=smoke)
    loss, accuracy = figure.subplots(1, 2)
    epochs = _column(rows, "epoch")
    begins = [
        epochs[i] - 0.5 for i in range(1, len(rows)) if rows[i]["stage"] != rows[i - 1]["stage"]
    ]
    for axes, name, shown in (
        (loss, "loss", lambda value: f"{value:.3g}"),
        (accuracy, "accuracy", lambda value: style.percent(value, 2)),
    ):
        style.dress(axes, x="epoch", y=name)
        for part, color, marker in (("train", TRAIN, "o"), ("valid", VALID, "s")):
            values = _column(rows, f"{part}_{name}")
            there = np.isfinite(values)
            if there.any():
                axes.plot(
                    epochs[there],
                    values[there],
                    color=color,
                    linewidth=LINE,
                    # It identifies the curve without color, and shows a single point.
                    marker=marker,
                    markersize=4,
                    markevery=max(1, there.sum() // 20),
                    label=f"{part}, last {shown(values[there][-1])}",
                )
        for i, begin in enumerate(begins):
            label = "stage starts" if i == 0 and axes is loss else None
            axes.axvline(begin, color=GRAY, linewidth=0.8, zorder=1, label=label)
        margin = max(0.5, 0.02 * (epochs[-1] - epochs[0]))
        axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
        style.count_along(axes)
    for i, (name, value) in enumerate((reported or {}).items()):
        accuracy.axhline(
            value,
            color=TRAIN if name.startswith("train") else INK,
            linestyle=DASHES[i % len(DASHES)],
            linewidth=1.2,
            label=f"reported {name} {style.percent(value, 2)}",
        )
    losses = np.concatenate([_column(rows, f"{part}_loss") for part in ("train", "valid")])
    losses = losses[np.isfinite(losses)]
    if losses.size and losses.min() > 0 and losses.max() > 20 * np.median(losses):
        loss.set_yscale("log")
        loss.set_ylabel("loss (log scale)")
    loss.yaxis.set_major_formatter(style.PLAIN_NUMBERS)
    accuracy.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    low, high = accuracy.get_ylim()
    accuracy.set_ylim(max(low, -0.02), min(high, 1.02))
    style.legend(loss, columns=2)
    style.legend(accuracy, columns=2)
    return figure


def schedule(
    steps: Sequence[Mapping], *, title: str = "Learning rate and momentum", smoke: bool = False
) -> Figure:
    """Draw learning rate and momentum against the step.

    Each of `steps`, in order, has `step`, `lr` and `momentum`; without any momentum, its chart is
    left out.

    Raises:
        ValueError: `steps` is empty.
    """
    if not steps:
        raise ValueError("a schedule needs at least one step, got none")
    drawn = [("lr", "learning rate", BLUE)]
    if np.isfinite(_column(steps, "momentum")).any():
        drawn.append(("momentum", "momentum", VERMILION))
    figure = style.blank(title, height=3.4, smoke=smoke)
    at = _column(steps, "step")
    for axes, (key, name, color) in zip(
        figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True
    ):
        style.dress(axes, x="step", y=name)
        marker = "o" if len(steps) == 1 else None
        axes.plot(at, _column(steps, key), color=color, linewidth=LINE, marker=marker)
        style.count_along(axes)
        axes.yaxis.set_major_formatter(style.PLAIN_NUMBERS)
    return figure


def lr_find(
    rates: Sequence[float],
    losses: Sequence[float],
    suggestions: Mapping[str, tuple[float, float]],
    *,
    taken: str | float | None = None,
    title: str = "Learning rate finder",
    smoke: bool = False,
) -> Figure:
    """Draw the loss against the learning rate, and mark the suggested and the taken rate.

    The loss axis ends a little above the loss at the start: how far it diverges later does not
    matter, and a suggestion from there is marked on the upper edge. `rates` rise, `losses` are the
    smoothed training loss at each, and `suggestions` map a name to (learning rate, loss there).
    `taken` is the rate that is trained with, or the name of a suggestion.

    Raises:
        ValueError: no loss is finite, or the numbers of losses and rates differ.
    """
    rates, losses = np.asarray(rates, dtype=float), np.asarray(losses, dtype=float)
    if rates.shape != losses.shape:
        raise ValueError(
            f"rates and losses must be equally long, got {rates.size} and {losses.size}"
        )
    finite = np.isfinite(losses)
    if not finite.any():
        raise ValueError(
            f"lr_find needs at least one finite loss, got none among {losses.size}: "
            "start from a smaller rate"
        )
    figure = style.blank(title, height=4.0, width=7.0, smoke=smoke)
    axes = figure.subplots()
    style.dress(axes, x="learning rate (log scale)", y="training loss, smoothed")
    axes.set_xscale("log")
    axes.plot(rates, losses, color=BLUE, linewidth=LINE, marker="o" if len(rates) == 1 else None)
    lowest = int(np.nanargmin(np.where(finite, losses, np.nan)))
    before = losses[: lowest + 1]
    bottom, start = losses[lowest], before[np.isfinite(before)].max()
    span = max(start - bottom, 0.1 * abs(bottom), 1e-6)
    top = min(start + 0.5 * span, losses[finite].max()) + 0.08 * span
    axes.set_ylim(bottom - 0.08 * span, top)
    if taken is not None:
        rate = suggestions[taken][0] if isinstance(taken, str) else taken
        label = f"taken: {taken} {rate:.3g}" if isinstance(taken, str) else f"recipe: {rate:.3g}"
        axes.axvline(rate, color=INK, linewidth=LINE, label=label, zorder=2)
    for i, (name, (rate, loss)) in enumerate(suggestions.items()):
        marker, color = SUGGESTION_MARKS[i % len(SUGGESTION_MARKS)]
        if name != taken:
            axes.axvline(rate, color=color, linewidth=0.8, linestyle=":")
        axes.plot(
            [rate],
            [min(loss, top)],
            color=color,
            linestyle="none",
            marker=marker,
            # Two suggestions may agree: the first mark is small and filled, the others hollow.
            markersize=6 if i == 0 else 10,
            markerfacecolor=color if i == 0 else "none",
            markeredgewidth=1.6,
            label=f"{name} {rate:.3g}",
            zorder=3,
            clip_on=False,
        )
    axes.yaxis.set_major_formatter(style.PLAIN_NUMBERS)
    style.legend(axes, columns=4)
    return figure


def _column(rows: Sequence[Mapping], key: str) -> np.ndarray:
    """Return a column as (rows,) float64, NaN where a number is empty or missing."""
    values = (row.get(key) for row in rows)
    return np.array([np.nan if value in (None, "") else float(value) for value in values])
