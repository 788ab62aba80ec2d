"""The pages of the course are run as a reader runs them, and their pictures are what they made."""

import os
import re
from pathlib import Path

import pytest
from course import COURSE, Page
from PIL import Image

from fastcv.experiment.results import Results

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WIDEST = 760  # pixels of a picture
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)\n\*`([^`]+)`")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # fastai's show
@pytest.mark.parametrize("name", COURSE)
def test_a_page_of_the_course_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")  # a reader sits in the repository
    page = DOCS / f"{name}.md"
    pictures = PICTURE.findall(page.read_text(encoding="utf-8"))
    shown = {source.partition("/STAMP")[0] for _, source in pictures}
    draw = Results._draw

    def draw_what_is_shown(results):
        """Draw the figures of the runs that the page shows: they take longer than a training."""
        folder = results.run.path.parent.as_posix()
        if folder in shown:
            shown.remove(folder)
            draw(results)

    monkeypatch.setattr(Results, "_draw", draw_what_is_shown)
    Page(page).run()
    for picture, source in pictures:
        (made,) = tmp_path.glob(source.replace("STAMP", "*"))
        _same(made, page.parent / picture)


def _same(made, kept):
    """Check that a picture of a page is what its commands draw, as far as numbers allow.

    With FASTCV_PICTURES=1 it is drawn anew instead.
    """
    with Image.open(made) as image:
        drawn = image.convert("RGB")
    drawn.thumbnail((WIDEST, 4 * WIDEST))
    if os.environ.get("FASTCV_PICTURES"):
        kept.parent.mkdir(exist_ok=True)
        drawn.save(kept, quality=60, method=6)
    with Image.open(kept) as image:
        assert image.width == drawn.width
        assert abs(image.height - drawn.height) < 0.3 * drawn.height  # rows vary with mistakes
    assert kept.stat().st_size < 80_000
