import json
from dataclasses import dataclass, replace

import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from safetensors.torch import load_file
from torch import nn

from fastcv.augment import AlternatingFlip, Gamma, HorizontalFlip, MixUp, Rotation
from fastcv.data import Toy
from fastcv.data.images import Images
from fastcv.data.loader import AugmentBatch
from fastcv.experiment.building import learner, smoked
from fastcv.experiment.directory import Run
from fastcv.experiment.train import train
from fastcv.learning.callbacks.checkpoint import Checkpoint
from fastcv.learning.callbacks.history import History
from fastcv.learning.callbacks.mixing import Mixing
from fastcv.learning.learner import Learner
from fastcv.learning.losses import CrossEntropy
from fastcv.learning.models import FromScratch
from fastcv.learning.optimizers import SGD
from fastcv.learning.stages.augment import WithAugment, augmented
from fastcv.learning.stages.schedules import Constant, Plateau
from fastcv.recipe import Recipe, flat, override, unflat


class Line(nn.Sequential):
    def __init__(self, *, classes, channels, size):
        super().__init__(nn.Flatten(), nn.Linear(channels * size * size, classes))


@dataclass(frozen=True)
class Painted:
    """All pixels of all images at one level: what a batch shows says what painted it."""

    level: float

    def __call__(self, x):
        return torch.full(x.shape, self.level)


class Look(Callback):
    """Note the levels that a net is shown: one number a batch, None for an image as it was."""

    def __init__(self):
        self.trained, self.validated = [], []

    def before_batch(self):
        x = self.learn.xb[0]
        level = round(x.mean().item(), 3) if x.min() == x.max() else None
        (self.trained if self.learn.training else self.validated).append(level)


BY_DATA, FIRST, SECOND = Painted(0.1), Painted(0.5), Painted(0.8)
STAGE = Constant(epochs=1, lr=0.01)


def a_recipe(*schedule, **settings):
    data = Images(
        source=Toy(classes=2, size=8, train=8, valid=2, test=0),
        size=8,
        batch_size=8,
        augment=(BY_DATA,),
    )
    return Recipe(
        data=replace(data, **settings),
        model=FromScratch(net=Line),
        optimizer=SGD(),
        loss=CrossEntropy(),
        schedule=schedule,
    )


def run_stages(recipe):
    learn, look = learner(recipe, device="cpu"), Look()
    learn.add_cb(look)
    for stage in recipe.schedule:
        stage(learn)
    return learn, look


def test_each_round_trains_on_its_own_augmentation_and_the_data_on_its_again():
    learn, look = run_stages(
        a_recipe(
            STAGE,
            WithAugment(stage=STAGE, augment=(FIRST,)),
            WithAugment(stage=replace(STAGE, epochs=2), augment=(SECOND,)),
            WithAugment(stage=STAGE),
            STAGE,
        )
    )
    assert look.trained == [0.1] * 2 + [0.5] * 2 + [0.8] * 4 + [None] * 2 + [0.1] * 2
    assert set(look.validated) == {None}  # no round augments what validates
    assert [row["epoch"] for row in learn.history.rows] == [1, 2, 3, 4, 5, 6]


def test_round_augments_data_that_has_no_augmentation():
    _, look = run_stages(a_recipe(WithAugment(stage=STAGE, augment=(FIRST,)), STAGE, augment=()))
    assert look.trained == [0.5, 0.5, None, None]
    assert set(look.validated) == {None}


def test_round_augments_images_that_are_decoded_one_by_one():
    learn = learner(a_recipe(STAGE, cache="off"), device="cpu")
    with augmented(learn, (FIRST,)):
        x, _ = learn.dls.train.one_batch()
    assert torch.equal(x, torch.full_like(x, 0.5))
    x, _ = learn.dls.train.one_batch()
    assert torch.equal(x, torch.full_like(x, 0.1))


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_augmentation_is_put_back_however_a_round_ends(error):
    class Stop(Callback):
        def after_batch(self):
            raise error("in the round")

    recipe = a_recipe(
        WithAugment(stage=STAGE, augment=(FIRST, MixUp())), augment=(BY_DATA, MixUp())
    )
    learn = learner(recipe, device="cpu")
    before = list(learn.dls.train.after_batch.fs)
    (mixing,) = learn._grab_cbs(Mixing)
    with learn.added_cbs(Stop()), pytest.raises(error):
        recipe.schedule[0](learn)
    after = list(learn.dls.train.after_batch.fs)
    assert len(after) == len(before)
    assert all(a is b for a, b in zip(after, before, strict=True))
    assert list(learn._grab_cbs(Mixing)) == [mixing]


def test_steps_of_batches_come_in_their_order():
    learn = learner(a_recipe(STAGE), device="cpu")
    with augmented(learn, (HorizontalFlip(), Rotation(degrees=5))):
        steps = list(learn.dls.train.after_batch.fs)
    assert [each.order for each in steps] == sorted(each.order for each in steps)
    assert sum(isinstance(each, AugmentBatch) for each in steps) == 1


def test_mixing_belongs_to_the_round_as_well():
    seen = []

    class Targets(Callback):
        order = Mixing.order + 1

        def before_batch(self):
            if self.learn.training:
                seen.append(self.learn.yb[0].ndim)

    recipe = a_recipe(
        STAGE, WithAugment(stage=STAGE), WithAugment(stage=STAGE, augment=(FIRST, MixUp())), STAGE
    )
    learn = learner(recipe, device="cpu")
    learn.add_cb(Targets())
    for stage in recipe.schedule:
        stage(learn)
    assert seen == [1] * 4 + [2] * 2 + [1] * 2
    seen.clear()
    recipe = replace(recipe, data=replace(recipe.data, augment=(MixUp(),)))
    learn = learner(recipe, device="cpu")
    learn.add_cb(Targets())
    for stage in recipe.schedule:
        stage(learn)
    assert seen == [2] * 2 + [1] * 2 + [2] * 2 + [2] * 2


def test_what_follows_the_epoch_follows_it_in_a_round():
    flips = []

    class Epochs(Callback):
        def before_batch(self):
            steps = self.learn.dls.train.after_batch.fs
            (own,) = [each for each in steps if isinstance(each, AugmentBatch)]
            flips.append(own.plain.values[0].epoch)

    recipe = a_recipe(
        STAGE, WithAugment(stage=replace(STAGE, epochs=2), augment=(AlternatingFlip(),))
    )
    learn = learner(recipe, device="cpu")
    STAGE(learn)
    with learn.added_cbs(Epochs()):
        recipe.schedule[1](learn)
    assert list(dict.fromkeys(flips)) == [1, 2]


def test_rate_is_found_on_the_images_of_the_round():
    batches = []

    def first(x):
        batches.append(len(x))
        return FIRST(x)

    recipe = a_recipe(WithAugment(stage=replace(STAGE, lr="valley"), augment=(first,)))
    learn, look = run_stages(recipe)
    assert look.trained == [0.5, 0.5]
    ((_, rates),) = learn.history.found
    assert len(batches) > len(rates.losses)


def test_round_is_plain_data_and_its_stage_can_be_overridden():
    recipe = a_recipe(
        WithAugment(stage=Plateau(epochs=100, lr=0.1), augment=(HorizontalFlip(), Gamma()))
    )
    recipe = replace(recipe, data=replace(recipe.data, augment=()))
    assert unflat(json.loads(json.dumps(flat(recipe))), trust=True) == recipe
    assert recipe.schedule[0].epochs == 100
    (shorter,) = override(recipe, "schedule.0.stage.epochs=3").schedule
    assert shorter == replace(recipe.schedule[0], stage=Plateau(epochs=3, lr=0.1))
    assert shorter.epochs == 3
    (quick,) = smoked(recipe).schedule
    assert quick.epochs == 1
    assert quick.augment == recipe.schedule[0].augment


def test_labels_change_last():
    with pytest.raises(
        ValueError, match=r"must come last in augment, got MixUp.* before HorizontalFlip"
    ):
        WithAugment(stage=STAGE, augment=(MixUp(), HorizontalFlip()))


def test_loaders_that_are_not_ours_are_refused():
    items = [(torch.zeros(3, 8, 8), 0)] * 4
    dls = DataLoaders.from_dsets(items, items, bs=2, num_workers=0, device="cpu")
    learn = Learner(
        dls, nn.Flatten(), loss_func=CrossEntropy()(), opt_func=SGD(), cbs=History(), metrics=None
    )
    with pytest.raises(ValueError, match="on the loaders of Images, got a "):
        WithAugment(stage=STAGE, augment=(HorizontalFlip(),))(learn)


class Stop(Exception):
    pass


def test_resumed_rounds_give_what_rounds_never_stopped_give(tmp_path, undrawn, monkeypatch):
    stage = replace(STAGE, epochs=2)
    rounds = (
        WithAugment(stage=stage, augment=(Rotation(degrees=40),)),
        WithAugment(stage=stage, augment=(Gamma(low=0.2, high=4.0),)),
    )
    recipe = a_recipe(
        *rounds, augment=(HorizontalFlip(),), source=Toy(classes=2, size=8, valid=2, test=2)
    )
    settings = {"wandb": "off", "device": "cpu"}
    whole = train(recipe, out=tmp_path / "whole", **settings)
    plain = train(replace(recipe, schedule=(stage, stage)), out=tmp_path / "plain", **settings)
    assert plain.steps != whole.steps  # so that the augmentation decides what is compared here

    after_epoch = Checkpoint.after_epoch
    for done in (1, 2, 3):  # within the first round, between the two, within the second
        written = []

        def stop(self, done=done, written=written):
            after_epoch(self)
            written.append(self.path.parent)
            if len(written) == done:
                raise Stop(f"after {done} epochs")

        with monkeypatch.context() as patched:
            patched.setattr(Checkpoint, "after_epoch", stop)
            with pytest.raises(Stop):
                train(recipe, out=tmp_path / "stopped", **settings)
        stopped = Run(written[-1], trust=True)
        assert len(stopped.metrics) == done
        resumed = train(stopped.recipe, resume=stopped.path, **settings)
        assert resumed.steps == whole.steps
        ours, theirs = (load_file(run.path / "model.safetensors") for run in (resumed, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
