"""An experiment with its results: reported numbers beside measured ones."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from fastcore.basics import groupby

from fastcv.recipe.checks import compare
from fastcv.recipe.metrics import HEADLINES, TTA_ACCURACY
from fastcv.recipe.values import Reported

SKIPPED = "skipped images"  # the key in `Result.changed` for images that could not be read

_KINDS = {str: "a text", int: "a whole number", bool: "true or false", Mapping: "names with values"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one finished run measured.

    Args:
        recipe: its name, with the variant.
        measured: metric to number; accuracies are fractions 0-1.
        epochs: those run, with the seconds of all of them.
        warmup_seconds: time before the epochs: first batch, compilation, capture, features.
        images_per_second: training speed, the median over the epochs of the last stage.
        skipped: number of unreadable images that the run left out.
        device: torch's name for the device: "cpu", "cuda:0"; `device_name` is its maker's.
        precision: "fp32" or "bf16".
        packages: name to version.
        git_revision: of fastcv; None where it is not known.
        settings: the settings of the flat recipe that decide the result: see `decisive`.
        reported: the fields of the recipe's `Reported`.
        changed: settings that differ from the experiment's, as {key: (its value, this run's)}.
        own: whether the recipe comes from a user's file, not from the catalogue.
        history: of a saved summary: columns of metrics.csv, a number or None for each epoch. A
            run directory holds that file itself.
        path: the run directory; None for a saved summary.

    Raises:
        ValueError: a value is of another type, or a time is not finite.
    """

    recipe: str
    seed: int
    measured: Mapping[str, float]
    epochs: int
    seconds: float
    warmup_seconds: float | None = None
    images_per_second: float | None = None
    skipped: int = 0
    device: str = ""
    device_name: str = ""
    precision: str = ""
    packages: Mapping[str, str | None] = field(default_factory=dict)
    command: str = ""
    git_revision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    reported: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    own: bool = False
    history: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def __post_init__(self) -> None:
        """Check the types: the values come from files, which may hold anything."""
        _check_types(self)
        for name, column in self.history.items():
            numbers = isinstance(column, list) and len(column) == self.epochs
            if not numbers or not all(each is None or is_finite(each) for each in column):
                raise ValueError(f"history must hold a number for each epoch, {name} does not")
        if self.reported:
            _check_reported(self.reported)
        if not all(len(pair) == 2 for pair in self.changed.values()):
            raise ValueError(f"changed must hold pairs of values, got {self.changed!r:.40}")

    @property
    def images(self) -> str | None:
        """The folder of images that the run read; None for a data set known by name."""
        folder = self.settings.get("data.path")
        return folder if isinstance(folder, str) else None


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run that was stopped or is still going on.

    Args:
        recipe: its name, with the variant.
        epochs: finished epochs.
        planned: epochs of the run's recipe, over all stages.
        path: the run directory.
        own: as in `Result`.

    Raises:
        ValueError: a value is of another type.
    """

    recipe: str
    seed: int
    epochs: int
    planned: int
    path: Path
    own: bool = False

    def __post_init__(self) -> None:
        """Check the types: the values come from files, which may hold anything."""
        _check_types(self)


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number that fits a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _check_types(values: Any) -> None:
    """Check the fields of a dataclass; numbers with a fraction are times and speeds."""
    for each in fields(values):
        value, kinds = getattr(values, each.name), get_args(each.type) or (each.type,)
        kind = get_origin(each.type) if get_origin(each.type) is Mapping else kinds[0]
        if value is None and NoneType in kinds:
            continue
        if kind is float:
            if not is_finite(value) or value < 0:
                raise ValueError(f"{each.name} must be a finite number >= 0, got {value!r:.40}")
        elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{each.name} must be {_KINDS[kind]}, got {value!r:.40}")


def _check_reported(values: Mapping[str, Any]) -> None:
    try:
        reported = Reported(**values)
    except TypeError as error:
        raise ValueError(f"reported must hold the fields of Reported: {error}") from error
    if not isinstance(reported.source, str):
        raise ValueError(f"reported source must be a text, got {reported.source!r:.40}")
    tolerances = {name: getattr(reported, name) for name in ("tolerance", "loss_tolerance")}
    for name, value in (reported.numbers() | tolerances).items():
        if not is_finite(value):
            raise ValueError(f"reported {name} must be a finite number, got {value!r:.40}")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment: its reported numbers and its results.

    Args:
        name: "NAME" or "NAME/VARIANT".
        reported: None where nothing was reported.
        epochs: planned epochs, over all stages.
        results: finished runs of exactly this experiment, by seed.
        changed: finished runs with changed settings: `Result.changed` holds them.
        aliases: other names in the catalogue for the same experiment.
        own: as in `Result`.
        original: the experiment of the report whose number this one is to beat.
    """

    name: str
    summary: str = ""
    reported: Reported | None = None
    epochs: int = 0
    results: tuple[Result, ...] = ()
    changed: tuple[Result, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()
    aliases: tuple[str, ...] = ()
    own: bool = False
    original: "Experiment | None" = None

    @property
    def to_beat(self) -> bool:
        """Whether the reported number is to be beaten rather than reproduced."""
        return self.reported is not None and self.reported.to_beat

    @property
    def numbers(self) -> dict[str, float]:
        """The reported numbers by metric, the headline first."""
        numbers = self.reported.numbers() if self.reported else {}
        first = [metric for metric in HEADLINES if metric in numbers][:1]
        return {metric: numbers[metric] for metric in first} | numbers

    @property
    def headline(self) -> str | None:
        """The metric that stands for the experiment; None where there is no number at all."""
        reported = (metric for metric in HEADLINES if metric in self.numbers)
        found = (metric for metric in (TTA_ACCURACY, *HEADLINES) if self.values(metric))
        return next(reported, None) or next(found, None)

    def values(self, metric: str) -> list[float]:
        """Return what each result measured, in order.

        Where the number is to be beaten, the final weights count where a run has no best epoch: the
        shorter training does not choose its epoch by the test set.
        """
        values = []
        for result in self.results:
            value = result.measured.get(metric)
            if value is None and self.to_beat:
                value = result.measured.get(metric.removeprefix("best_"))
            values.append(value)
        return [value for value in values if value is not None]

    def mean(self, metric: str) -> float | None:
        """Return the mean over the results; None where nothing was measured."""
        values = self.values(metric)
        return statistics.mean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """Return the sample standard deviation over the results; None for fewer than two."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def verdict(self, metric: str) -> str:
        """Compare the mean with the reported number.

        Returns:
            A verdict of `fastcv.recipe.checks`, "not run" or "not measured"; "" where nothing is
            reported, and for the other numbers of an experiment whose headline is to be beaten.
        """
        if metric not in self.numbers:
            return ""
        if not self.results:
            return "not run"
        mean = self.mean(metric)
        if mean is None:
            return "not measured"
        rows = compare(self.reported, {metric: mean})
        return next((row.verdict for row in rows if row.metric == metric), "")

    def comparable(self) -> list["Experiment"]:
        """Split the experiment by images, device and precision; without results it stays whole."""
        groups = groupby(self.results, lambda each: (each.images, each.device_name, each.precision))
        return [replace(self, results=tuple(group)) for group in groups.values()] or [self]
