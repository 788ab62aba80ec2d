"""Judge a trained net on its own images or on another folder, and calibrate it."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastcv import files, interpret
from fastcv.data.samples import Sample
from fastcv.data.sources.folders import read_folders
from fastcv.experiment.directory import Run
from fastcv.experiment.images import PARTS, RunImages, predict
from fastcv.experiment.trained import trained_model
from fastcv.interpret.explained import reliability_curve
from fastcv.learning.tta import TTA
from fastcv.predict import evaluation
from fastcv.predict.calibration import fit_temperature
from fastcv.predict.evaluation import Evaluation, Predictions
from fastcv.predict.predictor import Predictor
from fastcv.terminal import doing, make_bar


def write_tables(folder: Path, found: Predictions) -> None:
    """Write per_class.csv, predictions.csv and top_losses.csv of some predictions.

    Of several labels an image, the first is per_label.csv.
    """
    name = "per_label.csv" if found.multi_label else "per_class.csv"
    rows = evaluation.per_class(found)
    if found.multi_label:
        rows = [{"label": row.pop("class"), **row} for row in rows]
        for row in rows:
            del row["most_confused_with"]
    files.write_csv(folder / name, rows)
    files.write_csv(folder / "predictions.csv", evaluation.rows(found))
    files.write_csv(folder / "top_losses.csv", evaluation.top_losses(found, 100))


def draw_evaluation(folder: Path, found: Predictions, *, smoke: bool = False) -> None:
    """Draw confusion_matrix.png and reliability.png of some predictions.

    Of several labels an image, average_precision.png takes the place of the first.
    """
    if found.multi_label:
        chart = interpret.average_precisions(found, smoke=smoke)
        interpret.save(chart, folder / "average_precision.png")
    else:
        matrix = interpret.confusion_matrix(found, smoke=smoke)
        interpret.save(matrix, folder / "confusion_matrix.png")
    interpret.save(reliability_curve(found, smoke=smoke), folder / "reliability.png")


def validate(
    run: str | Path,
    *,
    data: Path | None = None,
    part: str | None = None,
    tta: bool = False,
    calibrate: bool = False,
    device: str | None = None,
    out: Path | None = None,
    trust: bool = False,
    write: Callable[[str], None] = print,
) -> Evaluation:
    """Judge a trained net, print its numbers, and write its tables and figures.

    Args:
        run: its directory.
        data: a folder of class folders to judge it on; None takes the run's own images.
        part: "valid" or "test", or without `data` "folds", as `RunImages.predictions` takes it;
            None takes the test images if there are any.
        tta: average over each image and its mirror image, or as the recipe's own TTA says.
        calibrate: fit a temperature on the validation images first, and keep it in model.json.
        device: as in `load`.
        out: folder of the files; None takes one in the run directory.
        trust: as of `Run`.
        write: takes each line.

    Raises:
        ValueError: there is no trained model, no such part, or no class in common; or `out` is no
            folder that can be written to.
    """
    if out is not None:
        files.make_folder(out, "tables and figures")  # before the work
    source = Run(run, trust=trust)
    if calibrate:
        write(f"temperature {calibrate_run(source, device=device):.4f}, kept in model.json")
    predictor = Predictor.of(trained_model(source), source.path, device)
    if tta:
        predictor.views = _views(source)
    start = time.perf_counter()
    if data is not None:
        found, name = _on_folder(predictor, data, part, write), data.resolve().name
    else:
        name, found = _on_own(source, predictor, part, tta, write)
    seconds = time.perf_counter() - start
    judged = evaluation.evaluate(found)
    for line in lines(judged):
        write(line)
    write(f"{'seconds':<18} {seconds:.1f}")
    folder = out or source.path / f"validate-{name}{'-tta' if tta else ''}"
    files.make_folder(folder, "tables and figures")
    with doing("writing tables and figures", make_bar(sys.stderr)):
        write_tables(folder, found)
        draw_evaluation(folder, found)
    write(str(folder))
    return judged


def lines(judged: Evaluation) -> list[str]:
    """Return the numbers of an evaluation, one line each."""
    (low, high), mean = judged.interval, judged.average_precision
    rows = {
        "images": f"{judged.images:,}",
        "all labels right" if mean else "accuracy": f"{judged.accuracy:.2%} (95 % interval "
        f"{low:.2%} to {high:.2%})",
        "average precision": mean and f"{mean:.2%} (mean over labels)",
        "top-5 accuracy": None if judged.top5 is None else f"{judged.top5:.2%}",
        "loss": f"{judged.loss:.4f}",
        "calibration error": f"{judged.calibration_error:.2%}",
        "macro F1": f"{judged.macro_f1:.4f}",
    }
    return [f"{name:<18} {value}" for name, value in rows.items() if value is not None]


def calibrate_run(run: Run, *, device: str | None = None) -> float:
    """Fit a temperature on a run's validation images, keep it in its model.json, and return it.

    Raises:
        ValueError: the run has no validation images apart from its test images.
    """
    images = RunImages(run)
    summary = run.summary
    if not images.listing.get("valid") or (
        "test_accuracy" in summary and len(summary.get("images", ())) == 2
    ):
        raise ValueError(
            "a temperature must be fitted on validation images that are not the test images, "
            f"{str(run.path)!r} has none: hold some out, as by holdout=0.1"
        )
    model = replace(trained_model(run), temperature=1.0)
    if model.thresholds is not None:
        raise ValueError(
            "a temperature is fitted for one class an image, but these have several labels: leave "
            "--calibrate out"
        )
    predictor = Predictor.of(model, run.path, device)
    found = predict(predictor, images.listing["valid"])
    # A softmax keeps logits up to a constant, which no temperature changes.
    logits = np.log(np.maximum(found.probabilities, np.finfo(np.float32).tiny))
    temperature = fit_temperature(logits, found.targets)
    replace(model, temperature=temperature).write(run.path)
    return temperature


def _views(run: Run) -> Callable[..., Any]:
    """The recipe's own test-time augmentation, or else the image and its mirror image."""
    recipe = run.recipe
    # What is measured last counts; the recipe's callbacks act in each stage, before the stage's.
    order = (*recipe.schedule[:-1], recipe, *recipe.schedule[-1:])
    own = [each for part in order for each in _callbacks(part) if isinstance(each, TTA)]
    return (own[-1] if own else TTA(mirror=True, shift=0)).predict


def _callbacks(part: Any) -> tuple[Any, ...]:
    """The callbacks of a recipe or a stage, and of the stage inside a wrapper."""
    inside = getattr(part, "stage", None)
    return (*getattr(part, "callbacks", ()), *(_callbacks(inside) if inside else ()))


def _on_own(
    run: Run,
    predictor: Predictor,
    part: str | None,
    again: bool,
    write: Callable[[str], None],
) -> tuple[str, Predictions]:
    """Return part and predictions of the run's own images: the kept ones, unless `again`."""
    images = RunImages(run)
    part = part or ("test" if "test" in images.parts else "valid")
    if again:
        return part, predict(predictor, images.listed(part))
    return images.predictions(predictor, part, write)


def _on_folder(
    predictor: Predictor, folder: Path, part: str | None, write: Callable[[str], None]
) -> Predictions:
    """Predict a folder of class folders, whose names are matched with the net's classes."""
    if not folder.is_dir():
        raise ValueError(f"the images must lie in a folder, {str(folder)!r} is not one")
    if predictor.model.thresholds is not None:
        raise ValueError(
            "a folder of class folders names one class an image, but this net knows several "
            "labels: leave --data out, or name a table in the recipe"
        )
    if part not in (None, *PARTS):
        raise ValueError(f"the split of a folder must be valid or test, got {part!r}")
    train, valid, test = read_folders(folder)
    split = {"valid": valid, "test": test}.get(part or "", test or valid or train)
    if not split:
        raise ValueError(f"{str(folder)!r} must hold {part} images, but it has none")
    labels = sorted({sample.label for sample in split})
    known, unknown = evaluation.matched(predictor.classes, labels)
    if not known:
        raise ValueError(
            f"class folders must be named as the net's classes, as {predictor.classes[0]!r}, "
            f"{str(folder)!r} has {', '.join(labels[:5])}: rename them"
        )
    if unknown:
        left = sum(sample.label in unknown for sample in split)
        write(
            f"skipped folders that are no class of the net: {', '.join(unknown)} ({left:,} images)"
        )
    if missing := [name for name in predictor.classes if name not in known]:
        write(f"{len(missing)} of {len(predictor.classes)} classes have no images here")
    kept = [sample for sample in split if sample.label in known]
    found = predict(predictor, [(_name(sample, folder), sample) for sample in kept])
    if lost := len(kept) - len(found.paths):
        write(f"skipped {lost:,} unreadable images")
    return found


def _name(sample: Sample, folder: Path) -> str:
    return Path(sample.image).relative_to(folder).as_posix()
