"""What a report holds, in order, before it becomes a page or Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastcv.experiment.comparison import Experiment, Result, Unfinished
from fastcv.experiment.sweep import Sweep
from fastcv.experiment.words import measured, name, number
from fastcv.report import charts, sweeps, tables
from fastcv.report.charts import Picture
from fastcv.report.sweeps import SweepSection
from fastcv.report.tables import Row

READING = (
    (
        "measured",
        "The mean over the seeds, ± their sample standard deviation where there are two or more. "
        "Accuracies are those of the final weights, except the ones called best: these are the "
        "best over the epochs. Training numbers are averages over an epoch's own batches, taken "
        "in the epoch whose weights were kept.",
    ),
    (
        "within tolerance",
        "Whether the measured number is close enough to the reported one. Each recipe sets its "
        "tolerance; the default is 2 percentage points for an accuracy and a quarter of a loss. "
        "Parameter counts must be equal.",
    ),
    (
        "to beat",
        "A one_cycle variant is fastcv's own way to train the same net on the same data in fewer "
        "epochs. It does not repeat the report's training, so the report's number is one to beat: "
        "the result is beaten or not beaten.",
    ),
    (
        "changed",
        "A run with a setting that differs from its experiment's, usually a shorter schedule, or "
        "one that skipped unreadable images. Changed runs have their own table and are compared "
        "with nothing.",
    ),
    (
        "your recipe file",
        "An experiment from a file of yours instead of the catalogue. It is what the file "
        "says: the settings of the newest run that changed none of them.",
    ),
    (
        "sweep",
        "A search of settings by many runs, its trials. The best was chosen by its number, which "
        "therefore is too good; test images, or other seeds, tell how good it is.",
    ),
    (
        "time",
        "All epochs of one run with their validation, averaged over the seeds; warm-up and "
        "compilation are listed separately. Each device and precision has its own line, while the "
        "charts combine them.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Section:
    """One recipe with its variants: their rows, those of changed runs, and a chart of steps."""

    recipe: str
    summary: str
    rows: Sequence[Row]
    changed: Sequence[Row] = ()
    ladder: Picture | None = None

    @property
    def pictured(self) -> list[Row]:
        """The rows with pictures."""
        return [row for row in (*self.rows, *self.changed) if row.pictures]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report.

    Args:
        lead: how many experiments there are, and how many of them were run.
        sections: the user's own recipes first, then the catalogue's that were run.
        not_run: the catalogue's experiments that were not run in full, by recipe.
        missing: their names, those of one experiment together.
        differences: a chart of measured minus reported.
        sweeps: searches of settings.
        runs: the runs behind the numbers, once each.
        warnings: lines about what could not be read.
    """

    lead: str
    sections: tuple[Section, ...]
    not_run: tuple[Section, ...]
    missing: tuple[str, ...]
    differences: Picture | None
    sweeps: tuple[SweepSection, ...]
    unfinished: tuple[tuple[Experiment, Unfinished], ...]
    runs: tuple[Result, ...]
    warnings: tuple[str, ...]

    @property
    def changed(self) -> list[Row]:
        """The rows of all changed runs."""
        return [row for section in self.sections for row in section.changed]


def compose(
    experiments: Sequence[Experiment],
    folder: Path,
    warnings: Sequence[str] = (),
    warn: Callable[[str], None] = lambda line: None,
    found: Sequence[Sweep] = (),
) -> Document:
    """Put a report together as `fastcv.report.write` does, and draw its charts into a folder."""
    lines = list(warnings)

    def note(line: str) -> None:
        lines.append(line)
        warn(line)

    experiments = tables.own_first(experiments)
    sections, not_run, shown = [], [], []
    for (recipe, own), group in tables.by_recipe(experiments).items():
        about = {"recipe": recipe, "summary": group[0].summary}
        rows, changed, rest = [], [], []
        for each in group:
            ran, altered = _with_pictures(each, shown, folder, note)
            (rows if own or each.results else rest).extend(ran)
            changed += altered
            shown.append(each)
        if rows or changed:
            ladder = _ladder(recipe, group, folder)
            sections.append(Section(**about, rows=rows, changed=changed, ladder=ladder))
        if rest:
            not_run.append(Section(**about, rows=rest))
    catalogue = [each for each in experiments if not each.own]
    return Document(
        lead=tables.lead(experiments),
        sections=tuple(sections),
        not_run=tuple(not_run),
        missing=tuple(tables.names(group) for group in tables.not_run(catalogue)),
        differences=_differences(charts.compared(experiments), folder),
        sweeps=tuple(sweeps.section(each, n, folder) for n, each in enumerate(found, 1)),
        unfinished=tuple((each, run) for each in experiments for run in each.unfinished),
        runs=tuple(tables.runs(experiments)),
        warnings=tuple(lines),
    )


def _with_pictures(
    experiment: Experiment, shown: Sequence[Experiment], folder: Path, warn: Callable[[str], None]
) -> tuple[list[Row], list[Row]]:
    """Return the experiment's rows and those of its changed runs, with the pictures to show.

    They are those of the first seed; where nothing ran in full, of each changed row's first seed.
    An experiment whose pictures stand under another name, with the same numbers, shows none.
    """
    rows, changed = tables.rows(experiment), tables.changed_rows(experiment)
    if not experiment.results:
        return rows, [_pictured(row, row.results[0], folder, warn) for row in changed]
    kept = next((result for result in experiment.results if result.path is not None), None)
    again = any(
        other.name in experiment.aliases and other.numbers == experiment.numbers for other in shown
    )
    if kept is not None and not again:
        rows = [_pictured(row, kept, folder, warn) if kept in row.results else row for row in rows]
    return rows, changed


def _pictured(row: Row, result: Result, folder: Path, warn: Callable[[str], None]) -> Row:
    return replace(row, pictures=tuple(charts.of_run(row.experiment, result, folder, warn)))


def _ladder(recipe: str, group: Sequence[Experiment], folder: Path) -> Picture | None:
    metric = charts.ladder_metric(group)
    if metric is None:
        return None
    return charts.drawn(
        charts.ladder(recipe, group, metric),
        f"{'own-' if group[0].own else ''}{charts.slug(recipe)}-ladder",
        f"{recipe}, step by step: {name(metric)}, reported and measured",
        "Two bars for each step, reported and measured: "
        + "; ".join(_step(each, metric) for each in charts.steps(group)),
        folder,
    )


def _step(each: Experiment, metric: str) -> str:
    metric = charts.step_metric(each, metric)
    reported = number(metric, each.numbers[metric]) if metric in each.numbers else "no number"
    return f"{each.name} {reported}, {measured(each, metric)}"


def _differences(compared: Sequence[Experiment], folder: Path) -> Picture | None:
    if not compared:
        return None
    away = {each.name: charts.difference(each) for each in compared}
    return charts.drawn(
        charts.differences(compared),
        "differences",
        "How far each measured number lies from the reported one, in percentage points",
        "A dot for each experiment at its measured minus its reported accuracy: "
        + "; ".join(f"{name} {points:+.2f}" for name, points in away.items()),
        folder,
    )
