"""Run directories and committed summaries, read into results."""

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from fastcv.recipe.identity import essence
from fastcv.recipe.values import METRICS
from fastcv.report.experiments import Result, Unfinished
from fastcv.runs import Run, read_csv

MEASURES = (*METRICS, "views_accuracy")
# Any of these makes a folder a run directory, so that one without recipe.json is noticed.
_SIGNS = {"recipe.json", "environment.json", "summary.json", "metrics.csv"}
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)


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
            read = read_run(path)
        except _UNREADABLE as error:
            warn(f"{path}: left out, it cannot be read: {_sentence(error)}")
            continue
        if read is not None:
            found.append(read)
    return found


def read_run(path: Path) -> Result | Unfinished | None:
    """Read one run directory; None of a smoke run, `Unfinished` of one without a summary."""
    run = Run(path)
    started = run.started
    if started["smoke"]:
        return None
    name, seed, flat = started["name"], started["flat"]["seed"], started["flat"]
    summary = run.summary
    if not summary:
        done = len(read_csv(path / "metrics.csv"))
        return Unfinished(recipe=name, seed=seed, epochs=done, path=path)
    environment = run.environment
    stated = {
        key.removeprefix("reported."): value
        for key, value in flat.items()
        if key.startswith("reported.") and value is not None
    }
    return Result(
        recipe=name,
        seed=seed,
        measured=_measured(summary),
        epochs=int(summary["epochs"]),
        seconds=float(summary["seconds"]),
        warmup_seconds=summary.get("warmup_seconds"),
        images_per_second=summary.get("images_per_second"),
        device=environment["device"],
        device_name=environment["device_name"],
        precision=environment["precision"],
        packages=environment["packages"],
        command=environment["command"],
        git_revision=environment["git_revision"],
        settings=essence(flat),
        reported=stated,
        own=bool(started["settings"].get("file")),
        path=path,
    )


def read_summaries(folder: Path, warn: Callable[[str], None]) -> list[Result]:
    """Read the summaries, `*.json`, that `fastcv report --save-results` wrote."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            found.append(read_summary(file))
        except _UNREADABLE as error:
            warn(f"{file}: left out, it cannot be read: {_sentence(error)}")
    return found


def read_summary(file: Path) -> Result:
    """Read one committed summary."""
    given: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    known = {each.name for each in fields(Result)} - {"path"}
    if unknown := set(given) - known:
        raise ValueError(f"a summary must hold {', '.join(sorted(known))}, not {unknown}")
    return Result(**given | {"measured": _measured(given["measured"])})


def _measured(summary: dict[str, Any]) -> dict[str, float]:
    return {
        metric: summary[metric]
        for metric in MEASURES
        if isinstance(summary.get(metric), int | float) and math.isfinite(summary[metric])
    }


def _directories(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if _SIGNS & set(files):
            folders.clear()  # nothing of its own files is another run
            yield Path(place)


def _sentence(error: Exception) -> str:
    said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(said.split())
