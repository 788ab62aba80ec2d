"""Every experiment with its results: the one thing that every form of the report is made from."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastcv.recipe.checks import compare
from fastcv.recipe.metrics import HEADLINES
from fastcv.recipe.values import Reported

MEASURED_FIRST = "tta_accuracy"  # where nothing is reported and a run measured it
SKIPPED = "skipped images"  # what `Result.changed` calls images that could not be read

_TEXTS = ("recipe", "device", "device_name", "precision", "command")
_COUNTS = ("seed", "epochs", "skipped")
_MAPPINGS = ("measured", "packages", "settings", "reported", "changed")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one finished run measured.

    Args:
        recipe: its name, with the variant.
        seed: of the run.
        measured: metric to number; accuracies are fractions 0-1.
        epochs: that were run.
        seconds: of all epochs.
        warmup_seconds: before them: first batch, compile, capture.
        images_per_second: in training, the median over the epochs.
        skipped: images that could not be read, so that the run did without them.
        device: as torch names it: "cpu", "cuda:0".
        device_name: as its maker names it.
        precision: "fp32" or "bf16".
        packages: name to version.
        command: that started it.
        git_revision: of fastcv.
        settings: what decides the experiment, of the flat recipe: see `essence`.
        reported: what the run's recipe says is reported, as the values of `Reported`.
        changed: key to (the experiment's value, this run's); empty where it is the experiment.
        own: whether its recipe is a file of one's own.
        path: of the run directory; None of a committed summary.

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
    path: Path | None = None

    def __post_init__(self) -> None:
        """Check the values: they come from files, which may hold anything."""
        for name in _TEXTS:
            _must(name, getattr(self, name), str, "a text")
        for name in _COUNTS:
            _must(name, getattr(self, name), int, "a whole number")
        for name in _MAPPINGS:
            _must(name, getattr(self, name), Mapping, "names with values")
        _must("git_revision", self.git_revision, str | None, "a text")
        _must("own", self.own, bool, "true or false")
        for name in ("seconds", "warmup_seconds", "images_per_second"):
            value = getattr(self, name)
            if value is None and name != "seconds":
                continue
            if not is_finite(value) or value < 0:
                raise ValueError(f"{name} must be a finite number from 0 on, got {value!r:.40}")
        if self.reported:
            _check_reported(self.reported)


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run that was stopped, or still goes on.

    Args:
        recipe: its name, with the variant.
        seed: of the run.
        epochs: that are done.
        planned: epochs of its own recipe, over all stages.
        path: of the run directory.
        own: whether its recipe is a file of one's own.

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
        """Check what comes from the run's files."""
        _must("recipe", self.recipe, str, "a text")
        _must("seed", self.seed, int, "a whole number")


def is_finite(value: Any) -> bool:
    """Whether a value is a number, and neither infinite nor too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _must(name: str, value: Any, kind: Any, says: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} must be {says}, got {value!r:.40}")


def _check_reported(values: Mapping[str, Any]) -> None:
    try:
        reported = Reported(**values)
    except TypeError as error:
        raise ValueError(f"reported must hold what a Reported does: {error}") from error
    _must("source of what is reported", reported.source, str, "a text")
    numbers = reported.numbers() | {
        "tolerance": reported.tolerance,
        "loss_tolerance": reported.loss_tolerance,
    }
    for name, value in numbers.items():
        if not is_finite(value):
            raise ValueError(f"reported {name} must be a finite number, got {value!r:.40}")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment: what is reported of it, and what was measured.

    Args:
        name: "NAME" or "NAME/VARIANT".
        summary: one line.
        reported: None where no report gives a number.
        epochs: that the recipe plans, over all stages.
        results: of finished runs of exactly this experiment, by seed.
        altered: of runs that changed something of it, as short cuts do: `Result.changed` says what.
        unfinished: runs without a summary.
        aliases: other names in the catalogue for the same experiment.
        own: whether it is a recipe of one's own, which the catalogue does not have.
        bar: the report's experiment that this one sets out to beat, the `/one_cycle` way.
    """

    name: str
    summary: str = ""
    reported: Reported | None = None
    epochs: int = 0
    results: tuple[Result, ...] = ()
    altered: tuple[Result, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()
    aliases: tuple[str, ...] = ()
    own: bool = False
    bar: "Experiment | None" = None

    @property
    def is_bar(self) -> bool:
        """Whether the reported number is to be beaten, not to be met."""
        return self.reported is not None and self.reported.to_beat

    @property
    def numbers(self) -> dict[str, float]:
        """The reported numbers by metric, the headline first."""
        numbers = self.reported.numbers() if self.reported else {}
        first = next((metric for metric in HEADLINES if metric in numbers), None)
        return {metric: numbers[metric] for metric in ([first] if first else [])} | numbers

    @property
    def headline(self) -> str | None:
        """The metric that stands for the experiment; None where there is no number at all."""
        reported = next((metric for metric in HEADLINES if metric in self.numbers), None)
        if reported or not self.results:
            return reported
        order = (MEASURED_FIRST, *HEADLINES)
        return next((metric for metric in order if self.values(metric)), None)

    def values(self, metric: str) -> list[float]:
        """What each result measured, in order; a bar's best accuracy may be the final one.

        The fast way does not choose its epoch by the test set, so that it has no best epoch there:
        its final weights are held against the report's best.
        """
        values = [_measured(result, metric, self.is_bar) for result in self.results]
        return [value for value in values if value is not None]

    def mean(self, metric: str) -> float | None:
        """The mean over the results; None where nothing was measured."""
        values = self.values(metric)
        return statistics.mean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """The sample standard deviation over the results; None of fewer than two."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def verdict(self, metric: str) -> str:
        """How the mean compares with the reported number.

        "within", "above", "below" as in `fastcv.recipe.check`; a bar's headline is "beaten" or
        "not beaten", and its other numbers are not compared, "": they are another way's. "" too
        where nothing is reported, "not run" without results, "not measured" where they lack it.
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

    def by_device(self) -> list["Experiment"]:
        """The experiment once for each device and precision that ran it; itself if none did."""
        groups: dict[tuple[str, str], list[Result]] = {}
        for result in self.results:
            groups.setdefault((result.device_name, result.precision), []).append(result)
        return [replace(self, results=tuple(group)) for group in groups.values()] or [self]


def _measured(result: Result, metric: str, final_counts: bool) -> float | None:
    value = result.measured.get(metric)
    if value is None and final_counts and metric.startswith("best_"):
        return result.measured.get(metric.removeprefix("best_"))
    return value
