"""Predictions on files and folders, written as lines, CSV or JSON while they are made."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from fastcv.files import is_no_room
from fastcv.predict.evaluation import NO_LABEL
from fastcv.predict.predictor import BATCH_SIZE, Prediction, Predictor, Unreadable, image_files
from fastcv.terminal import Bar


def files_of(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Give each file, and of each folder the image files below it, in order.

    Raises:
        ValueError: a path does not exist, or a folder holds no images.
    """
    for each in map(Path, paths):
        if each.is_dir():
            found = image_files(each)
            if not found:
                raise ValueError(f"a folder to predict must hold images, {str(each)!r} holds none")
            yield from found
        elif each.exists():
            yield each
        else:
            raise ValueError(f"a path to predict must exist, {str(each)!r} does not")


def paths_of(lines: Iterable[str]) -> Iterator[str]:
    """Give the path of each line, however it ends; empty lines are skipped."""
    for line in lines:
        if path := line.rstrip("\r\n"):
            yield path


def predict_files(
    predictor: Predictor,
    paths: Iterable[str | Path],
    *,
    top: int = 1,
    table: Path | None = None,
    as_json: bool = False,
    batch_size: int = BATCH_SIZE,
    write: Callable[[str], None] = print,
    warn: Callable[[str], None] = print,
) -> int:
    """Predict files and folders, and write each prediction as it comes.

    A terminal shows a bar on standard error.

    Args:
        predictor: what predicts.
        paths: files and folders; an iterator gives files alone, which are read as they are needed,
            and a folder or a path that does not exist counts as unreadable.
        top: likeliest classes to write of each.
        table: a CSV file to write instead of lines; of several labels an image, it holds the labels
            that hold and the probability of every class, whatever `top` is.
        as_json: whether each line is a JSON object.
        batch_size: images that the net computes at a time.
        write: takes each line.
        warn: takes a sentence for each file that cannot be read.

    Returns:
        The number of files that could not be read.

    Raises:
        ValueError: `top` is below 1, a path does not exist, the table cannot be written, or both a
            table and JSON are asked for.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    if table is not None and as_json:
        raise ValueError("predictions are written as CSV or as JSON, got both: leave out one")
    files: Iterable[Path] = map(Path, paths)
    total = None
    if isinstance(paths, Sequence):  # a mistake among them is said before anything is predicted
        files = list(files_of(paths))
        total = len(files)
    unreadable = 0
    bar = Bar(sys.stderr)
    with ExitStack() as stack:
        rows = None
        if table is not None:
            rows = csv.writer(stack.enter_context(_opened(table)), lineterminator="\n")
            rows.writerow(_columns(predictor, top))
        stack.callback(bar.erase)
        for count, found in enumerate(predictor.stream(files, batch_size=batch_size), start=1):
            lines = rows is None or isinstance(found, Unreadable)
            if lines:
                bar.erase()
            if isinstance(found, Unreadable):
                unreadable += 1
                warn(found.reason)
            elif rows is not None:
                rows.writerow(_cells(found, top))
            elif as_json:
                write(json.dumps({"path": str(found.path), **as_object(found, top)}))
            else:
                write(_line(found, top))
            if bar.due or (lines and bar.live):
                of, done = (f"/{total:,}", count / total) if total else ("", None)
                bar.draw(f"predicting {count:,}{of} images", done)
    return unreadable


def as_object(found: Prediction, top: int) -> dict[str, Any]:
    """Return the likeliest classes as JSON has them, and of several labels those that hold."""
    best = [{"class": name, "probability": round(share, 6)} for name, share in found.top(top)]
    labels = {} if found.thresholds is None else {"labels": [name for name, _ in found.labels]}
    return {**labels, "predictions": best}


def _opened(table: Path) -> TextIO:
    """Open a table to write, in a folder that is made if there is none.

    Raises:
        ValueError: the system refuses to.
    """
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
        return table.open("w", encoding="utf-8", newline="")
    except OSError as error:
        if is_no_room(error):
            raise
        raise ValueError(
            f"a table must be a file that can be written, {str(table)!r} cannot "
            f"({error.strerror}): choose another path"
        ) from error


def _columns(predictor: Predictor, top: int) -> list[str]:
    if predictor.model.thresholds is not None:
        return ["path", "labels", *(f"prob_{name}" for name in predictor.classes)]
    ranks = range(1, min(top, len(predictor.classes)) + 1)
    return ["path", *(f"{what}_{n}" for n in ranks for what in ("class", "prob"))]


def _cells(found: Prediction, top: int) -> list[Any]:
    if found.thresholds is not None:
        labels = ", ".join(name for name, _ in found.labels)
        return [found.path, labels, *(f"{share:.6f}" for share in found.probabilities)]
    pairs = found.top(top)
    return [found.path, *(cell for name, share in pairs for cell in (name, f"{share:.6f}"))]


def _line(found: Prediction, top: int) -> str:
    pairs = found.top(top) if found.thresholds is None else found.labels
    said = ", ".join(f"{name} {share:.2%}" for name, share in pairs)
    return f"{found.path}: {said or NO_LABEL}"
