"""The figures that a report shows of a run, small enough for one page to hold them all."""

import csv
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from fastcv.experiment.comparison import Experiment, Result
from fastcv.experiment.directory import Run
from fastcv.interpret.style import save
from fastcv.interpret.training import curves

# Of each run, in this order: the file's name, and what it shows in words.
SHOWN = {
    "curves": "Loss and accuracy, epoch by epoch",
    "confusion_matrix": "Confusion matrix: which classes are taken for which",
    "predictions": "Predictions: images with predicted and true classes",
    "activations": "Activations: what the layers of the net see",
}
WIDEST = 1080  # pixels
QUALITY = 80  # of WebP: the letters of a chart stay clean
# SyntaxError is of a broken PNG, the last two of one that would take more memory than it may.
_UNREADABLE = (
    *(OSError, SyntaxError, KeyError, ValueError, TypeError, OverflowError, csv.Error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of the report.

    Args:
        name: of its file, without ending: letters, digits, hyphens and underscores.
        caption: what it shows, a line that stands below it.
        alt: what it shows, for who does not see it.
        file: where the picture lies.
    """

    name: str
    caption: str
    alt: str
    file: Path


def of_run(
    experiment: Experiment, result: Result, folder: Path, warn: Callable[[str], None]
) -> list[Picture]:
    """Give the pictures of one run that a report shows; none of a committed summary.

    The curves of a run that changed something are drawn anew, into `folder`: its own have the
    reported number beside them, with which it must not be compared. So are those of a run under
    another name, whose report may give another number.
    """
    found = []
    of = f"{'own-' if experiment.own else ''}{slug(experiment.name)}-seed{result.seed}"
    changed = f"-changed-{result.path.name}" if result.path and result.changed else ""
    for stem, says in SHOWN.items():
        file = result.path / "figures" / f"{stem}.png" if result.path else None
        if file is None or not file.is_file():
            continue
        name = f"{of}{changed}-{stem}"
        source = file
        try:
            if stem == "curves" and (changed or result.recipe != experiment.name):
                source, file = result.path / "metrics.csv", folder / f"{name}.png"
                save(_curves(experiment, result), file)
            _decode(file)
        except _UNREADABLE as error:
            said = " ".join(str(error).split())
            warn(f"{source}: left out, no picture can be made of it: {said}")
            continue
        found.append(
            Picture(
                name=name,
                caption=f"{says} (seed {result.seed})",
                alt=f"{says}, of {experiment.name}, seed {result.seed}"
                + (", with changed settings" if changed else ""),
                file=file,
            )
        )
    return found


def _curves(experiment: Experiment, result: Result) -> Figure:
    """The curves of a run for an experiment whose name they do not bear yet."""
    rows = Run(result.path).metrics
    if result.changed:
        return curves(rows, title=f"{experiment.name}, with changed settings")
    reported = {
        metric.replace("_", " "): value
        for metric, value in experiment.numbers.items()
        if metric.endswith("accuracy")
    }
    return curves(rows, reported, title=experiment.name)


def _decode(file: Path) -> None:
    """Read a whole picture, for what is wrong with its data shows nowhere else."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file, formats=["PNG"]) as image:
            image.load()


def drawn(figure: Figure, name: str, caption: str, alt: str, folder: Path) -> Picture:
    """Save a figure of the report itself into a folder, as `of_run` gives those of runs."""
    file = folder / f"{name}.png"
    save(figure, file)
    return Picture(name=name, caption=caption, alt=alt, file=file)


def webp(file: Path) -> tuple[bytes, int, int]:
    """Return a picture as WebP with its width and height in pixels, at most `WIDEST` wide."""
    with Image.open(file, formats=["PNG"]) as image:
        picture = image.convert("RGB")
    picture.thumbnail((WIDEST, 4 * WIDEST), Image.Resampling.LANCZOS)
    written = BytesIO()
    picture.save(written, format="WEBP", quality=QUALITY, method=4)
    return written.getvalue(), picture.width, picture.height


def slug(name: str) -> str:
    """Make of a name one for files and anchors: "mnist_cnn/one_cycle" is "mnist_cnn-one_cycle"."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
