"""Run directories and committed summaries, read into results."""

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from fastcv.experiment.comparison import Result, Unfinished, is_finite
from fastcv.experiment.directory import Run
from fastcv.files import read_csv
from fastcv.recipe.aliases import NAMES, current_changes, current_flat, current_metrics
from fastcv.recipe.diff import decisive, planned_epochs
from fastcv.recipe.metrics import MEASURES

# Any of these makes a folder a run directory, so that one without recipe.json is noticed.
_SIGNS = {"recipe.json", "environment.json", "summary.json", "metrics.csv"}
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, RecursionError, csv.Error),
)


def read_runs(folder: Path, warn: Callable[[str], None]) -> list[Result | Unfinished]:
    """Read all runs in a folder, or the one that it is, the newest first; no smoke runs.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"runs to report must lie in a folder that exists, {str(folder)!r} is not")
    found = []
    for path in sorted(_directories(folder), key=lambda path: path.name, reverse=True):
        try:
            read = read_run(path, warn)
        except UNREADABLE as error:
            warn(f"{path}: left out, it cannot be read: {sentence(error)}")
            continue
        if read is not None:
            found.append(read)
    return found


def read_run(path: Path, warn: Callable[[str], None]) -> Result | Unfinished | None:
    """Read one run directory; None of a smoke run, `Unfinished` of one without a summary."""
    run = Run(path)
    started = run.started
    if started["smoke"]:
        return None
    name, seed, flat = started["name"], started["flat"]["seed"], started["flat"]
    own = bool(started["settings"].get("file"))
    summary = run.summary
    if not summary:
        return Unfinished(
            recipe=name,
            seed=seed,
            epochs=len(read_csv(path / "metrics.csv")),
            planned=planned_epochs(flat),
            path=path,
            own=own,
        )
    environment = run.environment
    stated = {
        key.removeprefix("reported."): value
        for key, value in flat.items()
        if key.startswith("reported.") and value is not None
    }
    return Result(
        recipe=name,
        seed=seed,
        measured=_measured(summary, path, warn),
        epochs=summary["epochs"],
        seconds=summary["seconds"],
        warmup_seconds=summary.get("warmup_seconds"),
        images_per_second=summary.get("images_per_second"),
        skipped=summary.get("skipped_images", 0),
        device=environment["device"],
        device_name=environment["device_name"],
        precision=environment["precision"],
        packages=environment["packages"],
        command=environment["command"],
        git_revision=environment["git_revision"],
        settings=decisive(flat),
        reported=stated,
        own=own,
        path=path,
    )


def read_summaries(folder: Path, warn: Callable[[str], None]) -> list[Result]:
    """Read the summaries, `*.json`, that `fastcv report --save-results` wrote."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            found.append(read_summary(file, warn))
        except UNREADABLE as error:
            warn(f"{file}: left out, it cannot be read: {sentence(error)}")
    return found


def read_summary(file: Path, warn: Callable[[str], None] = lambda line: None) -> Result:
    """Read one committed summary."""
    given: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    known = {each.name for each in fields(Result)} - {"path"}
    if unknown := set(given) - known:
        raise ValueError(f"a summary must hold {', '.join(sorted(known))}, not {unknown}")
    read = {
        "recipe": NAMES.get(given["recipe"], given["recipe"]),
        "measured": _measured(current_metrics(given["measured"]), file, warn),
        "settings": current_flat(given.get("settings", {})),
        "changed": current_changes(given.get("changed", {})),
    }
    return Result(**given | read)


def _measured(
    summary: dict[str, Any], source: Path, warn: Callable[[str], None]
) -> dict[str, float]:
    found = {}
    for metric in MEASURES:
        value = summary.get(metric)
        if value is None:
            continue
        if not is_finite(value):
            warn(f"{source}: its {metric} is left out, it is no finite number: {value!r:.40}")
        elif metric.endswith("accuracy") and not 0 <= value <= 1:
            warn(f"{source}: its {metric} is left out, it is not between 0 and 1: {value}")
        else:
            found[metric] = value
    return found


def _directories(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if _SIGNS & set(files):
            folders.clear()  # nothing of its own files is another run
            yield Path(place)


def sentence(error: Exception) -> str:
    """Say in one line why something could not be read."""
    said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(said.split())
