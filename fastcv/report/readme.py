"""The results tables of README.md and docs/results.md, between two marks in each file."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fastcore.basics import groupby

from fastcv import files
from fastcv.experiment.comparison import Experiment
from fastcv.experiment.words import measured, number, short
from fastcv.markdown import code, escaped, table
from fastcv.report.markdown import changed_table, run_cells
from fastcv.report.tables import RUN_COLUMNS, Row, changed_rows, revisions, rows, shown_metrics

BEGIN = "<!-- results: written by `fastcv report --readme` from recipes/results/*.json -->"
END = "<!-- end of results -->"
COLUMNS = ("experiment", "reported", "measured", "within tolerance", *RUN_COLUMNS, "revision")
MOST = 15  # rows in a README
NOTHING = "No experiment was run in full yet."


def results_table(experiments: Sequence[Experiment]) -> str:
    """Set everything that was run as Markdown: whole experiments, then changed runs."""
    found = [(group, row) for group in _run(experiments) for row in rows(group[0])]
    parts = [_table(found) if found else NOTHING]
    if changed := [row for each in experiments for row in changed_rows(each)]:
        parts.append(
            "Runs with changed settings, compared with nothing:\n\n"
            + changed_table(changed, revision=True)
        )
    return "\n\n".join(parts)


def short_table(experiments: Sequence[Experiment]) -> str:
    """Set the catalogue's results as Markdown, two rows a recipe and at most `MOST` in all.

    One row is the recipe itself or, where it was not run in full, the last of its variants that
    was; the other is its one_cycle. The first kind goes before the second where not all fit. Of
    several devices the one with the most seeds is shown.
    """
    ran = [group for group in _run(experiments) if not group[0].own]
    recipes = groupby(ran, lambda group: group[0].name.partition("/")[0])
    firsts, seconds = [], []
    for recipe, groups in recipes.items():
        theirs = [group for group in groups if not group[0].to_beat]
        itself = [group for group in theirs if group[0].name == recipe]
        firsts += (itself or theirs)[-1:]
        beating = [group for group in groups if group[0].to_beat]
        cycles = [group for group in beating if group[0].name == f"{recipe}/one_cycle"]
        seconds += (cycles or beating)[:1]
    kept = sorted((firsts + seconds)[:MOST], key=ran.index)
    found = [(group, max(rows(group[0]), key=lambda row: len(row.results))) for group in kept]
    if not found:
        return NOTHING
    return (
        f"{_table(found)}\n\n{len(ran)} experiments of the catalogue were run in full. This table "
        "shows each recipe itself, or the last of its variants that was run, and its one_cycle."
    )


def _run(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Group the names of each experiment that was run; two reported numbers make two groups."""
    by_name = {each.name: each for each in experiments}
    groups, listed = [], set()
    for each in experiments:
        if not each.results or each.name in listed:
            continue
        others = [by_name[alias] for alias in each.aliases]
        group = [each, *(other for other in others if other.numbers == each.numbers)]
        listed.update(one.name for one in group)
        groups.append(group)
    return groups


def _table(found: Iterable[tuple[Sequence[Experiment], Row]]) -> str:
    lines = []
    for group, row in found:
        names = ", ".join(code(each.name) for each in group)
        numbers = ", ".join(
            f"{measured(row.group, metric)} {short(metric)}"
            for metric in shown_metrics(row.group)
            if metric in (row.group.headline, "test_accuracy")
        )
        reported, within = escaped(_reported(row.experiment)), row.lines[0].within
        names = f"{names} {escaped(row.images)}".strip()
        lines.append((names, reported, numbers, within, *run_cells(row), revisions(row.results)))
    return table(COLUMNS, lines)


def _reported(experiment: Experiment) -> str:
    """Write "91.47 % best test (Report 003, table 1)"; of a number to beat with its epochs."""
    metric, reported = experiment.headline, experiment.reported
    if reported is None:
        return "none"
    if metric not in experiment.numbers:
        return f"no number (Report {reported.source})"
    value = number(metric, experiment.numbers[metric])
    stated = f"{value} {short(metric)} (Report {reported.source})"
    if experiment.original is not None:
        stated += f" in {experiment.original.epochs} epochs"
    return f"to beat: {stated}" if experiment.to_beat else stated


def write(file: Path, text: str) -> bool:
    """Write a text between the marks of a file; return whether that changed it.

    Raises:
        ValueError: there is no such file, or the marks are not in it, once each and in order.
    """
    if not file.is_file():
        raise ValueError(f"the results table needs a file to stand in, {str(file)!r} is not there")
    old = file.read_text(encoding="utf-8")
    before, _, after = _parts(old, file)
    new = f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
    if new == old:
        return False
    files.write_text(file, new)
    return True


def between(text: str) -> str:
    """Return what stands between the marks of a file's text."""
    return _parts(text, Path("README.md"))[1].strip()


def _parts(text: str, file: Path) -> tuple[str, str, str]:
    """Split the text of a file into what stands before, between and behind the marks."""
    before, _, rest = text.partition(BEGIN)
    middle, end, after = rest.partition(END)
    if not end or BEGIN in rest or END in before or END in after:
        raise ValueError(
            f"{str(file)!r} must hold the line {BEGIN!r} and, below it, the line {END!r}, "
            "once each: put them where the table should stand"
        )
    return before, middle, after
