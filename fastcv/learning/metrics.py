"""The metrics of a recipe: fastai's, torch-style and scikit-learn functions, torchmetrics' classes.

Each becomes a fastai metric of the Learner, and a column `valid_NAME` of metrics.csv. It is
measured on the whole validation set at once: the mean over batches of an F1 score is no F1 score.
"""

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fastai.learner import Learner, Metric
from fastcore.basics import camel2snake
from torch import Tensor

from fastcv.predict.multi_label import average_precisions

if TYPE_CHECKING:
    from fastcv.learning.callbacks.history import History

ALWAYS = ("loss", "accuracy")  # measured in every training
# Second parameters of scikit-learn's functions that take scores of classes, not classes.
SCORES = ("y_score", "y_prob", "y_proba")
# These call their second parameter y_pred, and take a probability for each class all the same.
OF_PROBABILITIES = ("log_loss", "d2_log_loss_score")


class Column(Metric):
    """A metric as a column of metrics.csv, valid_NAME: one number an epoch, under one name."""

    name: str = ""  # without the split

    def __init__(self, metric: Metric, name: str):
        self.metric, self.name = metric, name
        self._value: float | None = None

    def reset(self) -> None:
        """Start over."""
        self._value = None
        with self._named():
            self.metric.reset()

    def accumulate(self, learn: Learner) -> None:
        """Add a batch."""
        with self._named():
            self.metric.accumulate(learn)

    def measure_all(self, learn: Learner, predictions: tuple[Tensor, Tensor] | None) -> None:
        """Measure what all ranks have predicted, in place of this one's batches."""
        if isinstance(self.metric, WholeSet) or predictions is None:
            return
        before = learn.pred, learn.yb
        learn.pred, learn.yb = predictions[0], (predictions[1],)
        self.reset()
        self.accumulate(learn)
        learn.pred, learn.yb = before

    @property
    def value(self) -> float | None:
        """The number measured since `reset`, computed once; None where there were no images.

        Raises:
            ValueError: the metric fails, or measures something else than a number.
        """
        if self._value is None:
            with self._named():
                found = self.metric.value
            if found is not None:
                self._value = self._number(found)
        return self._value

    def _number(self, found: Any) -> float:
        try:
            return float(found)
        except (TypeError, ValueError, RuntimeError) as error:
            shape = getattr(found, "shape", None)
            got = type(found).__name__ if shape is None else f"an array of shape {tuple(shape)}"
            raise ValueError(
                f"the metric {self.name} must return one number, got {got}: average it"
            ) from error

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever somebody's metric raises, its name must be known
            problem = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"the metric {self.name} must measure the validation images, but raised "
                f"{type(error).__name__}: {problem}"
            ) from error


class WholeSet(Metric):
    """A function of logits (N, classes) and class numbers (N,) of all validation images.

    Both are gathered by `history` on the Learner's device.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Any], history: "History"):
        self.function, self.history = function, history
        history.keeps_predictions = True

    @property
    def value(self) -> Any:
        """What the function returns; None where there were no images."""
        found = self.history.predictions
        return None if found is None else self.function(*found)


def columns(metrics: Sequence[Callable], history: "History") -> list[Column]:
    """Build the metrics of a recipe; `history` keeps the predictions if one needs them.

    The columns of one metric with different parameters have these in their names: f1_score_macro
    and f1_score_weighted.

    Raises:
        ValueError: one cannot measure, or has a name that is taken.
    """
    found = [_column(metric, history) for metric in metrics]
    shared = [name for name, count in Counter(each.name for each in found).items() if count > 1]
    for metric, column in zip(metrics, found, strict=True):
        if column.name in shared:
            column.name = _with_parameters(column.name, metric)
    for name, count in Counter(each.name for each in found).items():
        if name in ALWAYS:
            raise ValueError(f"{name} is measured in every training: leave it out of metrics")
        if count > 1:
            raise ValueError(
                f"metrics must have different names, got {count} called {name}: wrap one of them "
                "in a function of another name"
            )
    return found


def _column(metric: Callable, history: "History") -> Column:
    what = metric
    while isinstance(what, partial):
        what = what.func
    name = getattr(what, "__name__", type(what).__name__)
    if not isinstance(what, type) and _needs_arguments(metric):
        return Column(WholeSet(_of_tensors(metric, what), history), _snake(name))
    try:
        made = metric()
    except TypeError as error:
        raise ValueError(
            f"the metric {name} must be callable without arguments, or with predictions and "
            f"targets ({error}): bind the rest with functools.partial"
        ) from error
    if isinstance(made, Metric):
        return Column(made, _snake(made.name))
    # Whoever made one has imported it; fastcv does not need it.
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is not None and isinstance(made, torchmetrics.Metric):
        return Column(WholeSet(partial(_torchmetrics_value, made), history), _snake(name))
    raise ValueError(
        f"the metric {name} must be a function of predictions and targets, or return a metric of "
        f"fastai or torchmetrics, got a {type(made).__name__}"
    )


def _of_tensors(metric: Callable, what: Callable) -> Callable[[Tensor, Tensor], Any]:
    """Return `metric` as a function of logits and class numbers."""
    parameters = list(inspect.signature(what).parameters)
    sklearn = getattr(what, "__module__", "").partition(".")[0] == "sklearn"
    if not sklearn and parameters[0] != "y_true":
        return metric
    scores = parameters[1] in SCORES
    probabilities = getattr(what, "__name__", "") in OF_PROBABILITIES
    return partial(_sklearn_value, metric, scores, probabilities)


def _sklearn_value(
    metric: Callable, scores: bool, probabilities: bool, logits: Tensor, targets: Tensor
) -> Any:
    """Call a function of scikit-learn's kind with arrays of targets and predictions."""
    if targets.ndim == 2:  # several labels an image
        of_each = logits.float().sigmoid()
        predicted = of_each if scores or probabilities else (of_each > 0.5).long()
    elif scores or probabilities:
        predicted = logits.float().softmax(dim=1)
        if scores and logits.shape[1] == 2:
            predicted = predicted[:, 1]  # of two classes, scikit-learn wants the second one's
    else:
        predicted = logits.argmax(dim=1)
    return metric(targets.cpu().numpy(), predicted.cpu().numpy())


def _torchmetrics_value(metric: Any, logits: Tensor, targets: Tensor) -> Any:
    metric = metric.to(logits.device)
    metric.reset()
    metric.update(logits, targets)
    return metric.compute()


def _with_parameters(name: str, metric: Callable) -> str:
    """Add the parameters of a partial to a name, words without the parameters' own names."""
    given = metric.keywords if isinstance(metric, partial) else {}
    words = [value if isinstance(value, str) else f"{key}_{value}" for key, value in given.items()]
    return re.sub(r"[\W_]+", "_", "_".join([name, *words])).strip("_")


def _needs_arguments(function: Callable) -> bool:
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(
        each.default is each.empty and each.kind not in open_ended
        for each in inspect.signature(function).parameters.values()
    )


def _snake(name: str) -> str:
    """Return a name as columns are spelled: "F1Score" as "f1_score", spaces as underscores."""
    return re.sub(r"\W+", "_", camel2snake(name) if name[:1].isupper() else name).strip("_")


def worst_class_recall(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the recall of the class that is recognized worst: a metric of a recipe.

    Shape:
        logits: (N, classes).
        targets: (N,) class numbers; classes without an image do not count.
        returns: scalar, a fraction 0-1.
    """
    images = torch.bincount(targets, minlength=logits.shape[1])
    right = torch.bincount(targets[logits.argmax(dim=1) == targets], minlength=logits.shape[1])
    return (right / images)[images > 0].min()


def average_precision(logits: Tensor, targets: Tensor) -> float:
    """Return the mean of the labels' average precisions: a metric for several labels an image.

    It is measured in every such training.

    Shape:
        logits: (N, labels).
        targets: (N, labels), 1 where an image has a label; labels without an image do not count.
        returns: a fraction 0-1; NaN if no image has a label.
    """
    found = average_precisions(logits.float().cpu().numpy(), targets.cpu().numpy())
    return float(np.mean(found[~np.isnan(found)])) if not np.isnan(found).all() else float("nan")
