"""The report as Markdown, with its pictures in a folder beside it."""

from collections.abc import Iterable
from pathlib import Path

from fastcv import files
from fastcv.markdown import code, escaped, table
from fastcv.report import tables
from fastcv.report.charts import Picture
from fastcv.report.document import READING, Document, Section
from fastcv.report.sweeps import SweepSection
from fastcv.report.tables import Row


def write(document: Document, folder: Path) -> Path:
    """Write report.md and the pictures it shows, into `folder`/figures, and return its path."""
    parts = ["# fastcv report", document.lead, "## Results"]
    if rows := [row for section in document.sections for row in section.rows]:
        parts.append(result_table(rows))
    if document.missing:
        names = ", ".join(map(escaped, document.missing))
        parts.append(f"Not run in full ({len(document.missing)}): {names}.")
    if document.differences:
        parts += ["## Measured minus reported", _picture(document.differences, folder)]
    if document.changed:
        parts += ["## Runs with changed settings", tables.CHANGED_NOTE]
        parts.append(changed_table(document.changed))
    if document.unfinished:
        cells = (
            (code(each.name), str(run.seed), f"{run.epochs} of {run.planned}", code(str(run.path)))
            for each, run in document.unfinished
        )
        parts += ["## Unfinished runs", tables.UNFINISHED_NOTE]
        parts.append(table(tables.UNFINISHED_COLUMNS, cells))
    for section in document.sections:
        parts += _section(section, folder)
    for each in document.sweeps:
        parts += _sweep(each, folder)
    parts += ["## How to read this", *(f"**{word}**: {text}" for word, text in READING)]
    if document.runs:
        cells = ([escaped(cell) for cell in tables.made_by(run)] for run in document.runs)
        parts += ["## The runs", table(tables.MADE_BY_COLUMNS, cells)]
    if document.warnings:
        parts += ["## Left out", "\n".join(f"- {escaped(line)}" for line in document.warnings)]
    file = folder / "report.md"
    files.write_text(file, "\n\n".join(parts) + "\n")
    return file


def result_table(rows: Iterable[Row]) -> str:
    """Set rows as a table: a line for each number, reported and measured."""
    lines = []
    for row in rows:
        name, run = run_name(row), run_cells(row)
        for line in row.lines:
            lines.append((name, *line[:3], line.within, *run))
            name, run = "", [""] * len(run)
    return table(tables.RESULT_COLUMNS, lines)


def changed_table(rows: Iterable[Row], *, revision: bool = False) -> str:
    """Set rows of changed runs as a table, with the revision of fastcv where wanted."""
    lines = []
    for row in rows:
        changed = "<br>".join(map(code, row.changed))
        last = [tables.revisions(row.results)] if revision else []
        lines.append((run_name(row), changed, row.measured, *run_cells(row), *last))
    return table(tables.CHANGED_COLUMNS + (("revision",) if revision else ()), lines)


def run_name(row: Row) -> str:
    """Return the name of a row's experiment and, where they are the user's, its images."""
    return f"{code(row.experiment.name)} {escaped(row.images)}".strip()


def run_cells(row: Row) -> list[str]:
    """Return the cells of `RUN_COLUMNS`."""
    return [escaped(getattr(row, column)) for column in tables.RUN_COLUMNS]


def _section(section: Section, folder: Path) -> list[str]:
    if not section.ladder and not section.pictured:
        return []
    parts = [f"## {escaped(section.recipe)}"]
    if section.summary:
        parts.append(escaped(section.summary))
    if section.ladder:
        parts.append(_picture(section.ladder, folder))
    for row in section.pictured:
        parts.append(f"### {code(row.experiment.name)}")
        if row.changed:
            changed = ", ".join(map(code, row.changed))
            parts.append(f"Changed, so compared with nothing: {changed}")
        else:
            parts.append(escaped(row.sentence))
        parts += [_picture(picture, folder) for picture in row.pictures]
    return parts


def _sweep(section: SweepSection, folder: Path) -> list[str]:
    parts = [f"## Sweep {escaped(section.sweep.name)}", escaped(section.sentence)]
    if section.rows:
        rows = ([*row[:2], *map(code, row[2:-2]), *row[-2:]] for row in section.rows)
        parts.append(table(tuple(map(escaped, section.columns)), rows))
        parts.append(f"{section.sweep.caution.capitalize()}: {code(section.sweep.command)}")
    return parts + [_picture(picture, folder) for picture in section.pictures]


def _picture(picture: Picture, folder: Path) -> str:
    place = folder / "figures" / f"{picture.name}.png"
    if picture.file.resolve() != place.resolve():
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(place, picture.file.read_bytes())
    return f"![{escaped(picture.alt)}](figures/{place.name})\n\n*{escaped(picture.caption)}*"
