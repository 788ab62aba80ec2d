"""The report as one HTML page that needs nothing else: no script, no font, no file beside it."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from fastcv import __version__, files
from fastcv.report import charts, tables
from fastcv.report.charts import Picture
from fastcv.report.document import READING, Document


def write(document: Document, folder: Path) -> Path:
    """Write report.html from its template, page.html.j2, and return its path."""
    environment = Environment(
        loader=PackageLoader("fastcv.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    known = {"reading": READING, "tables": tables, "image": _image, "version": __version__}
    page = environment.get_template("page.html.j2").render(document=document, **known)
    file = folder / "report.html"
    files.write_text(file, page)
    return file


def _breakable(text: str, marks: str = "/_.") -> Markup:
    """Let a long text break behind a slash, an underscore or a dot."""
    broken = escape(text)
    for mark in marks:
        broken = broken.replace(mark, Markup(f"{mark}<wbr>"))
    return broken


def _image(picture: Picture) -> dict[str, Any]:
    """Return what an `img` needs of a picture: its data and its size in pixels."""
    data, width, height = charts.webp(picture.file)
    return {
        "source": f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}",
        "width": width,
        "height": height,
        "tall": height > 0.7 * width,
    }
