"""Pages that hold all they show: templates with autoescape, and pictures within them."""

import base64
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from fastcv import __version__
from fastcv.interpret.explained import Row, Tile
from fastcv.interpret.style import percent


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a page: a note, and what it shows.

    Args:
        anchor: by which it is linked.
        title: its heading.
        note: what there is to see.
        rows: pictures in rows, each with a heading, or all without one.
        sheet: a contact sheet, which takes the place of the rows.
        faults: pairs of a path and what is wrong with the file.
        chart: a picture in a file.
        alt: alternative text of the chart.
        table: a row for each class, of its precision, recall and F1 score.
    """

    anchor: str
    title: str
    note: str
    rows: tuple[Row, ...] = ()
    sheet: tuple[Tile, ...] = ()
    faults: tuple[tuple[str, str], ...] = ()
    chart: Path | None = None
    alt: str = ""
    table: tuple[dict, ...] = ()


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder, in the report's style; foreign text stays text."""
    environment = Environment(
        loader=PackageLoader("fastcv.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": breakable, "percent": percent}
    style = resources.files("fastcv.report").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        style=Markup(style), version=__version__, inline=inline, chart=inline_file, **values
    )


def breakable(text: str, marks: str = "/_.") -> Markup:
    """Let a long text break behind a slash, an underscore or a dot."""
    broken = escape(text)
    for mark in marks:
        broken = broken.replace(mark, Markup(f"{mark}<wbr>"))
    return broken


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """Shrink a picture in place to a longer side of `side` pixels; enlarge a tiny one's."""
    picture.thumbnail((side, side))
    if max(picture.size) > side // 2:
        return picture
    scale = side // max(picture.size)
    size = picture.width * scale, picture.height * scale
    return picture.resize(size, Image.Resampling.NEAREST)


def inline_file(file: Path) -> dict[str, object]:
    """Return what an `img` needs of a picture in a file."""
    with Image.open(file) as image:
        return inline(image.convert("RGB"))


def inline(picture: Image.Image) -> dict[str, object]:
    """Return what an `img` needs of a picture: its data and its size in pixels."""
    written = BytesIO()
    picture.save(written, format="WEBP", quality=80, method=4)
    data = base64.b64encode(written.getvalue()).decode("ascii")
    return {
        "source": f"data:image/webp;base64,{data}",
        "width": picture.width,
        "height": picture.height,
    }
