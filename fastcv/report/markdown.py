"""The report as Markdown, with its pictures in a folder beside it."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from fastcv import files
from fastcv.experiment.comparison import Result
from fastcv.markdown import code, escaped, table
from fastcv.report.document import READING, Chapter, Document
from fastcv.report.figures import Picture
from fastcv.report.tables import Block, ShortCut

RESULT_COLUMNS = (
    "experiment",
    "metric",
    "reported",
    "measured",
    "within tolerance",
    "epochs",
    "time",
    "device",
    "seeds",
)
RUN_COLUMNS = ("run", "seed", "command", "versions", "revision", "directory")
SHORT_CUT_COLUMNS = ("experiment", "changed", "measured", "epochs", "time", "device", "seeds")


def write(document: Document, folder: Path) -> Path:
    """Write report.md and the pictures it shows, into `folder`/figures, and return its path."""
    parts = ["# fastcv report", document.lead, "## Results"]
    parts.append(result_table(block for each in document.chapters for block in each.blocks))
    if document.differences:
        parts += ["## Measured minus reported", _picture(document.differences, folder)]
    if document.short_cuts:
        parts += [
            "## Runs with changed settings",
            "Compared with nothing: they are not the experiments whose names they bear.",
            short_cut_table(document.short_cuts),
        ]
    if document.unfinished:
        rows = (
            (
                code(each.name),
                str(run.seed),
                f"{run.epochs} of {run.planned}",
                code(str(run.path)),
            )
            for each, run in document.unfinished
        )
        parts += [
            "## Unfinished runs",
            "Stopped, or still going on; they count in no table.",
            table(("experiment", "seed", "epochs done", "directory"), rows),
        ]
    for chapter in document.chapters:
        parts += _chapter(chapter, folder)
    parts += ["## How to read this", *(f"**{word}**: {says}" for word, says in READING)]
    if document.runs:
        rows = ([escaped(cell) for cell in run_row(run)] for run in document.runs)
        parts += ["## The runs", table(RUN_COLUMNS, rows)]
    if document.warnings:
        parts += ["## Left out", "\n".join(f"- {escaped(line)}" for line in document.warnings)]
    file = folder / "report.md"
    files.write_text(file, "\n\n".join(parts) + "\n")
    return file


def result_table(blocks: Iterable[Block]) -> str:
    """Set experiments as a table: a row a number, reported and measured."""
    rows = []
    for block in blocks:
        for index, line in enumerate(block.lines):
            run = block.epochs, block.time, escaped(block.device), block.seeds
            rows.append(
                (
                    code(block.experiment.name) if index == 0 else "",
                    line.metric,
                    line.reported,
                    line.measured,
                    line.within,
                    *(run if index == 0 else ("",) * len(run)),
                )
            )
    return table(RESULT_COLUMNS, rows)


def run_row(result: Result) -> tuple[str, ...]:
    """What made a result: run, seed, command, versions, revision of fastcv, directory."""
    versions = (f"{name} {version}" for name, version in result.packages.items() if version)
    return (
        result.recipe,
        str(result.seed),
        result.command,
        ", ".join(versions),
        result.git_revision or "",
        str(result.path or ""),
    )


def short_cut_table(short_cuts: Iterable[ShortCut]) -> str:
    """Set runs with changed settings as a table: what was changed, and no reported number."""
    return table(
        SHORT_CUT_COLUMNS,
        (
            (
                code(cut.experiment.name),
                "<br>".join(code(line) for line in cut.changed),
                cut.measured,
                cut.epochs,
                cut.time,
                escaped(cut.device),
                cut.seeds,
            )
            for cut in short_cuts
        ),
    )


def _chapter(chapter: Chapter, folder: Path) -> list[str]:
    if not chapter.ladder and not chapter.shown:
        return []
    parts = [f"## {escaped(chapter.recipe)}"]
    if chapter.summary:
        parts.append(escaped(chapter.summary))
    if chapter.ladder:
        parts.append(_picture(chapter.ladder, folder))
    for shown in chapter.shown:
        parts.append(f"### {code(shown.experiment.name)}")
        if shown.short_cut:
            changed = ", ".join(code(line) for line in shown.short_cut.changed)
            parts.append(f"Changed: {changed}. Compared with nothing.")
        parts += [_picture(picture, folder) for picture in shown.pictures]
    return parts


def _picture(picture: Picture, folder: Path) -> str:
    place = folder / "figures" / f"{picture.name}.png"
    if picture.file.resolve() != place.resolve():
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{place.name}.part")
        shutil.copyfile(picture.file, part)
        os.replace(part, place)
    return f"![{escaped(picture.alt)}](figures/{place.name})\n\n*{escaped(picture.caption)}*"
