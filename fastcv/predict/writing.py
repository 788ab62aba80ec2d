"""Predictions on files and folders, written as lines, CSV or JSON while they are made."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fastcv.predict.evaluation import NO_LABEL
from fastcv.predict.predictor import BATCH_SIZE, Prediction, Predictor, Unreadable, image_files
from fastcv.terminal import Bar


def files_of(paths: Iterable[str | Path], *, exist: bool = True) -> Iterator[Path]:
    """Give each file, and of each folder the image files below it, in order.

    Args:
        paths: of files and folders.
        exist: refuse a path that does not exist; else it is given as a file.

    Raises:
        ValueError: a path does not exist, or a folder holds no images.
    """
    for each in map(Path, paths):
        if each.is_dir():
            found = image_files(each)
            if not found:
                raise ValueError(f"a folder to predict must hold images, {str(each)!r} holds none")
            yield from found
        elif each.exists() or not exist:
            yield each
        else:
            raise ValueError(f"a path to predict must exist, {str(each)!r} does not")


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
        paths: files and folders; an iterator is read as they are needed, and a path of it that does
            not exist counts as unreadable.
        top: likeliest classes to write of each.
        table: a CSV file to write instead of lines.
        as_json: whether each line is a JSON object.
        batch_size: images that the net computes at a time.
        write: takes each line.
        warn: takes a sentence for each file that cannot be read.

    Returns:
        The number of files that could not be read.

    Raises:
        ValueError: `top` is below 1, or a path does not exist.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    files: Iterable[Path] = files_of(paths, exist=isinstance(paths, Sequence))
    total = None
    if isinstance(paths, Sequence):  # a mistake among them is said before anything is predicted
        files = list(files)
        total = len(files)
    unreadable = 0
    bar = Bar(sys.stderr)
    with ExitStack() as stack:
        rows = None
        if table is not None:
            opened = stack.enter_context(table.open("w", encoding="utf-8", newline=""))
            rows = csv.writer(opened, lineterminator="\n")
            ranks = range(1, min(top, len(predictor.classes)) + 1)
            rows.writerow(["path", *(f"{what}_{n}" for n in ranks for what in ("class", "prob"))])
        stack.callback(bar.erase)
        for count, found in enumerate(predictor.stream(files, batch_size=batch_size), start=1):
            lines = rows is None or isinstance(found, Unreadable)
            if lines:
                bar.erase()
            if isinstance(found, Unreadable):
                unreadable += 1
                warn(found.reason)
            elif rows is not None:
                cells = (cell for name, share in found.top(top) for cell in (name, f"{share:.6f}"))
                rows.writerow([found.path, *cells])
            else:
                write(json.dumps(_object(found, top)) if as_json else _line(found, top))
            if bar.due or (lines and bar.live):
                of, done = (f"/{total:,}", count / total) if total else ("", None)
                bar.draw(f"predicting {count:,}{of} images", done)
    return unreadable


def _object(found: Prediction, top: int) -> dict[str, Any]:
    best = [{"class": name, "probability": round(share, 6)} for name, share in found.top(top)]
    labels = {} if found.thresholds is None else {"labels": [name for name, _ in found.labels]}
    return {"path": str(found.path), **labels, "predictions": best}


def _line(found: Prediction, top: int) -> str:
    pairs = found.top(top) if found.thresholds is None else found.labels
    said = ", ".join(f"{name} {share:.2%}" for name, share in pairs)
    return f"{found.path}: {said or NO_LABEL}"
