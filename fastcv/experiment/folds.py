"""The predictions of a cross-validation: of each image by the net that was not trained on it.

runs/NAME/YYYYmmdd-HHMMSS-seedN-foldsK/
    predictions.npz    of all images, as "folds"; predictions.csv, per_class.csv and
                       top_losses.csv for people
    label_errors.csv   labels that confident learning suspects, if it is installed
    folds.json         the runs, their accuracies, and the accuracy of all images
    confusion_matrix.png, reliability.png
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fastcv import files
from fastcv.experiment.directory import Run
from fastcv.experiment.images import FOLDS, FOLDS_FILE
from fastcv.experiment.judge import draw_evaluation, write_tables
from fastcv.predict import evaluation
from fastcv.predict.evaluation import Predictions
from fastcv.predict.label_errors import label_errors, suspect_rows


def joined(found: Sequence[Predictions]) -> Predictions:
    """Join the predictions of the folds' validation images, sorted by their names.

    Of several labels an image, each image keeps the thresholds of its fold.

    Raises:
        ValueError: the nets have other classes, or an image was validated twice.
    """
    if len({each.classes for each in found}) != 1:
        raise ValueError("all folds must have the same classes, these have not: run them again")
    paths = [path for each in found for path in each.paths]
    if len(set(paths)) != len(paths):
        raise ValueError(
            "each image must be validated in one fold, but some are in two: the images have "
            "changed since the first fold, run all again with --again"
        )
    order = np.argsort(np.array(paths), kind="stable")
    thresholds = None
    if found[0].multi_label:
        each_image = [
            np.broadcast_to(0.5 if each.thresholds is None else each.thresholds, each.targets.shape)
            for each in found
        ]
        thresholds = np.concatenate(each_image)[order]
    return Predictions(
        paths=tuple(paths[place] for place in order),
        probabilities=np.concatenate([each.probabilities for each in found])[order],
        targets=np.concatenate([each.targets for each in found])[order],
        losses=np.concatenate([each.losses for each in found])[order],
        classes=found[0].classes,
        thresholds=thresholds,
    )


def join(runs: Sequence[Run]) -> tuple[Path, dict[str, Any]]:
    """Write what the finished runs of all folds predicted into one folder beside them.

    Args:
        runs: of the same experiment and seed, one for each fold, in the folds' order.

    Returns:
        The folder, and what its folds.json holds.

    Raises:
        ValueError: a run kept no predictions, or what `joined` raises.
    """
    found = [evaluation.read(run.path / evaluation.TABLE, "valid") for run in runs]
    all_of_them = joined(found)
    judged = evaluation.evaluate(all_of_them)
    accuracies = [each.accuracy for each in found]
    first = runs[0].path
    # The name is the same whenever the series is run again.
    folder = first.with_name(f"{re.sub(r'-fold1(?=$|-)', '', first.name)}-folds{len(runs)}")
    folder.mkdir(exist_ok=True)
    evaluation.save({FOLDS: all_of_them}, folder / evaluation.TABLE)
    write_tables(folder, all_of_them)
    draw_evaluation(folder, all_of_them)
    with suppress(ImportError):  # an extra; `fastcv explain` says how to get it
        suspects = suspect_rows(all_of_them, label_errors(all_of_them))
        if suspects:
            files.write_csv(folder / "label_errors.csv", suspects)
    summary = {
        "recipe": runs[0].started["name"],
        "seed": runs[0].started["flat"]["seed"],
        "images": judged.images,
        "accuracy": judged.accuracy,
        "interval": judged.interval,
        "loss": judged.loss,
        "calibration_error": judged.calibration_error,
        "macro_f1": judged.macro_f1,
        "accuracies": accuracies,
        "mean": statistics.mean(accuracies),
        "deviation": statistics.stdev(accuracies),
        "runs": [run.path.name for run in runs],
    }
    files.write_json(folder / FOLDS_FILE, summary)
    return folder, summary


def in_words(summary: Mapping[str, Any]) -> str:
    """Return what a folds.json holds as one line."""
    low, high = summary["interval"]
    mean, deviation = 100 * summary["mean"], 100 * summary["deviation"]
    return (
        f"{summary['recipe']} seed {summary['seed']}: accuracy over all {summary['images']:,} "
        f"images {summary['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}); of the "
        f"{len(summary['runs'])} folds {mean:.2f} ± {deviation:.2f} %"
    )
