"""The rows of the report's tables in words, the same in every form of the report."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, NamedTuple

from fastcore.basics import groupby

from fastcv.experiment.comparison import SKIPPED, Experiment, Result
from fastcv.experiment.words import (
    NOT_RUN,
    duration,
    epochs_in_words,
    epochs_run,
    measured,
    name,
    number,
    seeds,
    short,
)
from fastcv.recipe.checks import VERDICTS
from fastcv.recipe.diff import described
from fastcv.recipe.metrics import HEADLINES, MEASURES, TTA_ACCURACY
from fastcv.report.charts import Picture
from fastcv.terminal import aligned

RUN_COLUMNS = ("epochs", "time", "device", "seeds")  # attributes of a `Row`
_NUMBERS = ("metric", "reported", "measured", "within tolerance")
RESULT_COLUMNS = ("experiment", *_NUMBERS, *RUN_COLUMNS)
CHANGED_COLUMNS = ("experiment", "changed", "measured", *RUN_COLUMNS)
UNFINISHED_COLUMNS = ("experiment", "seed", "epochs done", "directory")
MADE_BY_COLUMNS = ("run", "seed", "command", "versions", "revision", "directory")
CHANGED_NOTE = "These runs changed settings of their experiments and are compared with nothing."
UNFINISHED_NOTE = "These runs were stopped or are still going on. They count in no table."


class Line(NamedTuple):
    """One number of an experiment: reported, measured, and how they compare."""

    metric: str
    reported: str
    measured: str
    verdict: str

    @property
    def within(self) -> str:
        """The verdict in words, for the column "within tolerance"."""
        return VERDICTS.get(self.verdict, self.verdict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """An experiment's runs on the same images and one device, in words.

    Args:
        experiment: with all its results.
        results: the runs of this row; empty where the experiment was not run.
        changed: the settings that all of them changed, a line each; such a row is not compared.
        pictures: figures of its first run.
    """

    experiment: Experiment
    results: tuple[Result, ...]
    changed: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def group(self) -> Experiment:
        """The experiment with this row's results alone."""
        reported = None if self.changed else self.experiment.reported
        return replace(self.experiment, results=self.results, reported=reported)

    @property
    def images(self) -> str:
        """Where the images are a folder of the user's, "on NAME"."""
        folder = self.results[0].images if self.results else None
        return "" if folder is None else f"on {PurePath(folder).name}"

    @property
    def name(self) -> str:
        """The experiment's name, with the folder of its images."""
        return f"{self.experiment.name} {self.images}".strip()

    @property
    def lines(self) -> list[Line]:
        """A line for each number, the headline first."""
        group = self.group
        if not (metrics := shown_metrics(group)):
            run = "not measured" if self.results else NOT_RUN
            return [Line("", "no number" if group.reported else "none", run, "")]
        return [_line(group, metric) for metric in metrics]

    @property
    def measured(self) -> str:
        """All measured numbers in one line: "94.23 % with TTA; 93.37 % test"."""
        group = self.group
        there = (metric for metric in shown_metrics(group) if group.values(metric))
        return "; ".join(f"{measured(group, metric)} {short(metric)}" for metric in there)

    @property
    def epochs(self) -> str:
        """Epochs run, "7 of 15" where another number was planned, or "15 planned"."""
        planned = self.experiment.epochs
        if not self.results:
            return f"{planned} planned" if planned else ""
        ran = epochs_run(self.results)
        return ran if self.changed or ran == str(planned) else f"{ran} of {planned}"

    @property
    def time(self) -> str:
        """Time of one run, the mean; the warm-up apart where it took a second or more."""
        if not self.results:
            return ""
        seconds = sum(result.seconds for result in self.results) / len(self.results)
        warm = sum(result.warmup_seconds or 0 for result in self.results) / len(self.results)
        return duration(seconds) + (f" + {duration(warm)} warm-up" if warm >= 1 else "")

    @property
    def device(self) -> str:
        """The device without trademark signs, and the precision."""
        if not self.results:
            return ""
        return device(self.results[0])

    @property
    def seeds(self) -> str:
        """The seeds, or their number."""
        return seeds(self.results)

    @property
    def sentence(self) -> str:
        """The headline in one sentence: what was measured, reported, and at what cost."""
        line = self.lines[0]
        parts = [f"{line.measured} {line.metric}".strip()]
        if line.reported.startswith("to beat"):
            parts.append(f"{line.reported} ({line.within})" if line.within else line.reported)
        elif line.reported != "none":
            within = f" (within tolerance: {line.within})" if line.within else ""
            parts.append(f"reported: {line.reported}{within}")
        parts.append(f"{epochs_in_words(self.epochs)} in {self.time} on {self.device}")
        return "; ".join(parts)


def rows(experiment: Experiment) -> list[Row]:
    """Return the experiment's rows, one for each folder of images, device and precision."""
    return [Row(experiment=experiment, results=group.results) for group in experiment.comparable()]


def changed_rows(experiment: Experiment) -> list[Row]:
    """Return the rows of changed runs, one for each set of changes on a device."""

    def alike(result: Result) -> str:
        device = result.device_name, result.precision
        return repr((sorted(result.changed.items()), result.images, *device))

    return [
        Row(
            experiment=experiment,
            results=tuple(group),
            changed=_changes_in_words(group[0].changed),
        )
        for group in groupby(experiment.changed, alike).values()
    ]


def _changes_in_words(changed: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    settings = {key: pair for key, pair in changed.items() if key != SKIPPED}
    skipped = [f"{SKIPPED}: {changed[SKIPPED][1]}"] if SKIPPED in changed else []
    return (*described(settings), *skipped)


def _line(group: Experiment, metric: str) -> Line:
    reported = "none"
    if metric in group.numbers:
        reported = number(metric, group.numbers[metric])
        if group.to_beat and metric != "parameters":
            reported = f"to beat: {reported}"
    verdict = group.verdict(metric)
    verdict = "" if verdict in (NOT_RUN, "not measured") else verdict
    return Line(name(metric), reported, measured(group, metric), verdict)


def shown_metrics(experiment: Experiment) -> list[str]:
    """List the numbers to show: all reported ones or the headline, then the recipe's own.

    Where a number is to be beaten, the headline and the parameters alone are comparable. Parameters
    are left out of what was not run.
    """
    reported, headline = list(experiment.numbers), experiment.headline
    if not experiment.results and len(reported) > 1:
        reported = [metric for metric in reported if metric != "parameters"]
    if experiment.to_beat:
        reported = [metric for metric in reported if metric in (headline, "parameters")]
    if not reported and headline is not None:
        plain = next((metric for metric in HEADLINES if experiment.values(metric)), None)
        reported = [headline, plain] if headline == TTA_ACCURACY and plain else [headline]
    own = (metric for result in experiment.results for metric in result.measured)
    return reported + [metric for metric in dict.fromkeys(own) if metric not in MEASURES]


def revisions(results: Iterable[Result]) -> str:
    """Name the revisions of fastcv that made results: "0123abc", "no revision"."""
    found = []
    for result in results:
        commit, _, changed = (result.git_revision or "").partition("-")
        found.append((commit[:7] or "no revision") + (" with local changes" if changed else ""))
    return ", ".join(dict.fromkeys(found))


def runs(experiments: Iterable[Experiment]) -> list[Result]:
    """List the finished runs of experiments; one that has two names comes once."""
    found = {
        str(result.path or (result.recipe, result.seed, result.command)): result
        for each in experiments
        for result in (*each.results, *each.changed)
    }
    return list(found.values())


def device(result: Result) -> str:
    """Return the device of a run without trademark signs, and the precision."""
    plain = re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b", "", result.device_name)
    return f"{' '.join(plain.split())}, {result.precision}"


def made_by(result: Result) -> tuple[str, ...]:
    """Return what made a result, a cell for each of `MADE_BY_COLUMNS`."""
    versions = (f"{name} {version}" for name, version in result.packages.items() if version)
    return (
        result.recipe,
        str(result.seed),
        result.command,
        ", ".join(versions),
        result.git_revision or "no revision",
        str(result.path or ""),
    )


def distinct(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Group the names of one experiment, in order."""
    groups = groupby(experiments, lambda each: (each.own, frozenset((each.name, *each.aliases))))
    return list(groups.values())


def not_run(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Return the groups of `distinct` without a finished run of exactly that experiment."""
    return [group for group in distinct(experiments) if not any(each.results for each in group)]


def lead(experiments: Sequence[Experiment]) -> str:
    """Count the experiments and how many of them were run; two names of one count once."""
    groups, missing = distinct(experiments), not_run(experiments)
    changed = sum(any(each.changed for each in group) for group in missing)
    only = f", {changed} of these only with changed settings" if changed else ""
    run = len(groups) - len(missing)
    return f"{len(groups)} experiments: {run} run, {len(missing)} not run{only}."


def own_first(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Put the user's experiments before the catalogue's."""
    return sorted(experiments, key=lambda each: not each.own)


def by_recipe(experiments: Sequence[Experiment]) -> dict[tuple[str, bool], list[Experiment]]:
    """Group experiments by the name of their recipe and whether it is the user's, theirs first."""
    return groupby(own_first(experiments), lambda each: (each.name.partition("/")[0], each.own))


def as_text(experiments: Sequence[Experiment]) -> str:
    """Set the results as a table of plain text; below it what was changed, stopped, or not run."""
    experiments = own_first(experiments)
    table = [("experiment", "", "reported", "measured", "within tolerance", "epochs", "time")]
    for row in (row for each in experiments if each.results for row in rows(each)):
        listed = row.seeds if row.seeds.endswith("seeds") else f"seed {row.seeds}"
        first = row.name, row.epochs, f"{row.time} on {row.device}, {listed}"
        for line in row.lines:
            experiment, epochs, time = first
            table.append((experiment, *line[:3], line.within, epochs, time))
            first = "", "", ""
    parts = ["\n".join(aligned(table)) if len(table) > 1 else "no experiment was run in full"]
    if changed := [row for each in experiments for row in changed_rows(each)]:
        lines = (
            f"  {row.name}: {row.measured}; {epochs_in_words(row.epochs)}; "
            f"{row.time}; {', '.join(row.changed)}"
            for row in changed
        )
        parts.append("\n".join(["changed settings, so not compared:", *lines]))
    if unfinished := [run for each in experiments for run in each.unfinished]:
        lines = (f"  {run.path}: {run.epochs} of {run.planned} epochs" for run in unfinished)
        parts.append("\n".join(["unfinished, so not counted:", *lines]))
    if missing := not_run(experiments):
        line = f"not run ({len(missing)}): {', '.join(map(names, missing))}"
        parts.append(textwrap.fill(line, 100, subsequent_indent="  ", break_on_hyphens=False))
    return "\n\n".join([*parts, lead(experiments)])


def names(group: Sequence[Experiment]) -> str:
    """Name an experiment with its other names: "a (also a/b)"."""
    first, *others = (each.name for each in group)
    return f"{first} (also {', '.join(others)})" if others else first
