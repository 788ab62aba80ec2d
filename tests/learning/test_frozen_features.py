"""Training the head on stored features equals training it behind the frozen body, to the bit."""

import re
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.training import BnFreeze, GradientClip
from fastai.learner import Metric
from fastcore.foundation import L
from torch import nn
from torchvision.models import efficientnet_b0, resnet18

from fastcv import interruption
from fastcv.augment import HorizontalFlip, MixUp
from fastcv.data import CIFAR10_STATS, Toy
from fastcv.data.images import Images
from fastcv.experiment.building import learner
from fastcv.experiment.train import train
from fastcv.interruption import Checkpointed
from fastcv.learning import frozen_features
from fastcv.learning.callbacks.checkpoint import Checkpoint
from fastcv.learning.callbacks.ema import EMA
from fastcv.learning.frozen_features import trained_alone
from fastcv.learning.losses import CrossEntropy
from fastcv.learning.lr_finder import find_rates
from fastcv.learning.models import FromScratch, Pretrained, resnet10
from fastcv.learning.optimizers import SGD, Adam
from fastcv.learning.stages.augment import with_augment
from fastcv.learning.stages.schedules import Constant, OneCycle
from fastcv.learning.stages.size import WithSize
from fastcv.learning.stages.stage import EarlyStop
from fastcv.learning.tta import TTA
from fastcv.recipe import Recipe, flat
from fastcv.recipe.diff import same_experiment
from fastcv.recipe.values import Step

TRAIN, VALID = 21, 9  # images; of batches of 8, training drops one, validation ends with one


class Net(nn.Module):
    """A body with batch norm, and a head that drops features; counts the images in its body."""

    def __init__(self, *, classes, channels, size, early=0.0, late=0.0, scale=1.0, tracks=True):
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6, track_running_stats=tracks)
        self.fc = nn.Sequential(nn.Dropout(0.3), nn.Linear(6, classes))
        self.early, self.late, self.scale, self.seen = early, late, scale, 0

    def forward(self, x):
        self.seen += len(x)
        x = nn.functional.dropout(self.norm(self.conv(x)), self.early, self.training)
        x = x.relu().mean((2, 3))  # (B, 6)
        if self.late:  # as timm's nets, outside of the head
            x = nn.functional.dropout(x, p=self.late, training=self.training)
        x = self.fc(x)
        return x if self.scale == 1 else x.mul_(self.scale)


def groups(net):
    return [[*net.conv.parameters(), *net.norm.parameters()], list(net.fc.parameters())]


@dataclass(frozen=True, kw_only=True)
class Body(FromScratch):
    net: type = Net
    bn_freeze: bool = True

    def __call__(self, dls, *, cbs, **keywords):
        more = [BnFreeze()] if self.bn_freeze else []
        learn = super().__call__(
            dls, splitter=groups, train_bn=False, cbs=L(cbs) + more, **keywords
        )
        learn.model.seen = 0  # a net that is not fastcv's is tried when it is built
        return learn


STAGE = OneCycle(epochs=3, lr=0.1, frozen=True)
RECIPE = Recipe(
    data=Images(
        source=Toy(classes=3, size=10, train=7, test=3),
        size=8,
        resize=10,
        batch_size=8,
        normalize=CIFAR10_STATS,
    ),
    model=Body(),
    optimizer=SGD(momentum=0.9, weight_decay=5e-4),
    loss=CrossEntropy(),
    schedule=(STAGE,),
    precision="fp32",
    name="frozen_toy",
)


def trained(recipe=RECIPE, on=True):
    learn = learner(replace(recipe, step=replace(recipe.step, cache_features=on)), device="cpu")
    for stage in recipe.schedule:
        stage(learn)
    return learn


TIMES = ("seconds", "images_per_second")


def rows(learn):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in learn.history.rows]


def assert_equal(learn, plain):
    assert rows(learn) == rows(plain)
    assert learn.history.steps == plain.history.steps
    ours, theirs = learn.model.state_dict(), plain.model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    for ours, theirs in zip(learn.dls.loaders, plain.dls.loaders, strict=True):
        assert ours.rng.getstate() == theirs.rng.getstate()


def used(learn):
    return learn.frozen_features.images


def notes(learn):
    return learn.frozen_features.notes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16"},
        {"data": replace(RECIPE.data, drop_last=False, valid_batch_size=5)},
        {"schedule": (replace(STAGE, clip=0.1, callbacks=(TTA(),), early_stop=EarlyStop()),)},
        {"step": Step(channels_last=False)},
        {"model": Body(settings={"late": 0.5})},
        {"callbacks": (EMA(),), "optimizer": Adam()},
        {"data": replace(RECIPE.data, balance=0.5), "loss": CrossEntropy(weights="balanced")},
        {"schedule": (WithSize(stage=replace(STAGE, accumulate=2), size=5),)},
        # Unfrozen after that; then frozen again, with another body.
        {"schedule": (STAGE, Constant(epochs=1, lr=0.1), STAGE)},
    ],
    ids=[
        "plain",
        "bf16",
        "ragged",
        "callbacks",
        "channels_first",
        "late_dropout",
        "ema",
        "balance",
        "size",
        "three_stages",
    ],
)
def test_results_and_random_numbers_are_the_same_to_the_bit(changes):
    recipe = replace(RECIPE, **changes)
    states, learns = [], []
    for on in (True, False):
        learns.append(trained(recipe, on))
        states.append(torch.get_rng_state())
    assert_equal(*learns)
    assert torch.equal(*states)
    frozen = sum(getattr(stage, "stage", stage).frozen for stage in recipe.schedule)
    assert used(learns[0]) == frozen * (TRAIN + VALID)
    assert used(learns[1]) == 0


def test_the_body_computes_each_image_once_and_the_head_trains(capsys):
    learn = learner(RECIPE, device="cpu")
    before = {name: each.clone() for name, each in learn.model.state_dict().items()}
    STAGE(learn)
    assert learn.model.seen == 0  # the counter, too, was put back when all were computed
    assert notes(learn) == []
    changed = {k for k, v in learn.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"fc.1.weight", "fc.1.bias"}
    said = capsys.readouterr().out
    assert said.count("features of the frozen body: computed once, 30 images, 0.") == 1
    assert learn.frozen_features.seconds > 0
    # All that follows the fit uses the net.
    learn.get_preds()
    assert learn.model.seen == VALID
    learn.validate()
    assert learn.model.seen == 2 * VALID


def test_predictions_within_a_fit_use_the_whole_net():
    class Predicts(Callback):
        def after_epoch(self):
            if not self.learn.borrowed:
                before = self.learn.model.seen
                self.learn.get_preds()
                assert self.learn.model.seen == before + VALID

    recipe = replace(RECIPE, schedule=(replace(STAGE, callbacks=(Predicts,)),))
    assert used(trained(recipe)) == TRAIN + VALID


MANY = Toy(classes=3, size=10, train=40, test=3)
BOUNDED = replace(RECIPE, data=replace(RECIPE.data, source=MANY, epoch_images=20))  # of 120


@pytest.mark.parametrize("lr", [0.1, "valley"])
def test_of_a_bounded_epoch_only_the_images_that_are_drawn_are_computed(lr):
    recipe = replace(BOUNDED, schedule=(replace(STAGE, lr=lr),))
    learn, plain = trained(recipe), trained(recipe, on=False)
    assert_equal(learn, plain)
    if lr == 0.1:  # the finder also draws others
        loader = learner(recipe, device="cpu").dls.train
        drawn = torch.cat([places for _ in range(3) for places in loader.places()]).unique()
        assert used(learn) == len(drawn) + VALID
        assert 16 < len(drawn) < 3 * 16
    else:
        assert used(learn) <= 120 + VALID


def test_finder_trains_on_the_features_that_the_stage_uses_after_it(capsys):
    recipe = replace(RECIPE, schedule=(replace(STAGE, lr="valley"),))
    learn, plain = trained(recipe), trained(recipe, on=False)
    assert learn.history.found == plain.history.found
    assert_equal(learn, plain)
    assert used(learn) == TRAIN + VALID
    said = capsys.readouterr().out
    assert "computed once, 21 images" in said
    assert "computed once, 9 images" in said


def test_finder_alone_computes_no_more_than_its_steps_do():
    learn = learner(RECIPE, device="cpu")
    learn.create_opt()
    learn.freeze()
    find_rates(learn, num_it=6, suggest_funcs=())
    assert used(learn) == TRAIN  # three times round two batches
    other = learner(replace(RECIPE, data=replace(RECIPE.data, batch_size=2)), device="cpu")
    other.create_opt()
    other.freeze()
    find_rates(other, num_it=6, suggest_funcs=())
    assert used(other) == 0  # 6 of 10 batches


class Watches(Callback):
    def after_batch(self):
        assert self.learn.xb[0].ndim == 4


class Hooks(Callback):
    def before_fit(self):
        self.hook = self.learn.model.norm.register_forward_hook(lambda *_: None)

    def after_fit(self):
        self.hook.remove()


def augmented(*augment):
    return {"data": replace(RECIPE.data, augment=augment)}


def model(**settings):
    return {"model": RECIPE.model.but(**settings)}


EXCLUDED = {
    "switched off": ({"step": Step(cache_features=False)}, "switched off"),
    "a random flip": (augmented(HorizontalFlip()), "augmented"),
    "the stage's own": ({"schedule": (with_augment(STAGE, HorizontalFlip()),)}, "augmented"),
    "mixed images": (augmented(MixUp()), "Mixing may look at .* before_batch"),
    "not decoded": ({"data": replace(RECIPE.data, cache="off")}, "not decoded images"),
    "a callback": ({"callbacks": (Watches,)}, "Watches may look at .* at after_batch"),
    "a hook": ({"callbacks": (Hooks,)}, "BatchNorm2d has a hook"),
    "running statistics": ({"model": Body(bn_freeze=False)}, "follows the batches"),
    "no statistics": (model(tracks=False), "follows the batches"),
    "dropout in the body": (model(early=0.5), "random numbers"),
    "dropout twice": (model(early=0.5, late=0.5), "random numbers"),
    "a scaled output": (model(scale=2.0), "does not return the output of its head"),
}


@pytest.mark.parametrize("name", EXCLUDED)
def test_features_that_may_change_are_not_stored(name, capsys):
    changes, reason = EXCLUDED[name]
    recipe = replace(RECIPE, **changes)
    learn = learner(recipe, device="cpu")
    for stage in recipe.schedule:
        stage(learn)
    assert used(learn) == 0
    (note,) = notes(learn)
    assert re.search(reason, note)
    said = capsys.readouterr().out.count("features of the frozen body: computed in every epoch")
    assert said == (0 if name == "switched off" else 1)
    assert learn.model.seen == 3 * (16 + VALID)


def test_one_epoch_needs_no_features():
    learn = trained(replace(RECIPE, schedule=(replace(STAGE, epochs=1),)))
    assert used(learn) == 0
    assert notes(learn) == []


def test_features_that_exceed_a_quarter_of_the_free_memory_are_not_stored(monkeypatch):
    needed = TRAIN * 6 * 4  # bytes
    monkeypatch.setattr(frozen_features, "free_memory", lambda device: 4 * needed - 1)
    assert "21 images need" in notes(trained())[0]
    monkeypatch.setattr(frozen_features, "free_memory", lambda device: 4 * needed)
    assert used(trained()) == TRAIN + VALID


def test_free_memory_is_less_than_all_of_it():
    assert 0 < frozen_features.free_memory(torch.device("cpu")) < 2**50


def rescale(learn):
    with torch.no_grad():
        learn.model.conv.weight.mul_(0.5)


def reload(learn):
    learn.model.load_state_dict(learn.model.state_dict())


def unfreeze(learn):
    learn.unfreeze()


def hook(learn):
    learn.model.conv.register_forward_hook(lambda *_: None)


def replace_images(learn):
    images = learn.dls.train.decoded
    learn.dls.train.decoded = replace(images, images=255 - images.images)


class Meddles(Callback):
    """Does something to the Learner before the second epoch of a fit."""

    def __init__(self, meddle):
        self.meddle = meddle

    def before_epoch(self):
        if self.learn.epoch == 1:
            self.meddle(self.learn)


@pytest.mark.parametrize(
    ("meddle", "whole"),
    [(rescale, 2), (reload, 0), (unfreeze, 2), (hook, 2), (replace_images, 2)],
)
def test_what_changes_in_the_middle_of_a_fit_is_seen(meddle, whole):
    recipe = replace(RECIPE, schedule=(replace(STAGE, callbacks=(partial(Meddles, meddle),)),))
    learn, plain = trained(recipe), trained(recipe, on=False)
    assert_equal(learn, plain)
    assert used(learn) == TRAIN + VALID
    assert learn.model.seen == whole * (16 + VALID)  # epochs that use the whole net


def test_metric_that_may_look_at_the_images_is_an_obstacle():
    class Brightness(Metric):
        def reset(self):
            pass

        def accumulate(self, learn):
            assert learn.xb[0].ndim == 4

        value, name = 0.0, "brightness"

    learn = learner(RECIPE, device="cpu")
    learn.metrics = [*learn.metrics, Brightness()]
    STAGE(learn)
    assert notes(learn) == ["Brightness may look at the images or layers"]


class Stop(Exception):
    pass


def stage_is_at(learn, event):
    """Whether it is after the second epoch, or within it."""
    done = len(learn.history.rows)
    return done == 2 if event == "after_epoch" else done == 1 and learn.training and learn.iter == 0


@pytest.mark.parametrize("images", ["all", "bounded"])
@pytest.mark.parametrize("event", ["after_epoch", "after_batch"])
def test_resumed_stage_computes_the_features_again_and_ends_the_same(
    tmp_path, monkeypatch, images, event
):
    recipe = RECIPE if images == "all" else BOUNDED
    recipe = replace(recipe, schedule=(replace(STAGE, lr="valley", epochs=4),))
    write = getattr(Checkpoint, event)

    def run(**options):
        return train(recipe, out=tmp_path, wandb="off", device="cpu", **options)

    def stop(self):
        stops = not self.learn.borrowed and self.learn.fitting and stage_is_at(self.learn, event)
        if stops and event == "after_batch":
            interruption.ask()
        write(self)
        if stops:
            raise Stop

    monkeypatch.setattr("fastcv.experiment.results.Results._draw", lambda self: None)
    whole = run()
    monkeypatch.setattr(Checkpoint, event, stop)
    with pytest.raises((Stop, Checkpointed)):
        run()
    monkeypatch.setattr(Checkpoint, event, write)
    interruption._asked.clear()
    (stopped,) = (path for path in whole.path.parent.iterdir() if path != whole.path)
    resumed = run(resume=stopped)
    assert resumed.steps == whole.steps
    assert (resumed.path / "model.safetensors").read_bytes() == (
        whole.path / "model.safetensors"
    ).read_bytes()
    assert whole.summary["step"]["features"] is True
    assert resumed.summary["step"]["features"] is True
    assert resumed.summary["step"]["features_notes"] == []
    assert whole.summary["warmup_seconds"] == whole.summary["step"]["features_seconds"] > 0


@pytest.mark.parametrize("arch", [resnet10, "test_efficientnet"])
def test_pretrained_with_kept_batch_norm_stores_and_with_training_batch_norm_does_not(arch):
    recipe = replace(
        RECIPE,
        model=Pretrained(arch=arch, weights=None, train_bn=False, dropout=0.2),
        schedule=(replace(STAGE, epochs=2),),
    )
    learn, plain = trained(recipe), trained(recipe, on=False)
    assert_equal(learn, plain)
    assert used(learn) == TRAIN + VALID
    for train_bn in (True, "statistics"):
        assert used(trained(replace(recipe, model=replace(recipe.model, train_bn=train_bn)))) == 0


def test_head_is_the_outermost_module_of_what_trains():
    net = Net(classes=3, channels=3, size=8)
    assert trained_alone(net) is None  # all of it trains
    net.requires_grad_(False)
    assert trained_alone(net) is None  # nothing does
    net.fc.requires_grad_(True)
    assert trained_alone(net) is net.fc  # with its dropout
    net.conv.requires_grad_(True)
    assert trained_alone(net) is None  # two children
    net.conv.requires_grad_(False)
    net.conv.bias = nn.Parameter(net.fc[1].bias.new_zeros(6))
    net.fc.append(nn.Linear(3, 3))
    net.fc[2].weight = net.fc[1].weight
    assert trained_alone(net) is None  # the new bias trains


def test_head_that_shares_a_parameter_with_the_body_is_none():
    net = Net(classes=6, channels=3, size=8).requires_grad_(False)
    net.fc.requires_grad_(True)
    net.norm.bias = net.fc[1].bias
    assert trained_alone(net) is None


@pytest.mark.parametrize(
    ("build", "head"), [(resnet18, "fc"), (efficientnet_b0, "classifier")], ids=["fc", "classifier"]
)
def test_heads_of_torchvision(build, head):
    net = build(num_classes=3).requires_grad_(False)
    getattr(net, head).requires_grad_(True)
    assert trained_alone(net) is getattr(net, head)


def test_older_recipe_without_the_setting_is_the_same_experiment():
    older = {key: value for key, value in flat(RECIPE).items() if key != "step.cache_features"}
    assert len(older) == len(flat(RECIPE)) - 1
    assert same_experiment(flat(RECIPE), older)
    assert same_experiment(flat(replace(RECIPE, step=Step(cache_features=False))), older)


def test_clipping_does_not_need_the_images():
    callback = partial(GradientClip, max_norm=0.1)
    assert used(trained(replace(RECIPE, callbacks=(callback,)))) == TRAIN + VALID
