"""Class weights, balanced sampling and the metrics that go with them."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, recall_score
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional as F

from fastcv.augment import MixUp, soft_targets
from fastcv.data import Images, LongTail, Toy
from fastcv.experiment.building import learner
from fastcv.learning import (
    SGD,
    Constant,
    CrossEntropy,
    EarlyStop,
    FromScratch,
    Plateau,
    worst_class_recall,
)
from fastcv.learning.losses import balanced_weights
from fastcv.recipe import Recipe, flat, override, unflat
from fastcv.recipe.metrics import should_fall


class Line(nn.Sequential):
    def __init__(self, *, classes, channels, size):
        super().__init__(nn.Flatten(), nn.Linear(channels * size * size, classes))


TAIL = LongTail(source=Toy(classes=4, size=8, train=16, test=3), ratio=8)
COUNTS = [2, 4, 8, 16]
RECIPE = Recipe(
    data=Images(source=TAIL, size=8, batch_size=10, drop_last=False),
    model=FromScratch(net=Line),
    optimizer=SGD(momentum=0.0),
    loss=CrossEntropy(weights="balanced", label_smoothing=0.1),
    schedule=(Constant(epochs=1, lr=1e-9),),  # so that the losses are those of the first weights
    precision="fp32",
    name="imbalance_toy",
)


def fitted(recipe):
    learn = learner(recipe, device="cpu")
    for stage in recipe.schedule:
        stage(learn)
    return learn


def test_balanced_weights_are_scikit_learns():
    labels = np.repeat(np.arange(4), COUNTS)
    wanted = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert balanced_weights(COUNTS).numpy() == pytest.approx(wanted)
    assert balanced_weights(COUNTS)[labels].mean() == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_loss_is_torchs_of_soft_targets(smoothing):
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    loss = CrossEntropy(weights="balanced", label_smoothing=smoothing)(counts=COUNTS)
    weights = balanced_weights(COUNTS).float()
    mixed = torch.lerp(soft_targets(labels, 4), soft_targets(labels, 4).roll(1, 0), 0.3)
    for targets in (labels, mixed):
        soft = soft_targets(targets, 4)
        wanted = F.cross_entropy(logits, soft, weights, label_smoothing=smoothing)
        assert loss.train()(logits, targets) == pytest.approx(wanted.item())
        plain = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        assert loss.eval()(logits, targets) == plain
    loss.reduction = "none"
    each = F.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=smoothing)
    assert torch.equal(loss.train()(logits, labels), each)


@pytest.mark.parametrize(
    ("weights", "cache"), [("balanced", "auto"), ("balanced", "off"), ((1, 0.5, 2.0, 0), "auto")]
)
def test_training_loss_is_weighted_and_validation_loss_is_not(weights, cache):
    loss = replace(RECIPE.loss, weights=weights)
    learn = fitted(replace(RECIPE, loss=loss, data=replace(RECIPE.data, cache=cache)))
    counts = np.unique([int(y) for _, y in learn.dls.train.dataset], return_counts=True)[1]
    assert sorted(counts) == COUNTS
    table = balanced_weights(counts).float() if weights == "balanced" else torch.tensor(weights)
    learn.model.eval()
    losses = {}
    for name, loader in (("train", learn.dls.train.new(shuffle=False)), ("valid", learn.dls.valid)):
        pairs = [(learn.model(x.as_subclass(torch.Tensor)), y) for x, y in loader]
        logits, y = torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
        soft, of = soft_targets(y.as_subclass(torch.Tensor), 4), {"train": table.float()}
        losses[name] = F.cross_entropy(logits, soft, of.get(name), label_smoothing=0.1).item()
    assert learn.history.row["train_loss"] == pytest.approx(losses["train"], rel=1e-4)
    assert learn.history.row["valid_loss"] == pytest.approx(losses["valid"], rel=1e-4)
    assert learn.validate()[0] == pytest.approx(losses["valid"], rel=1e-4)


def test_weights_multiply_the_terms_of_mixed_targets():
    recipe = replace(RECIPE, data=replace(RECIPE.data, augment=(MixUp(alpha=0.4),), batch_size=30))
    seen = {}

    class Look(torch.nn.Module):
        def __init__(self, loss):
            super().__init__()
            self.loss = loss

        def forward(self, logits, targets):
            if self.training:
                seen.update(logits=logits.detach(), targets=targets)
            return self.loss(logits, targets)

    learn = learner(recipe, device="cpu")
    weights = learn.loss_func.weight.clone()
    learn.loss_func = Look(learn.loss_func)
    recipe.schedule[0](learn)
    wanted = F.cross_entropy(seen["logits"], seen["targets"], weights, label_smoothing=0.1)
    assert seen["targets"].shape == (30, 4)
    assert learn.history.row["train_loss"] == pytest.approx(wanted.item())


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("balance", "weights must be 'balanced' or a number of 0 or more .* got 'balance'"),
        ((), "weights must be 'balanced' or"),
        ((1, -1), "each of weights must be at least 0, got -1"),
        ((1, 2, 3), "one number for each of 4 classes, got 3"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights, sentence):
    with pytest.raises(ValueError, match=sentence):
        CrossEntropy(weights=weights)(counts=COUNTS)


def test_weights_need_to_know_the_classes():
    with pytest.raises(ValueError, match=r"got none: call it with counts"):
        CrossEntropy(weights="balanced")()
    with pytest.raises(ValueError, match="got none of class number 1"):
        balanced_weights([3, 0, 2])


def test_settings_are_saved_and_set():
    recipe = override(RECIPE, "loss.weights=(1,2,3,4)", "data.balance=1", "data.source.ratio=4")
    assert recipe.loss.weights == (1, 2, 3, 4)
    assert recipe.data.balance == 1
    assert unflat(flat(recipe), trust=True) == recipe
    assert override(recipe, "loss.weights=balanced").loss == RECIPE.loss
    assert override(RECIPE, "data.source=LongTail(source=Toy(), ratio=3)").data.source.ratio == 3


def test_columns_of_one_metric_are_told_apart_by_its_parameters():
    macro, weighted = (partial(f1_score, average=each) for each in ("macro", "weighted"))
    rare = partial(recall_score, labels=[1], average="macro", zero_division=0)
    recall = partial(recall_score, average="macro")
    metrics = (macro, weighted, rare, recall, worst_class_recall)
    stop = EarlyStop(monitor="valid_f1_score_macro")
    stage = Constant(epochs=2, lr=1e-3, early_stop=stop)
    learn = fitted(replace(RECIPE, metrics=metrics, schedule=(stage,)))
    logits, y = learn.history.predictions or learn.get_preds(act=lambda logits: logits)
    predicted, y = logits.argmax(1), np.asarray(y)
    row = learn.history.final
    assert row["valid_f1_score_macro"] == pytest.approx(f1_score(y, predicted, average="macro"))
    assert row["valid_f1_score_weighted"] == pytest.approx(
        f1_score(y, predicted, average="weighted")
    )
    by_class = recall_score(y, predicted, average=None)
    named = "valid_recall_score_labels_1_macro_zero_division_0"
    assert row[named] == pytest.approx(by_class[1])
    assert row["valid_recall_score_macro"] == pytest.approx(by_class.mean())
    assert row["valid_worst_class_recall"] == pytest.approx(by_class.min())


def test_worst_class_recall_leaves_out_classes_without_images():
    logits = torch.eye(4)[[0, 0, 2, 1]] * 5
    assert worst_class_recall(logits, torch.tensor([0, 0, 2, 2])) == 0.5


@pytest.mark.parametrize(
    ("name", "falls"),
    [
        ("valid_loss", True),
        ("valid_log_loss", True),
        ("valid_error_rate", True),
        ("valid_mean_absolute_error", True),
        ("valid_perplexity", True),
        ("valid_f1_score_macro", False),
        ("valid_balanced_accuracy_score", False),
        ("train_accuracy", False),
    ],
)
def test_a_monitors_name_says_whether_it_should_fall(name, falls):
    assert should_fall(name) is falls
    assert Plateau(epochs=1, lr=0.1, monitor=name)
