"""Two runs on the same images: `fastcv compare RUN RUN`, in words and as a page."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastcv import files
from fastcv.data.decoding import read_image
from fastcv.experiment.directory import Run
from fastcv.experiment.images import RunImages
from fastcv.experiment.trained import load
from fastcv.predict.evaluation import Predictions, wilson
from fastcv.predict.paired import Paired, compare
from fastcv.report.pages import render, thumbnail

MOST = 200  # images on the page
SIDE = 128  # pixels of a thumbnail's longer side


def compare_runs(
    first: str | Path,
    second: str | Path,
    *,
    part: str | None = None,
    out: Path | None = None,
    trust: bool = False,
    write: Callable[[str], None] = print,
) -> Paired:
    """Compare two runs on the images that both have predicted; print it, and write compare.html.

    Args:
        first: a run directory.
        second: another one.
        part: "valid" or "test"; None takes the first run's test images if there are any.
        out: the page; None takes compare.html beside the second run.
        trust: as of `Run`.
        write: takes each line.

    Raises:
        ValueError: a run cannot be read, or the two have nothing to compare.
    """
    runs = [Run(Path(each), trust=trust) for each in (first, second)]
    images = [RunImages(run) for run in runs]
    found: list[Predictions] = []
    for run, each in zip(runs, images, strict=True):
        part, predictions = each.predictions(load(run.path, trust=trust), part, write)
        found.append(predictions)
    paired = compare(*found)
    for line in lines(runs, paired):
        write(line)
    page = out or runs[1].path / "compare.html"
    shown = [_row(found, images[0], *pair) for pair in _pairs(paired)]
    text = render("compare.html.j2", runs=runs, part=part, paired=paired, rows=shown, most=MOST)
    files.write_text(page, text)
    write(str(page))
    return paired


def lines(runs: list[Run], paired: Paired) -> list[str]:
    """Return the comparison in words, a line each."""
    found = []
    for run, accuracy in zip(runs, paired.accuracies, strict=True):
        low, high = wilson(round(accuracy * paired.images), paired.images)
        found.append(f"{run.path}: {accuracy:.2%} (95 % interval {low:.2%} to {high:.2%})")
    low, high = (100 * end for end in paired.interval)
    return [
        *found,
        f"difference: {100 * paired.difference:+.2f} points (95 % interval {low:+.2f} to "
        f"{high:+.2f}) on {paired.images:,} images",
        f"only the first is right on {paired.only_first:,} images, only the second on "
        f"{paired.only_second:,}: p = {paired.p_value:.3g} by McNemar's exact test",
    ]


def _pairs(paired: Paired) -> list[tuple[int, int]]:
    return list(zip(paired.differ, paired.partners, strict=True))[:MOST]


def _row(found: list[Predictions], images: RunImages, here: int, there: int) -> dict[str, object]:
    first, second = found
    upright = getattr(images.run.recipe.data, "upright", False)
    picture = read_image(images[first.paths[here]], upright=upright)
    picture = thumbnail(picture, SIDE)
    answers = [
        {
            "name": each.classes[int(each.predicted[place])],
            "confidence": float(np.max(each.probabilities[place])),
            "right": bool(each.right[place]),
        }
        for each, place in ((first, here), (second, there))
    ]
    true = first.classes[int(first.targets[here])]
    return {"path": first.paths[here], "picture": picture, "true": true, "answers": answers}
