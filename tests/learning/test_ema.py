"""The moving average of the weights, beside torch's AveragedModel."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from tape import Tape
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fastcv.augment import HorizontalFlip
from fastcv.data import Images, Toy
from fastcv.experiment.building import learner
from fastcv.learning import (
    EMA,
    SGD,
    Constant,
    CrossEntropy,
    EarlyStop,
    FreezeFirst,
    FromScratch,
    OneCycle,
)
from fastcv.learning.callbacks.ema import WeightAverage
from fastcv.learning.cuda_graph.stepper import Stepper
from fastcv.recipe import Recipe, flat, override, unflat
from fastcv.recipe.values import Step


class Small(nn.Sequential):
    """Two children with batch norm: running statistics, and a count of batches."""

    def __init__(self, *, classes, channels, size):
        body = (nn.Conv2d(channels, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        head = (nn.Flatten(), nn.Linear(6 * (size // 2) ** 2, classes))
        super().__init__(nn.Sequential(*body), nn.Sequential(*head))


# 40 images in batches of 8: five steps an epoch.
RECIPE = Recipe(
    data=Images(
        source=Toy(classes=4, size=8, train=10, test=3, noise=0.8),
        size=8,
        batch_size=8,
        augment=(HorizontalFlip(),),
    ),
    model=FromScratch(net=Small),
    optimizer=SGD(),
    loss=CrossEntropy(),
    schedule=(Constant(epochs=3, lr=0.1, callbacks=(EMA(decay=0.9),)),),
    precision="fp32",
    name="ema_toy",
)


class Torchs(Callback):
    """torch's average of the same net, which begins with the first weights too."""

    order, run_valid = 100, False
    name = "torchs"

    def before_fit(self):
        if not self.learn.borrowed:
            self.steps = 0
            self.average = AveragedModel(
                self.learn.model, multi_avg_fn=self.averaged, use_buffers=True
            )
            self.average.n_averaged.fill_(1)

    def averaged(self, ours, theirs, _):
        decay = min(0.9, (1 + self.steps) / (10 + self.steps))
        for mine, its in zip(ours, theirs, strict=True):
            mine.copy_(decay * mine + (1 - decay) * its)

    def after_batch(self):
        if not self.learn.borrowed:
            self.steps += 1
            self.average.update_parameters(self.learn.model)


def fitted(recipe, backend=None, also=()):
    learn = learner(recipe, device="cpu")
    learn.stepper = Stepper(Step(graph="try"), torch.device("cpu"), backend=backend)
    learn.add_cbs(list(also))
    for stage in recipe.schedule:
        stage(learn)
    return learn


def assert_same(learn, other):
    assert learn.history.steps == other.history.steps
    aside = ("seconds", "images_per_second")
    for row, also in zip(learn.history.rows, other.history.rows, strict=True):
        assert all(row[key] == also[key] for key in row if key not in aside)
    theirs = other.model.state_dict()
    assert all(torch.equal(each, theirs[key]) for key, each in learn.model.state_dict().items())


@pytest.mark.parametrize("stages", [1, 2])
def test_net_ends_with_the_average_that_torch_computes(stages):
    learn = fitted(replace(RECIPE, schedule=stages * RECIPE.schedule), also=[Torchs()])
    assert learn.torchs.steps == 15
    wanted = learn.torchs.average.module.state_dict()
    for name, value in learn.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, wanted[name], rtol=1e-5, atol=1e-6, msg=name)
    assert learn.model[0][1].num_batches_tracked == 15 * stages
    assert not learn._grab_cbs(WeightAverage)


def test_the_average_validates_and_the_plain_weights_train():
    averaged = fitted(RECIPE)
    plain = fitted(replace(RECIPE, schedule=(replace(RECIPE.schedule[0], callbacks=()),)))
    assert averaged.history.steps == plain.history.steps
    for ours, theirs in zip(averaged.history.rows, plain.history.rows, strict=True):
        assert ours["train_loss"] == theirs["train_loss"]
        assert ours["valid_loss"] != theirs["valid_loss"]
    assert averaged.validate()[0] == pytest.approx(averaged.history.row["valid_loss"])


class Scripted(Callback):
    """The second of three epochs is the best, whatever was measured."""

    order = 56

    def after_epoch(self):
        row = self.learn.history.row
        row["valid_loss"] = {2: 0.1}.get(row["epoch"], 0.5) + row["valid_loss"] / 1e9


def test_the_kept_weights_are_the_average_of_the_best_epoch():
    stage = replace(RECIPE.schedule[0], early_stop=EarlyStop())
    learn = fitted(replace(RECIPE, schedule=(stage,)), also=[Scripted()])
    two = fitted(replace(RECIPE, schedule=(replace(RECIPE.schedule[0], epochs=2),)))
    assert learn.history.kept == 2
    theirs = two.model.state_dict()
    assert all(torch.equal(each, theirs[key]) for key, each in learn.model.state_dict().items())


def test_fastais_trackers_save_the_average(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save = partial(SaveModelCallback, every_epoch=True)
    stage = replace(RECIPE.schedule[0], callbacks=(EMA(decay=0.9), save))
    learn = fitted(replace(RECIPE, schedule=(stage,)))
    saved = torch.load(tmp_path / "models" / "model_2.pth", weights_only=True)
    ours = learn.model.state_dict()
    assert all(torch.equal(ours[key], each) for key, each in saved.items())


def test_a_captured_step_stays_captured():
    tape = Tape()
    stage = OneCycle(epochs=3, lr=0.1, momenta=None, callbacks=(EMA(), FreezeFirst(after=1)))
    recipe = replace(RECIPE, schedule=(stage, stage))
    captured = fitted(recipe, tape)
    assert tape.replays == 30
    assert_same(captured, fitted(recipe))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_finder_leaves_no_trace_in_an_average_of_the_whole_training(precision):
    recipe = replace(RECIPE, callbacks=(EMA(decay=0.9),), precision=precision)
    plain = replace(RECIPE.schedule[0], callbacks=(), epochs=1, lr=0.01)
    recipe = replace(recipe, schedule=(plain, replace(plain, lr="valley")))
    learn = fitted(recipe)
    rate = learn.history.found[0][1].suggestions["valley"][0]
    told = replace(recipe, schedule=(plain, replace(plain, lr=rate)))
    assert_same(learn, fitted(told))
    assert learn.validate()[0] == pytest.approx(learn.history.row["valid_loss"], rel=1e-3)


def test_without_warm_up_the_decay_is_the_first_steps_too():
    assert [EMA(decay=0.5, warmup=False).at(step) for step in (1, 100)] == [0.5, 0.5]
    assert [EMA(decay=0.5).at(step) for step in (1, 8, 100)] == [2 / 11, 0.5, 0.5]


def test_average_is_a_value_and_there_is_one_at_most():
    assert unflat(flat(RECIPE), trust=True) == RECIPE
    changed = override(RECIPE, "schedule.0.callbacks=EMA(decay=0.5)")
    assert changed.schedule[0].callbacks == (EMA(decay=0.5),)
    with pytest.raises(ValueError, match=r"decay must be a fraction from 0 to below 1, got 1\.0"):
        EMA(decay=1.0)
    with pytest.raises(ValueError, match="must have one EMA at most, got several"):
        fitted(replace(RECIPE, callbacks=(EMA(),)))
