"""Saved summaries of runs: small files to commit where the runs themselves are too large."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastcv import catalogue, files
from fastcv.experiment.comparison import Experiment, Result, is_finite
from fastcv.experiment.directory import Run
from fastcv.recipe.flat import flat
from fastcv.report.charts import slug
from fastcv.report.gather import completed, identity, without_place
from fastcv.report.read import UNREADABLE, read_summary, sentence
from fastcv.report.tables import runs

CURVES = (
    "stage", "epoch", "train_loss", "valid_loss", "train_accuracy", "valid_accuracy",
)  # fmt: skip
PLACES = ("--out", "--data")  # options that name places on one machine


def save(experiments: Sequence[Experiment], folder: Path) -> list[Path]:
    """Write a file for every finished run of the experiments, and return the files.

    A file is called NAME[-VARIANT]-seedN.json, or ...-changed.json for a run with changed settings.
    It replaces one of the same seed, settings, device and precision; beside another one with its
    name it gets a number.

    Raises:
        ValueError: the folder is a file, or holds a summary that cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"summaries must go into a folder, {str(folder)!r} is a file")
    names = [each.name for each in experiments if not each.own]
    flats = {name: flat(catalogue.get_recipe(name)) for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    found = [result for result in runs(experiments) if result.path is not None]
    return [_write(without_place(result), folder, flats) for result in found]


def portable(command: str) -> str:
    """Remove the places of one machine from a command.

    A command that a shell could not read, as with a lone quote, stays as it is.
    """
    try:
        words = iter(shlex.split(command))
    except ValueError:
        return command
    kept = []
    for word in words:
        if word in PLACES:
            next(words, None)  # the place itself
        elif not word.startswith(tuple(f"{option}=" for option in PLACES)):
            kept.append(word)
    return shlex.join(kept)


def _write(result: Result, folder: Path, flats: Mapping[str, Mapping[str, Any]]) -> Path:
    name = f"{slug(result.recipe)}-seed{result.seed}" + ("-changed" if result.changed else "")
    for number in range(1, 10_000):
        file = folder / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
        if not file.exists() or _same(completed(_read(file), flats), result):
            break
    files.write_json(file, _as_json(result))
    return file


def _read(file: Path) -> Result:
    try:
        return read_summary(file)
    except UNREADABLE as error:
        raise ValueError(
            f"saved summaries must be readable to be replaced, {str(file)!r} cannot: "
            f"{sentence(error)}"
        ) from error


def _as_json(result: Result) -> dict[str, Any]:
    values, kept = vars(result) | {"command": portable(result.command)}, {}
    for each in dataclasses.fields(result):
        default = {} if each.default_factory is dict else each.default
        if each.name != "path" and values[each.name] != default:  # reading restores defaults
            kept[each.name] = values[each.name]
    try:
        rows = Run(result.path).metrics
    except UNREADABLE as error:
        raise ValueError(
            f"a run must have its metrics to be saved, {str(result.path)!r} has not: "
            f"{sentence(error)}"
        ) from error
    if len(rows) == result.epochs:  # not of a file that somebody has cut
        kept["history"] = {name: [_number(row.get(name)) for row in rows] for name in CURVES}
    return kept


def _number(value: Any) -> float | None:
    """Return a number of a table with what a curve can show of it."""
    return float(f"{value:.5g}") if is_finite(value) else None


def _same(there: Result, here: Result) -> bool:
    """Whether two results agree in recipe, seed, settings, device, precision, skipped images."""
    one, other = ((each.recipe, each.skipped, identity(each)) for each in (there, here))
    return one == other
