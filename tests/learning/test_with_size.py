"""Progressive resizing: stages that train on smaller images."""

import json
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from tape import Tape
from torch import nn
from torchvision.transforms import functional as T

from fastcv.augment import ColorJitter, HorizontalFlip, MixUp
from fastcv.data import CIFAR10_STATS, Images, Toy
from fastcv.experiment.building import learner, smoked
from fastcv.learning import (
    SGD,
    Constant,
    CrossEntropy,
    FromScratch,
    WithAugment,
    WithSize,
)
from fastcv.learning.cuda_graph.stepper import Stepper
from fastcv.learning.learner import Learner
from fastcv.learning.stages.size import resized
from fastcv.learning.stages.stage import rates_for
from fastcv.recipe import Recipe, flat, override, unflat
from fastcv.recipe.values import Step


class Pooled(nn.Sequential):
    """A net for images of any size."""

    def __init__(self, *, classes, channels, size):
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), *pool)
        self.append(nn.Linear(6, classes))


class Line(nn.Sequential):
    def __init__(self, *, classes, channels, size):
        super().__init__(nn.Flatten(), nn.Linear(channels * size * size, classes))


class Look(Callback):
    """Note the sides of the images that the net sees."""

    name = "look"
    found: ClassVar[set[int]] = set()  # of the class: the finder restores what an instance holds

    def __init__(self):
        self.seen = {True: [], False: []}

    def before_batch(self):
        side = self.learn.xb[0].shape[-1]
        if self.learn.borrowed:
            self.found.add(side)
        else:
            self.seen[self.learn.training].append(side)


STAGE = Constant(epochs=1, lr=0.05)
RECIPE = Recipe(
    data=Images(
        source=Toy(classes=2, size=12, train=8, valid=2, test=0),
        size=12,
        batch_size=8,
        augment=(HorizontalFlip(), ColorJitter(brightness=0.3)),
        normalize=CIFAR10_STATS,
    ),
    model=FromScratch(net=Pooled),
    optimizer=SGD(),
    loss=CrossEntropy(),
    schedule=(WithSize(stage=STAGE, size=6), STAGE),
    precision="fp32",
    name="size_toy",
)


def fitted(recipe, backend=None, also=()):
    learn = learner(recipe, device="cpu")
    learn.stepper = Stepper(Step(graph="try"), torch.device("cpu"), backend=backend)
    learn.add_cbs(also)
    for stage in recipe.schedule:
        stage(learn)
    return learn


def test_a_stage_trains_on_its_size_and_validates_on_the_datas():
    found = replace(STAGE, lr="valley")
    small = WithSize(stage=WithAugment(stage=found, augment=(MixUp(),)), size=5)
    schedule = (RECIPE.schedule[0], small, WithSize(stage=STAGE, size=12), STAGE)
    learn = fitted(replace(RECIPE, schedule=schedule), also=[Look()])
    assert learn.look.seen[True] == [6, 6, 5, 5, 12, 12, 12, 12]
    assert learn.look.found == {5}
    assert set(learn.look.seen[False]) == {12}
    assert [row["epoch"] for row in learn.history.rows] == [1, 2, 3, 4]


def test_rates_are_found_as_the_stage_trains_without_training_it():
    Look.found.clear()
    augmented = WithAugment(stage=WithSize(stage=replace(STAGE, accumulate=2), size=9))
    learn = learner(RECIPE, device="cpu")
    learn.add_cb(Look())
    before = [each.clone() for each in learn.model.parameters()]
    found = rates_for(augmented, learn)
    assert 100 < len(found.rates) <= 200
    assert Look.found == {9}
    assert all(map(torch.equal, learn.model.parameters(), before))


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_batches_are_those_of_the_data_resized_as_by_torchvision(cache):
    learn = learner(replace(RECIPE, data=replace(RECIPE.data, cache=cache)), device="cpu")
    state, drawn = learn.dls.train.rng.getstate(), torch.get_rng_state()
    x, y = learn.dls.train.one_batch()
    learn.dls.train.rng.setstate(state)
    torch.set_rng_state(drawn)
    with resized(learn, 7):
        small, same = learn.dls.train.one_batch()
        assert learn.dls.valid.one_batch()[0].shape[-1] == 12
    assert torch.equal(y, same)
    wanted = T.resize(x.as_subclass(torch.Tensor), [7, 7], antialias=True)
    torch.testing.assert_close(small.as_subclass(torch.Tensor), wanted, rtol=1e-4, atol=1e-5)
    assert small.is_contiguous(memory_format=torch.channels_last)


def test_a_graph_is_captured_for_each_size():
    tape = Tape()
    schedule = (WithSize(stage=replace(STAGE, epochs=2), size=6), STAGE)
    recipe = replace(RECIPE, schedule=schedule)
    captured, plain = fitted(recipe, tape), fitted(recipe)
    assert (tape.captures, tape.replays) == (2, 6)
    assert captured.history.steps == plain.history.steps
    theirs = plain.model.state_dict()
    assert all(torch.equal(each, theirs[key]) for key, each in captured.model.state_dict().items())


def test_the_size_is_put_back_however_the_stage_ends():
    class Stop(Callback):
        def after_batch(self):
            raise KeyboardInterrupt

    learn = learner(RECIPE, device="cpu")
    before = list(learn.dls.train.after_batch.fs)
    with learn.added_cbs(Stop()), pytest.raises(KeyboardInterrupt):
        RECIPE.schedule[0](learn)
    assert list(learn.dls.train.after_batch.fs) == before


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        WithSize(stage=STAGE, size=0)
    with pytest.raises(ValueError, match="at most the data's 12 pixels, got 13: raise the data's"):
        fitted(replace(RECIPE, schedule=(WithSize(stage=STAGE, size=13),)))
    with pytest.raises(ValueError, match=r"one that the net takes, got 6 \(mat1 and mat2") as error:
        fitted(replace(RECIPE, model=FromScratch(net=Line)))
    assert "\n" not in str(error.value)
    items = [(torch.zeros(3, 8, 8), 0)] * 4
    dls = DataLoaders.from_dsets(items, items, bs=2, num_workers=0, device="cpu")
    learn = Learner(dls, nn.Flatten(), loss_func=CrossEntropy()(), opt_func=SGD())
    with pytest.raises(ValueError, match="on the loaders of Images, got a "):
        RECIPE.schedule[0](learn)


def test_stage_is_plain_data_and_can_be_overridden():
    assert unflat(json.loads(json.dumps(flat(RECIPE))), trust=True) == RECIPE
    assert override(RECIPE, "schedule.0.size=8").schedule[0] == WithSize(stage=STAGE, size=8)
    assert RECIPE.schedule[0].epochs == 1
    large = replace(RECIPE, schedule=(WithSize(stage=replace(STAGE, epochs=3), size=128),))
    (quick,) = smoked(large).schedule
    assert (quick.epochs, quick.size) == (1, 32)
