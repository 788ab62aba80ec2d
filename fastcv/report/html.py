"""The report as one HTML page that needs nothing else: no script, no font, no file beside it."""

import base64
from pathlib import Path
from typing import Any

from fastcv import files
from fastcv.report import charts, tables
from fastcv.report.charts import Picture
from fastcv.report.document import READING, Document
from fastcv.report.pages import render


def write(document: Document, folder: Path) -> Path:
    """Write report.html from its template, page.html.j2, and return its path."""
    page = render("page.html.j2", document=document, reading=READING, tables=tables, image=_image)
    file = folder / "report.html"
    files.write_text(file, page)
    return file


def _image(picture: Picture) -> dict[str, Any]:
    """Return what an `img` needs of a picture: its data and its size in pixels."""
    data, width, height = charts.webp(picture.file)
    return {
        "source": f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}",
        "width": width,
        "height": height,
        "tall": height > 0.7 * width,
    }
