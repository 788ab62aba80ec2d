"""The report as a W&B Report: its tables, and charts that W&B draws from the runs themselves.

`specification` makes it offline; `write` saves it to a file, and publishes it where an account is
configured. It needs the extra "wandb-report", the package wandb-workspaces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastcore.basics import groupby

from fastcv import files, tracking
from fastcv.experiment import directory
from fastcv.experiment.comparison import Experiment, Result
from fastcv.experiment.words import name
from fastcv.report.charts import SHOWN
from fastcv.report.document import READING
from fastcv.report.markdown import changed_table, result_table
from fastcv.report.tables import by_recipe, changed_rows, rows

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import BarPlot, LinePlot, PanelGrid, Report

TITLE = "fastcv report"  # becomes part of the report's address
FILE = "report_wandb.json"

# Title, axis and metrics of each line plot, by the names that `fastcv.tracking` logs.
LINES = (
    ("loss", "epoch", ("train/loss", "valid/loss")),
    ("accuracy", "epoch", ("train/accuracy", "valid/accuracy")),
    ("learning rate", "step", ("step/lr",)),
)
FIGURES = tuple(f"figures/{stem}" for stem in SHOWN if stem != "curves")  # W&B draws these itself
MOST_LINES = 100  # runs in one plot; the default is ten

DESCRIPTION = "Image-classification experiments: what their reports claim beside what was measured."
CHARTS = (
    "The tables show the state when this report was written. The charts are drawn from the runs in "
    "this project; a run that was logged offline appears after wandb sync."
)


def write(experiments: Sequence[Experiment], folder: Path, say: Callable[[str], None]) -> None:
    """Write report_wandb.json into a folder, and publish the report where there is an account.

    `say` takes the file, and then the report's address or why it has none.

    Raises:
        ValueError: the extra is not installed, or the server refused the report after the file was
            written.
    """
    report = specification(experiments)
    file = folder / FILE
    files.write_json(file, as_json(report))
    say(str(file))
    if not any(isinstance(block, workspaces().PanelGrid) for block in report.blocks):
        say(f"{file} has tables and no charts: none of its runs was logged to Weights & Biases")

    def save(entity: str, project: str) -> str:
        report.entity, report.project = entity, project
        report.save()
        return report.url

    try:
        say(tracking.publish(save))
    except tracking.NoAccount as reason:
        say(
            f"the W&B Report was not published, because {reason}: {file} is its specification, "
            "and the same command publishes it with an account"
        )
    except ValueError as error:
        raise ValueError(f"{error}; the report's specification is in {file}") from error


def as_json(report: Report) -> dict[str, Any]:
    """Return what W&B's server receives of a report, except its owner and its random name."""
    model = report._to_model()  # as its own `save` does; there is no public way
    return {
        "displayName": model.display_name,
        "description": model.description,
        "spec": json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True)),
    }


def specification(experiments: Sequence[Experiment]) -> Report:
    """Make the report: a section for each recipe with its variants, the user's own first.

    It has no owner yet, and its run sets name no project: they belong to the report's own.

    Raises:
        ValueError: the extra is not installed.
    """
    wr = workspaces()
    parts = [wr.P(CHARTS), wr.TableOfContents()]
    for (recipe, _), variants in by_recipe(experiments).items():
        parts += _section(wr, recipe, variants)
    unfinished = [
        f"{each.name}, seed {run.seed}: {run.epochs} of {run.planned} epochs"
        for each in experiments
        for run in each.unfinished
    ]
    missing = [each.name for each in experiments if not each.results]
    for title, items in (("Unfinished runs", unfinished), ("Not run", missing)):
        if items:
            parts += [wr.H2(title), wr.UnorderedList(items=items)]
    reading = "\n\n".join(f"**{word}**: {says}" for word, says in READING)
    parts += [wr.H2("How to read this"), wr.MarkdownBlock(reading)]
    # With an entity the server is not asked for one; `write` fills in the real one.
    owner = {"entity": "", "project": ""}
    return wr.Report(**owner, title=TITLE, description=DESCRIPTION, blocks=parts, width="fluid")


def workspaces() -> ModuleType:
    """Import the extra.

    Raises:
        ValueError: it is not installed, or does not go with the installed wandb.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
    except ImportError as error:
        raise ValueError(
            "a W&B Report needs the extra wandb-report: "
            f"pip install 'fastcv[wandb-report]' ({error})"
        ) from error
    return wr


def _section(wr: ModuleType, recipe: str, variants: list[Experiment]) -> list[Any]:
    """Make the section of a recipe: its summary, its numbers, the charts of its runs."""
    parts = [wr.H2(recipe)]
    if variants[0].summary:
        parts.append(wr.P(variants[0].summary))
    parts.append(wr.MarkdownBlock(result_table(row for each in variants for row in rows(each))))
    if ids := _ids(result for each in variants for result in each.results):
        media = (wr.MediaBrowser(media_keys=[key], layout=wr.Layout(w=8, h=10)) for key in FIGURES)
        charts = [*_bars(wr, variants), *_lines(wr, len(ids)), *media]
        parts.append(_grid(wr, recipe, ids, charts))
    if changed := [row for each in variants for row in changed_rows(each)]:
        parts += [wr.H3("Runs with changed settings"), wr.MarkdownBlock(changed_table(changed))]
        if ids := _ids(result for row in changed for result in row.results):
            parts.append(_grid(wr, f"{recipe}, changed", ids, _lines(wr, len(ids))))
    return parts


def _ids(results: Iterable[Result]) -> list[str]:
    """Return W&B's ids of the logged runs; a saved summary's is not known."""
    runs = (directory.Run(result.path) for result in results if result.path is not None)
    found = (run.environment.get("wandb_id") for run in runs)
    return list(dict.fromkeys(filter(None, found)))  # one run may have two names


def _grid(wr: ModuleType, title: str, ids: list[str], panels: list[Any]) -> PanelGrid:
    # By id, because a run with changed settings has the same name.
    runset = wr.Runset(name=title, filters=f"Metric('ID') in {ids!r}")
    return wr.PanelGrid(runsets=[runset], panels=panels)


def _bars(wr: ModuleType, experiments: Iterable[Experiment]) -> list[BarPlot]:
    """Draw reported beside measured, the mean over the seeds; a chart for each headline metric."""
    logged = (each for each in experiments if _ids(each.results))
    charts = []
    for metric, drawn in groupby(logged, lambda each: each.headline).items():
        keys = list(dict.fromkeys(key for each in drawn for key in _keys(each)))
        charts.append(
            wr.BarPlot(
                title=name(metric),
                metrics=keys,
                groupby=wr.Config("name"),
                groupby_aggfunc="mean",
                groupby_rangefunc="stddev",
                max_bars_to_show=len(keys) * len(drawn),
                title_x="fraction",
                layout=wr.Layout(w=24, h=8),
            )
        )
    return charts


def _keys(experiment: Experiment) -> list[str]:
    """Name the headline's reported and measured number as in a run's W&B summary."""
    metric = experiment.headline
    if metric not in experiment.numbers:
        return [metric]
    if all(metric in result.measured for result in experiment.results):
        return [f"reported/{metric}", f"measured/{metric}"]
    return [f"reported/{metric}", metric.removeprefix("best_")]  # final weights, as in the table


def _lines(wr: ModuleType, count: int) -> list[LinePlot]:
    return [
        wr.LinePlot(
            title=title,
            x=axis,
            y=list(metrics),
            title_x=axis,
            max_runs_to_show=min(count, MOST_LINES),
            layout=wr.Layout(w=8, h=8),
        )
        for title, axis, metrics in LINES
    ]
