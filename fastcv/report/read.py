"""Read run directories and saved summaries into results."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fastcv.experiment import directory
from fastcv.experiment.comparison import Result, Unfinished, is_finite
from fastcv.experiment.directory import Run
from fastcv.experiment.sweep.summary import NAME as SWEEP
from fastcv.files import read_csv
from fastcv.recipe.aliases import NAMES, current_changes, current_flat, current_metrics
from fastcv.recipe.diff import decisive, planned_epochs
from fastcv.recipe.metrics import MEASURES

# Any of these makes a folder a run directory, so that a run without recipe.json is noticed.
_SIGNS = {"recipe.json", "environment.json", "summary.json", "metrics.csv"}
DEEPEST = 64  # folders between one that is reported and the runs in it
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, RecursionError, csv.Error),
)


def read_runs(folder: Path, warn: Callable[[str], None]) -> list[Result | Unfinished]:
    """Read all runs at any depth of a folder, newest first, but no smoke runs and no trials.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"runs to report must lie in a folder that exists, {str(folder)!r} is not")
    paths = sorted(_directories(folder, warn), key=lambda path: path.name, reverse=True)
    return [found for found in _read_all(paths, read_run, warn) if found is not None]


def read_run(path: Path, warn: Callable[[str], None]) -> Result | Unfinished | None:
    """Read one run directory: `Unfinished` without a summary, None for a smoke run."""
    run = Run(path)
    started, summary = run.started, run.summary
    if started["smoke"]:
        return None
    flat, placed = started["flat"], directory.placed(started)
    # Weights keep the path that was given, as in `changed`: a saved summary has both.
    folders = {key: placed[key] for key in flat if directory.is_folder_of_images(key)}
    identity = {
        "recipe": started["name"],
        "seed": flat["seed"],
        "own": bool(started["settings"].get("file")),
        "path": path,
    }
    if not summary:
        epochs = len(read_csv(path / "metrics.csv"))
        return Unfinished(**identity, epochs=epochs, planned=planned_epochs(flat))
    environment = run.environment
    names = ("device", "device_name", "precision", "packages", "command", "git_revision")
    return Result(
        **identity,
        measured=_measured(summary, path, warn),
        epochs=summary["epochs"],
        seconds=summary["seconds"],
        **{name: summary.get(name) for name in ("warmup_seconds", "images_per_second")},
        skipped=summary.get("skipped_images", 0),
        **{name: environment[name] for name in names},
        settings=decisive({**flat, **folders}),
        reported={
            key.removeprefix("reported."): value
            for key, value in flat.items()
            if key.startswith("reported.") and value is not None
        },
        changed=started["changed"],
    )


def read_summaries(folder: Path, warn: Callable[[str], None]) -> list[Result]:
    """Read the summaries, `*.json`, that `fastcv report --save-results` wrote."""
    return list(_read_all(sorted(folder.glob("*.json")), read_summary, warn))


def _read_all(paths: Iterable[Path], read: Callable, warn: Callable[[str], None]) -> Iterator[Any]:
    """Read each path; one that cannot be read is named and left out."""
    for path in paths:
        try:
            yield read(path, warn)
        except UNREADABLE as error:
            warn(f"{path}: left out, it cannot be read: {sentence(error)}")


def read_summary(file: Path, warn: Callable[[str], None] = lambda line: None) -> Result:
    """Read one saved summary."""
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    known = {each.name for each in fields(Result)} - {"path"}
    if unknown := set(values) - known:
        raise ValueError(f"a summary must hold {', '.join(sorted(known))}, not {unknown}")
    read = {
        "recipe": NAMES.get(values["recipe"], values["recipe"]),
        "measured": _measured(current_metrics(values["measured"]), file, warn),
        "settings": decisive(current_flat(values.get("settings", {}))),
        "changed": current_changes(values.get("changed", {})),
    }
    return Result(**values | read)


def _measured(
    summary: Mapping[str, Any], source: Path, warn: Callable[[str], None]
) -> dict[str, float]:
    """Return the known metrics and the recipe's own: numbers called valid_NAME or test_NAME."""
    own = [
        name
        for name, value in summary.items()
        if name.startswith(("valid_", "test_")) and type(value) in (int, float)
    ]
    found = {}
    for metric in dict.fromkeys((*MEASURES, *own)):
        value = summary.get(metric)
        if value is None:
            continue
        if not is_finite(value):
            warn(f"{source}: {metric} is left out: it must be a finite number, got {value!r:.40}")
        elif metric.endswith("accuracy") and not 0 <= value <= 1:
            warn(f"{source}: {metric} is left out: it must be between 0 and 1, got {value}")
        else:
            found[metric] = value
    return found


def _directories(folder: Path, warn: Callable[[str], None]) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if SWEEP in files:
            folders.clear()  # its trials are compared with each other
        elif _SIGNS & set(files):
            folders.clear()  # a run directory holds no other run
            yield Path(place)
        elif place.count(os.sep) - str(folder).count(os.sep) >= DEEPEST:
            if folders:
                warn(f"{str(folder)!r}: runs below {DEEPEST} folders are not looked for")
            folders.clear()  # Python itself fails some hundred folders deeper


def sentence(error: Exception) -> str:
    """Say in one line why something could not be read."""
    reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(reason.split())
