"""The report as one HTML page that needs nothing else: no script, no font, no file beside it."""

import base64
from collections.abc import Iterator
from html import escape
from importlib import resources
from pathlib import Path

from fastcv import __version__, files
from fastcv.experiment.words import epochs_in_words
from fastcv.recipe.checks import BEATEN, NOT_BEATEN
from fastcv.report import figures, page_tables
from fastcv.report.document import READING, Chapter, Document, Shown
from fastcv.report.figures import Picture
from fastcv.report.tables import blocks

# The page may show what it carries, and fetch nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write(document: Document, folder: Path) -> Path:
    """Write report.html, and return its path."""
    file = folder / "report.html"
    files.write_text(file, page(document))
    return file


def page(document: Document) -> str:
    """Set the whole page."""
    sections = [
        ("results", "Results", page_tables.results(document)),
        ("differences", "Measured minus reported", _differences(document)),
        ("changed", "Runs with changed settings", page_tables.short_cuts(document)),
        ("unfinished", "Unfinished runs", page_tables.unfinished(document)),
        *(
            (f"recipe-{number}", chapter.recipe, _chapter(chapter))
            for number, chapter in enumerate(document.chapters)
        ),
        ("reading", "How to read this", _reading()),
        ("runs", "The runs", page_tables.runs(document)),
        ("left-out", "Left out", _left_out(document)),
    ]
    sections = [section for section in sections if section[2]]
    contents = "".join(
        f'<li><a href="#{anchor}">{escape(title)}</a></li>' for anchor, title, _ in sections
    )
    body = "".join(
        f'<section id="{anchor}" aria-labeledby="{anchor}-title">'
        f'<h2 id="{anchor}-title">{escape(title)}</h2>{content}</section>\n'
        for anchor, title, content in sections
    )
    style = resources.files("fastcv.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>fastcv report</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#results">To the results</a>\n'
        f'<header><h1>fastcv report</h1><p class="lead">{escape(document.lead)}</p></header>\n'
        f'<nav aria-label="Contents"><h2>Contents</h2><ul>{contents}</ul></nav>\n'
        f"<main>\n{body}</main>\n"
        f"<footer><p>Written by fastcv {escape(__version__)}.</p></footer>\n</body>\n</html>\n"
    )


def _differences(document: Document) -> str:
    return _figure(document.differences, "chart") if document.differences else ""


def _chapter(chapter: Chapter) -> str:
    if not chapter.ladder and not chapter.shown:
        return ""
    parts = [f"<p>{escape(chapter.summary)}</p>"] if chapter.summary else []
    if chapter.ladder:
        parts.append(_figure(chapter.ladder, "chart"))
    parts += [_shown(shown) for shown in chapter.shown]
    return "".join(parts)


def _shown(shown: Shown) -> str:
    if shown.short_cut:
        note = (
            f'<p class="note"><strong>Changed</strong>, compared with nothing: '
            f"{page_tables.changes(shown.short_cut)}</p>"
        )
    else:
        told = "".join(f"<p>{escape(line)}</p>" for line in _told(shown))
        note = f'<div class="told">{told}</div>'
    pictures = "".join(_figure(picture, "") for picture in shown.pictures)
    return (
        f"<article><h3>{page_tables.name(shown.experiment.name)}</h3>{note}"
        f'<div class="pictures">{pictures}</div></article>'
    )


def _told(shown: Shown) -> Iterator[str]:
    """The experiment's headline in a line for each device."""
    for block in blocks(shown.experiment):
        line = block.lines[0]
        reported = "" if line.reported == "none" else f", reported {line.reported}"
        reported = reported.replace("reported to beat: ", "to beat ")
        within = f" ({line.within})" if line.within in (BEATEN, NOT_BEATEN) else ""
        if line.within and not within:
            within = f" (within tolerance: {line.within})"
        yield (
            f"{line.measured} {line.metric}{reported}{within}; {epochs_in_words(block.epochs)} in "
            f"{block.time} on {block.device}"
        )


def _figure(picture: Picture, kind: str) -> str:
    data, width, height = figures.webp(picture.file)
    source = f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"
    tall = " tall" if height > 0.7 * width else ""
    image = f'<img src="{source}" width="{width}" height="{height}" alt="{escape(picture.alt)}">'
    paper = f'<div class="paper">{image}</div>'
    if tall:
        # The style gives the picture that the address names the whole width.
        paper = f'<a class="paper" href="#figure-{picture.name}" title="larger">{image}</a>'
    return (
        f'<figure id="figure-{picture.name}" class="{kind}{tall}">{paper}'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _reading() -> str:
    lines = (f"<dt>{escape(word)}</dt><dd>{escape(says)}</dd>" for word, says in READING)
    return f"<dl>{''.join(lines)}</dl>"


def _left_out(document: Document) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in document.warnings)
    return f"<ul>{lines}</ul>" if lines else ""
