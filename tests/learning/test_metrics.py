"""Metrics of a recipe: measured on the whole validation set, monitored, and written down."""

import sys
import types
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.metrics import F1Score, Perplexity, accuracy, error_rate, top_k_accuracy
from sklearn.metrics import (
    brier_score_loss,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    log_loss,
    roc_auc_score,
)
from torch import nn

from fastcv.data import Toy
from fastcv.data.images import Images
from fastcv.experiment.building import learner
from fastcv.experiment.results import Results
from fastcv.experiment.train import train
from fastcv.learning import SGD, Constant, CrossEntropy, EarlyStop, FromScratch, Plateau
from fastcv.learning.callbacks.progress import epoch_line
from fastcv.recipe import Recipe, flat, override, unflat
from fastcv.recipe.diff import same_experiment


class Net(nn.Sequential):
    def __init__(self, *, classes, channels, size):
        super().__init__(nn.Flatten(), nn.Linear(channels * size**2, classes))


def made(classes=3, **changes):
    """A recipe with 7 validation images of each class in batches of 4: the last one is smaller."""
    recipe = Recipe(
        data=Images(
            source=Toy(classes=classes, size=8, train=12, test=7),
            size=8,
            batch_size=8,
            valid_batch_size=4,
        ),
        model=FromScratch(net=Net),
        optimizer=SGD(),
        loss=CrossEntropy(),
        schedule=(Constant(epochs=2, lr=1e-4),),
        precision="fp32",
        name="metrics_toy",
    )
    return replace(recipe, **changes)


def fitted(recipe):
    learn = learner(recipe, device="cpu")
    for stage in recipe.schedule:
        stage(learn)
    return learn


def gathered(learn):
    """Logits and class numbers of all validation images, by the plain net."""
    learn.model.eval()
    with torch.no_grad():
        pairs = [(learn.model(x.as_subclass(torch.Tensor)), y) for x, y in learn.dls.valid]
    return torch.cat([x for x, _ in pairs]), torch.cat(
        [y.as_subclass(torch.Tensor) for _, y in pairs]
    )


def hardest(logits, targets):
    """The largest loss of an image: no mean over batches gives it."""
    return nn.functional.cross_entropy(logits, targets, reduction="none").max()


def y_true_first(y_true, y_pred):
    assert isinstance(y_true, np.ndarray)
    assert y_true.shape == y_pred.shape
    return (y_true == y_pred).mean()


class TopTwo:
    """A metric that is a value."""

    def __call__(self, logits, targets):
        return top_k_accuracy(logits, targets, k=2)


CLASSES = [0, 1, 2]
WANTED = [
    (hardest, "hardest", hardest),
    (partial(top_k_accuracy, k=2), "top_k_accuracy", partial(top_k_accuracy, k=2)),
    (error_rate, "error_rate", error_rate),
    (TopTwo(), "top_two", partial(top_k_accuracy, k=2)),
    (
        partial(f1_score, average="macro"),
        "f1_score",
        lambda x, y: f1_score(y, x.argmax(1), average="macro"),
    ),
    (y_true_first, "y_true_first", lambda x, y: (x.argmax(1) == y).float().mean()),
    (cohen_kappa_score, "cohen_kappa_score", lambda x, y: cohen_kappa_score(y, x.argmax(1))),
    (log_loss, "log_loss", nn.functional.cross_entropy),
    (
        partial(roc_auc_score, multi_class="ovr"),
        "roc_auc_score",
        lambda x, y: roc_auc_score(y, x.softmax(1), multi_class="ovr"),
    ),
    (
        partial(F1Score, average="macro"),
        "f1_score",
        lambda x, y: f1_score(y, x.argmax(1), average="macro"),
    ),
    (Perplexity, "perplexity", lambda x, y: nn.functional.cross_entropy(x, y).exp()),
]


@pytest.mark.parametrize(("metric", "name", "wanted"), WANTED)
def test_metric_of_the_whole_set_is_a_column(metric, name, wanted):
    learn = fitted(made(metrics=(metric,)))
    rows = learn.history.rows
    assert [f"valid_{name}" in row for row in rows] == [True, True]
    assert isinstance(rows[-1][f"valid_{name}"], float)
    assert rows[-1][f"valid_{name}"] == pytest.approx(float(wanted(*gathered(learn))), rel=1e-4)
    assert learn.validate()[2] == rows[-1][f"valid_{name}"]
    assert learn.recorder.metric_names[-2] == name


@pytest.mark.parametrize("metric", [roc_auc_score, brier_score_loss])
def test_of_two_classes_scikit_learn_gets_the_score_of_the_second(metric):
    learn = fitted(made(classes=2, metrics=(metric,)))
    logits, targets = gathered(learn)
    wanted = metric(targets.numpy(), logits.softmax(1)[:, 1].numpy())
    assert learn.history.row[f"valid_{metric.__name__}"] == pytest.approx(wanted)


def test_a_class_of_torchmetrics_is_updated_once_with_the_whole_set(monkeypatch):
    fake = types.ModuleType("torchmetrics")
    updates = []

    class Metric(nn.Module):
        def reset(self):
            self.right = None

    class MulticlassAccuracy(Metric):
        def __init__(self, num_classes):
            super().__init__()

        def update(self, preds, target):
            updates.append(tuple(preds.shape))
            self.right = (preds.argmax(1) == target).float().mean()

        def compute(self):
            return self.right

    fake.Metric, Metric.__module__ = Metric, "torchmetrics.metric"
    monkeypatch.setitem(sys.modules, "torchmetrics", fake)
    learn = fitted(made(metrics=(partial(MulticlassAccuracy, num_classes=3),)))
    assert updates == [(21, 3)] * 2
    row = learn.history.row
    assert row["valid_multiclass_accuracy"] == pytest.approx(row["valid_accuracy"])
    with pytest.raises(ValueError, match="got an instance of MulticlassAccuracy: give Multiclass"):
        made(metrics=(MulticlassAccuracy(3),))
    with pytest.raises(ValueError, match=r"MulticlassAccuracy must be callable without .* bind"):
        fitted(made(metrics=(MulticlassAccuracy,)))


def test_metrics_change_no_number_and_cost_nothing_where_there_are_none():
    plain, measured = fitted(made()), fitted(made(metrics=(hardest,)))
    assert measured.history.steps == plain.history.steps
    assert measured.history.row["valid_loss"] == plain.history.row["valid_loss"]
    assert not plain.history.keeps_predictions
    assert measured.history._tallies[False].predictions is None  # let go of after the epoch


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ((f1_score, F1Score), "different names, got 2 called f1_score: wrap one"),
        ((accuracy,), "accuracy is measured in every training: leave it out"),
        ((dict,), "the metric dict must be a function of .* got a dict"),
        ((f1_score,), "the metric f1_score must .* but raised ValueError: Target is multiclass"),
        ((F1Score,), "the metric f1_score must .* but raised ValueError: Target is multiclass"),
        (
            (confusion_matrix,),
            r"confusion_matrix must return one number, got an array of shape \(3",
        ),
    ],
)
def test_metrics_that_cannot_measure_name_themselves(metrics, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        fitted(made(metrics=metrics))
    assert "\n" not in str(error.value)


def test_metric_instances_are_refused():
    with pytest.raises(ValueError, match=r"metrics must be .* got an instance of AccumMetric"):
        made(metrics=(F1Score(),))


def test_stages_monitor_a_metric():
    class Scripted(Callback):
        order = 56  # behind the history's row, before those that monitor it

        def after_epoch(self):
            row = self.learn.history.row
            row["valid_hardest"] = {1: 0.2, 2: 0.9}.get(row["epoch"], 0.5)

    stop = EarlyStop(patience=2, monitor="valid_hardest")
    stage = Constant(epochs=9, lr=1e-4, early_stop=stop)
    learn = fitted(made(metrics=(hardest,), callbacks=(Scripted,), schedule=(stage,)))
    assert len(learn.history.rows) == 4
    assert learn.history.kept == 2  # it rises, as its name does not end in loss
    stage = Plateau(epochs=4, lr=1e-4, patience=0, monitor="valid_hardest")
    learn = fitted(made(metrics=(hardest,), callbacks=(Scripted,), schedule=(stage,)))
    assert [row["lr"] for row in learn.history.rows] == pytest.approx([1e-4, 1e-4, 1e-4, 1e-5])


@pytest.mark.parametrize(
    "stage",
    [
        Constant(epochs=1, lr=0.1, early_stop=EarlyStop(monitor="valid_f1")),
        Plateau(epochs=1, lr=0.1, monitor="valid_f1"),
    ],
)
def test_a_monitor_that_nobody_measures_is_refused_before_training(stage):
    known = "train_loss, train_accuracy, valid_loss, valid_accuracy, valid_hardest"
    learn = learner(made(metrics=(hardest,)), device="cpu")
    with pytest.raises(ValueError, match=f"one of {known}, got 'valid_f1'"):
        stage(learn)
    assert learn.history.rows == []


def test_fastais_trackers_monitor_a_metric(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save = partial(SaveModelCallback, monitor="hardest", comp=np.less)
    stage = Constant(epochs=2, lr=1e-4, callbacks=(save,))
    learn = fitted(made(metrics=(hardest,), schedule=(stage,)))
    best = min(learn.history.rows, key=lambda row: row["valid_hardest"])
    assert learn.history.final == best


@pytest.mark.parametrize(
    ("data", "splits"),
    [
        ({}, {"valid", "test"}),
        ({"holdout": 0.25, "test_validates": False}, {"valid", "test"}),
        ({"test_validates": False}, {"test"}),
    ],
)
def test_a_run_writes_its_metrics(data, splits, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    recipe = made(metrics=(hardest, partial(f1_score, average="macro")))
    recipe = replace(recipe, data=replace(recipe.data, **data))
    run = train(recipe, out=tmp_path, wandb="off", device="cpu")
    found = {name.removesuffix("_hardest") for name in run.summary if name.endswith("_hardest")}
    assert found == splits
    if "valid" in splits:
        row = run.metrics[-1]
        assert run.summary["valid_f1_score"] == pytest.approx(row["valid_f1_score"])
        line = next(line for line in capsys.readouterr().out.splitlines() if "epoch 2" in line)
        assert f"hardest {row['valid_hardest']:.4f}  f1 score {row['valid_f1_score']:.4f}" in line
    else:
        assert not any("hardest" in column for row in run.metrics for column in row)


def test_epoch_line_shows_metrics_behind_the_accuracy():
    row = {"epoch": 1, "valid_loss": 0.5, "valid_accuracy": 0.5, "valid_f1": 0.25}
    line = epoch_line(row | {"seconds": 1.0, "images_per_second": 1.0})
    assert "valid 0.5000 50.00 %  f1 0.2500" in line


def test_metrics_are_written_and_read_again_and_make_no_other_experiment():
    recipe = made(metrics=(hardest, partial(f1_score, average="macro"), Perplexity))
    assert unflat(flat(recipe), trust=True) == recipe
    assert same_experiment(flat(made()), flat(recipe))
    assert same_experiment(flat(recipe), flat(made()))
    assert override(made(), "metrics=sklearn.metrics:f1_score").metrics == (f1_score,)
