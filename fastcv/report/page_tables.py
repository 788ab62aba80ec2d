"""The tables of the HTML page."""

from collections.abc import Sequence
from html import escape

from fastcv.experiment.comparison import Experiment
from fastcv.recipe.checks import BEATEN, NOT_BEATEN
from fastcv.report.document import Chapter, Document
from fastcv.report.markdown import RESULT_COLUMNS, RUN_COLUMNS, SHORT_CUT_COLUMNS, run_row
from fastcv.report.tables import Block, Line, ShortCut

_PILLS = {
    "yes": ("good", "✓"),
    BEATEN: ("good", "✓"),
    "no, above": ("high", "▲"),
    "no, below": ("low", "▼"),
    NOT_BEATEN: ("low", "▼"),
}


def results(document: Document) -> str:
    """Set every experiment, reported and measured; those of one recipe belong together."""
    groups = []
    for chapter in document.chapters:
        told: set[str] = set()  # what a second device need not repeat
        rows = []
        for block in chapter.blocks:
            rows.append(_block(block, chapter, again=block.experiment.name in told))
            told.add(block.experiment.name)
        groups.append(f'<tbody role="rowgroup">{"".join(rows)}</tbody>')
    return _table("results", RESULT_COLUMNS, "".join(groups), "Reported and measured numbers")


def _block(block: Block, chapter: Chapter, again: bool) -> str:
    span = f' rowspan="{len(block.lines)}"' if len(block.lines) > 1 else ""
    experiment = block.experiment
    kind = "run" if experiment.results else "not-run"
    told = name(experiment.name) + ("" if again else _also(experiment, chapter))
    rows = []
    for index, line in enumerate(block.lines):
        cells = [_cell("metric", line.metric), *_numbers(line)]
        if index == 0:
            cells = [
                f'<th scope="row" role="rowheader"{span}>{told}</th>',
                *cells,
                _cell("epochs", block.epochs, span, "number"),
                _cell("time", block.time, span, "number"),
                _cell("device", block.device, span),
                _cell("seeds", block.seeds, span),
            ]
        first = " first" if index == 0 else ""
        rows.append(f'<tr role="row" class="{kind}{first}">{"".join(cells)}</tr>')
    return "".join(rows)


def _also(experiment: Experiment, chapter: Chapter) -> str:
    """What stands below an experiment's name: its line, and its other names."""
    lines = []
    if experiment.name == chapter.recipe or experiment.summary != chapter.summary:
        lines.append(escape(experiment.summary))  # a variant without a line has its recipe's
    if experiment.aliases:
        lines.append("the same as " + ", ".join(name(each) for each in experiment.aliases))
    if experiment.own:
        lines.append("from a file of its own")
    return "".join(f'<span class="also">{line}</span>' for line in lines if line)


def _numbers(line: Line) -> list[str]:
    kind, mark = _PILLS.get(line.within, ("", ""))
    within = ""
    if line.within:
        sign = f'<span aria-hidden="true">{mark}</span> ' if mark else ""
        within = f'<span class="pill {kind}">{sign}{escape(line.within)}</span>'
    return [
        _cell("reported", line.reported, "", "number"),
        _cell("measured", line.measured, "", "number measured"),
        _filled("within tolerance", within),
    ]


def _cell(label: str, text: str, span: str = "", kind: str = "") -> str:
    return _filled(label, escape(text), span, kind)


def _filled(label: str, content: str, span: str = "", kind: str = "") -> str:
    css = f' class="{kind}"' if kind else ""
    inside = f"<div>{content}</div>" if content else ""  # the style hides an empty cell of a card
    return f'<td role="cell" data-label="{label}"{css}{span}>{inside}</td>'


def _table(kind: str, columns: Sequence[str], groups: str, caption: str) -> str:
    head = "".join(f'<th scope="col" role="columnheader">{escape(each)}</th>' for each in columns)
    # The roles keep it a table to a screen reader where the style lays its rows out as cards.
    return (
        f'<table class="{kind}" role="table"><caption>{escape(caption)}</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>{groups}</table>'
    )


def short_cuts(document: Document) -> str:
    """Set the runs that changed something; nothing where there are none."""
    if not document.short_cuts:
        return ""
    rows = "".join(_short_cut(cut) for cut in document.short_cuts)
    return (
        "<p>Compared with nothing: they are not the experiments whose names they bear.</p>"
        + _table(
            "changed",
            SHORT_CUT_COLUMNS,
            f'<tbody role="rowgroup">{rows}</tbody>',
            "Runs that changed a setting of their experiment",
        )
    )


def _short_cut(cut: ShortCut) -> str:
    return (
        '<tr role="row" class="run first"><th scope="row" role="rowheader">'
        f"{name(cut.experiment.name)}</th>"
        + _filled("changed", changes(cut))
        + _cell("measured", cut.measured, "", "number measured")
        + _cell("epochs", cut.epochs, "", "number")
        + _cell("time", cut.time, "", "number")
        + _cell("device", cut.device)
        + _cell("seeds", cut.seeds)
        + "</tr>"
    )


def changes(cut: ShortCut) -> str:
    """Set what a run changed, a line each."""
    return "<br>".join(f"<code>{_breakable(line)}</code>" for line in cut.changed)


def unfinished(document: Document) -> str:
    """Set the runs without a summary; nothing where there are none."""
    if not document.unfinished:
        return ""
    rows = "".join(
        '<tr role="row" class="run first"><th scope="row" role="rowheader">'
        f"{name(each.name)}</th>"
        + _cell("seed", str(run.seed))
        + _cell("epochs done", f"{run.epochs} of {run.planned}", "", "number")
        + _filled("directory", f"<code>{_breakable(str(run.path))}</code>")
        + "</tr>"
        for each, run in document.unfinished
    )
    return "<p>Stopped, or still going on; they count in no table.</p>" + _table(
        "unfinished",
        ("experiment", "seed", "epochs done", "directory"),
        f'<tbody role="rowgroup">{rows}</tbody>',
        "Runs without a summary",
    )


def runs(document: Document) -> str:
    """Set what made each result: command, versions, revision; nothing where there are none."""
    if not document.runs:
        return ""
    rows = []
    for result in document.runs:
        run, *cells = run_row(result)
        told = zip(RUN_COLUMNS[1:], cells, strict=True)
        rows.append(
            '<tr role="row" class="run first">'
            f'<th scope="row" role="rowheader">{name(run)}</th>'
            + "".join(_filled(column, _breakable(cell)) for column, cell in told)
            + "</tr>"
        )
    body = f'<tbody role="rowgroup">{"".join(rows)}</tbody>'
    return _table("runs", RUN_COLUMNS, body, "What made each result")


def name(experiment: str) -> str:
    """Set an experiment's name; it may break before its variant alone."""
    return f"<code>{escape(experiment).replace('/', '/<wbr>')}</code>"


def _breakable(name: str) -> str:
    """Let a long text break where it is read: behind a slash, a dot, an underscore."""
    text = escape(name)
    for mark in ("/", "_", "."):
        text = text.replace(mark, f"{mark}<wbr>")
    return text
