"""Which columns of metrics.csv a stage can monitor."""

import re

from fastai.learner import Learner

from fastcv.learning.metrics import Column
from fastcv.recipe.bounds import shown


def check_monitor(monitor: str) -> None:
    """Raise a ValueError unless `monitor` reads train_NAME or valid_NAME; the fit knows which."""
    if not isinstance(monitor, str) or not re.fullmatch(r"(train|valid)_\w+", monitor):
        raise ValueError(
            f"monitor must be train_ or valid_ and the name of a metric, such as valid_loss, got "
            f"{shown(monitor)}"
        )


def check_measured(learn: Learner, monitor: str) -> None:
    """Raise a ValueError unless a fit of `learn` will record `monitor`."""
    if monitor.startswith("valid") and not len(learn.dls.valid):
        raise ValueError(
            f"a stage that monitors {monitor} must have images to validate on, got none: hold some "
            f"out, as by holdout=0.1, or monitor train_loss or train_accuracy"
        )
    own = [each.name for each in learn.metrics if isinstance(each, Column)]
    validated = [f"valid_{name}" for name in ("loss", "accuracy", *own)]
    known = ["train_loss", "train_accuracy", *(validated if len(learn.dls.valid) else ())]
    if monitor not in known:
        raise ValueError(
            f"monitor must be one of {', '.join(known)}, got {monitor!r}: add the metric to the "
            "recipe's metrics"
        )
