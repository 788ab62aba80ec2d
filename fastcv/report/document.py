"""What a report holds, in order, before it is set as a page or as Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastcv.experiment.comparison import Experiment, Result, Unfinished
from fastcv.experiment.words import measured, name, number
from fastcv.report import charts, figures
from fastcv.report.figures import Picture
from fastcv.report.tables import Block, ShortCut, blocks, lead, short_cuts

READING = (
    (
        "measured",
        "the mean over the seeds, ± their sample standard deviation where there are two or more. "
        "Accuracies are of the final weights, but for those called best: these are the best over "
        "the epochs. Training numbers are the average over an epoch's own batches, of the epoch "
        "whose weights were kept.",
    ),
    (
        "within tolerance",
        "whether the measured number lies near enough to the reported one, by the tolerance that "
        "stands in the recipe: by default 2 percentage points for an accuracy, a quarter for a "
        "loss, nothing for a count of parameters.",
    ),
    (
        "to beat",
        "a one_cycle variant is fastcv's own way to train the same net on the same data in fewer "
        "epochs. It does not repeat the report, so that the report's number is a bar: beaten or "
        "not.",
    ),
    (
        "changed",
        "a run that changed a setting of its experiment, most often to be shorter, or that had to "
        "skip images. It stands in a table of its own and is compared with nothing.",
    ),
    (
        "time",
        "of all epochs of one run, the mean over the seeds, with validation; warm-up and "
        "compilation stand apart. Each device and precision has a line of its own; the charts take "
        "them together.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An experiment's pictures: of its first seed, or of a run that changed something."""

    experiment: Experiment
    result: Result
    short_cut: ShortCut | None
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One recipe with its variants."""

    recipe: str
    summary: str
    experiments: tuple[Experiment, ...]
    blocks: tuple[Block, ...]
    ladder: Picture | None
    shown: tuple[Shown, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report."""

    chapters: tuple[Chapter, ...]
    differences: Picture | None
    short_cuts: tuple[ShortCut, ...]
    unfinished: tuple[tuple[Experiment, Unfinished], ...]
    warnings: tuple[str, ...]

    @property
    def experiments(self) -> list[Experiment]:
        """All of them, in order."""
        return [each for chapter in self.chapters for each in chapter.experiments]

    @property
    def runs(self) -> list[Result]:
        """The runs behind the numbers, once each."""
        found = {
            str(result.path or (result.recipe, result.seed, result.command)): result
            for each in self.experiments
            for result in (*each.results, *each.altered)
        }
        return list(found.values())

    @property
    def lead(self) -> str:
        """How many experiments there are, and how many of them were run."""
        return lead(self.experiments)


def compose(
    experiments: Sequence[Experiment],
    folder: Path,
    warnings: Sequence[str] = (),
    warn: Callable[[str], None] = lambda line: None,
) -> Document:
    """Put a report together; its own charts are drawn into a folder.

    Args:
        experiments: as `gather` gives them.
        folder: for the charts.
        warnings: lines about what could not be read.
        warn: takes a line for every picture that cannot be read.
    """
    grouped: dict[tuple[str, bool], list[Experiment]] = {}
    for each in experiments:
        grouped.setdefault((each.name.partition("/")[0], each.own), []).append(each)
    said = list(warnings)

    def note(line: str) -> None:
        said.append(line)
        warn(line)

    chapters: list[Chapter] = []
    for (recipe, _), group in grouped.items():
        before = [each for chapter in chapters for each in chapter.experiments]
        chapters.append(_chapter(recipe, group, before, folder, note))
    compared = charts.compared(experiments)
    differences = None
    if compared:
        differences = figures.drawn(
            charts.differences(compared),
            "differences",
            "How far each measured number lies from the reported one, in percentage points",
            "A dot for each experiment at its measured minus its reported accuracy: "
            + "; ".join(_difference(each) for each in compared),
            folder,
        )
    return Document(
        chapters=tuple(chapters),
        differences=differences,
        short_cuts=tuple(cut for each in experiments for cut in short_cuts(each)),
        unfinished=tuple((each, run) for each in experiments for run in each.unfinished),
        warnings=tuple(said),
    )


def _difference(each: Experiment) -> str:
    away = 100 * (each.mean(each.headline) - each.numbers[each.headline])
    return f"{each.name} {away:+.2f}"


def _chapter(
    recipe: str,
    group: list[Experiment],
    before: list[Experiment],
    folder: Path,
    warn: Callable[[str], None],
) -> Chapter:
    metric = charts.ladder_metric(group)
    ladder = None
    if metric is not None:
        ladder = figures.drawn(
            charts.ladder(recipe, group, metric),
            f"{'own-' if group[0].own else ''}{figures.slug(recipe)}-ladder",
            f"{recipe}, step by step: {name(metric)}, reported and measured",
            "Bars, two for each step, reported and measured: "
            + "; ".join(_step(each, metric) for each in charts.steps(group)),
            folder,
        )
    return Chapter(
        recipe=recipe,
        summary=group[0].summary,
        experiments=tuple(group),
        blocks=tuple(block for each in group for block in blocks(each)),
        ladder=ladder,
        shown=tuple(
            shown
            for index, each in enumerate(group)
            if not _is_shown(each, [*before, *group[:index]])
            for shown in _shown(each, folder, warn)
        ),
    )


def _step(each: Experiment, metric: str) -> str:
    metric = charts.step_metric(each, metric)
    reported = number(metric, each.numbers[metric]) if metric in each.numbers else "no number"
    return f"{each.name} {reported}, {measured(each, metric)}"


def _is_shown(each: Experiment, before: Sequence[Experiment]) -> bool:
    """Whether its pictures stand under another name of it already, with the same numbers."""
    return bool(each.results) and any(
        other.name in each.aliases and other.numbers == each.numbers for other in before
    )


def _shown(each: Experiment, folder: Path, warn: Callable[[str], None]) -> list[Shown]:
    """The pictures of the first seed; where no run is whole, of each short cut's first seed."""
    chosen: list[tuple[Result, ShortCut | None]] = []
    if each.results:
        with_figures = [result for result in each.results if result.path is not None]
        chosen = [(result, None) for result in with_figures[:1]]
    else:
        chosen = [(cut.results[0], cut) for cut in short_cuts(each)]
    found = []
    for result, cut in chosen:
        pictures = tuple(figures.of_run(each, result, folder, warn))
        if pictures:
            found.append(Shown(experiment=each, result=result, short_cut=cut, pictures=pictures))
    return found
