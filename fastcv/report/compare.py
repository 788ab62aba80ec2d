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
        part: "valid", "test" or "folds", as `RunImages.predictions` takes it; None takes the test
            images if both runs have some, else the first part that both have.
        out: the page; None takes compare.html beside the second run.
        trust: as of `Run`.
        write: takes each line.

    Raises:
        ValueError: a run cannot be read, the two have nothing to compare, or `out` is no file
            that can be written.
    """
    runs = [Run(Path(each), trust=trust) for each in (first, second)]
    page = out or runs[1].path / "compare.html"
    files.make_way(page, "a page")  # before the work
    images = [RunImages(run) for run in runs]
    part = part or _shared_part(images)
    found: list[Predictions] = []
    for run, each in zip(runs, images, strict=True):
        _, predictions = each.predictions(load(run.path, trust=trust), part, write)
        found.append(predictions)
    paired = compare(*found)
    for line in lines(runs, paired):
        write(line)
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


def _shared_part(images: list[RunImages]) -> str:
    """Return "test" if both runs have it, else the first part that both have."""
    first, second = (each.parts for each in images)
    shared = [part for part in first if part in second]
    if not shared:
        has = [" and ".join(each) or "none" for each in (first, second)]
        raise ValueError(
            "two runs to compare must both have validation images or both have test images, got "
            f"{has[0]} of the first and {has[1]} of the second"
        )
    return "test" if "test" in shared else shared[0]


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
