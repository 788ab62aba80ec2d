"""Images that are likely to bear a wrong label."""

import warnings
from typing import Any

import numpy as np

from fastcv.predict.evaluation import Predictions

MISSING = "likely label errors are found with cleanlab: pip install 'fastcv[labels]'"


def label_errors(predictions: Predictions) -> np.ndarray:
    """Find the images whose label is likely to be wrong, by confident learning.

    The predictions must be out of sample: of images that the net was not trained on. A net that is
    sure of another class than the label, as often as its confusions say, points at a label to check
    by eye; a hard image looks the same.

    Returns:
        Indices of the images, the least likely label first.

    Raises:
        ImportError: cleanlab, of the extra `labels`, is not installed.

    Source: Northcutt et al. 2021, arXiv:1911.00068, pruned by noise rate.
    """
    # Here, because it is an extra, and takes seconds to import.
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.multilabel_classification.filter import (
            find_label_issues as multilabel_issues,
        )
    except ImportError as error:
        raise ImportError(MISSING) from error
    if predictions.multi_label:
        labels = [np.flatnonzero(row).tolist() for row in predictions.targets]
        return multilabel_issues(
            labels,
            predictions.probabilities.astype(np.float64),
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )
    with warnings.catch_warnings():
        # Of a class with one image or none: it cannot be judged, which is no fault of the user's.
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
        return find_label_issues(
            predictions.targets,
            predictions.probabilities.astype(np.float64),
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )


def suspect_rows(predictions: Predictions, suspects: np.ndarray) -> list[dict[str, Any]]:
    """Return a row for each suspected image, as label_errors.csv has them."""
    found = []
    for index in suspects.tolist():
        predicted, label = predictions.texts(index)
        confidence = round(float(predictions.confidences[index]), 6)
        row = {"path": predictions.paths[index], "label": label, "predicted": predicted}
        found.append({**row, "confidence": confidence})
    return found
