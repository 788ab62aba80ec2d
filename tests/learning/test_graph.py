import gc
import random
import time
import weakref
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from fastai.optimizer import Adam as FastaiAdam
from fastai.optimizer import OptimWrapper
from tape import Tape
from torch import nn

from fastcv.augment import (
    AlternatingFlip,
    ColorJitter,
    CutMix,
    HorizontalFlip,
    MixUp,
    Rotation,
    compose,
    to_float,
)
from fastcv.data import CIFAR10_STATS, Toy
from fastcv.data.images import Images
from fastcv.experiment.building import learner
from fastcv.learning.callbacks.checkpoint import Checkpoint, prepare, read
from fastcv.learning.callbacks.freeze_first import FreezeFirst
from fastcv.learning.callbacks.mixing import Mixing
from fastcv.learning.cuda_graph import capture
from fastcv.learning.cuda_graph.feed import Feed, follows_epoch
from fastcv.learning.cuda_graph.stepper import Stepper
from fastcv.learning.losses import CrossEntropy
from fastcv.learning.models import FromScratch
from fastcv.learning.muon import Muon
from fastcv.learning.optimizers import SGD, Adam, AdamW
from fastcv.learning.stages.schedules import Constant, Cosine, Linear, OneCycle, Plateau
from fastcv.learning.stages.stage import EarlyStop
from fastcv.recipe import Recipe
from fastcv.recipe.values import Step

CPU = torch.device("cpu")
WATCHED = "Watches acts within the training step, at after_backward"


class Small(nn.Sequential):
    """Two children with BatchNorm and dropout: random numbers, running statistics, two groups."""

    def __init__(self, *, classes, channels, size):
        body = (nn.Conv2d(channels, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        head = (nn.Dropout(0.2), nn.Flatten(), nn.Linear(6 * (size // 2) ** 2, classes))
        super().__init__(nn.Sequential(*body), nn.Sequential(*head))


# 40 images in batches of 8: five steps an epoch.
IMAGES = Images(
    source=Toy(classes=4, size=8, train=10, test=3),
    size=8,
    batch_size=8,
    augment=(HorizontalFlip(), ColorJitter(brightness=0.3, contrast=0.3)),
    normalize=CIFAR10_STATS,
)
RECIPE = Recipe(
    data=IMAGES,
    model=FromScratch(net=Small),
    optimizer=SGD(weight_decay=5e-4, nesterov=True),
    loss=CrossEntropy(label_smoothing=0.1),
    schedule=(Constant(epochs=2, lr=0.05),),
    precision="fp32",
    name="graph_toy",
)


def trained(recipe, backend, graph="try", prepare=lambda learn: None):
    """Train by the recipe's schedule; `backend` None is the ordinary way."""
    learn = learner(recipe, device="cpu")
    learn.stepper = Stepper(Step(graph=graph), CPU, backend=backend)
    prepare(learn)
    for stage in recipe.schedule:
        stage(learn)
    return learn


def assert_equal(learn, other):
    """The same training, bit for bit: steps, rows, weights, optimizer and random numbers."""
    assert learn.history.steps == other.history.steps
    aside = ("seconds", "images_per_second")
    for row, also in zip(learn.history.rows, other.history.rows, strict=True):
        assert {k: v for k, v in row.items() if k not in aside} == {
            k: v for k, v in also.items() if k not in aside
        }
    weights, others = learn.model.state_dict(), other.model.state_dict()
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name
    mine, theirs = learn.opt.state_dict(), other.opt.state_dict()
    assert mine["param_groups"] == theirs["param_groups"]
    assert mine["state"].keys() == theirs["state"].keys()
    for key, values in mine["state"].items():
        for name, value in values.items():
            assert torch.equal(value, theirs["state"][key][name]), (key, name)


def both(recipe, prepare=lambda learn: None):
    """Train both ways, see that they agree, and return the replaying Learner and its tape."""
    tape = Tape()
    ordinary = trained(recipe, None, prepare=prepare)
    after = torch.rand(3)
    replaying = trained(recipe, tape, prepare=prepare)
    assert torch.equal(torch.rand(3), after)
    assert_equal(replaying, ordinary)
    return replaying, tape


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(momentum=0.0),
        SGD(weight_decay=5e-4, nesterov=True),
        Adam(weight_decay=0.1),
        AdamW(),
        Muon(weight_decay=0.1),
    ],
    ids=["sgd", "nesterov", "adam", "adamw", "muon"],
)
@pytest.mark.parametrize(
    "stage",
    [
        Constant(epochs=2, lr=0.02),
        Cosine(epochs=2, lr=0.02, per="batch"),
        OneCycle(epochs=2, lr=0.02, momenta=None),
        Linear(epochs=2, lr=0.02, pct_start=0.3),
    ],
    ids=["constant", "cosine", "one_cycle", "linear"],
)
def test_replayed_training_equals_the_ordinary_one(optimizer, stage):
    learn, tape = both(replace(RECIPE, optimizer=optimizer, schedule=(stage,)))
    assert (tape.warm_ups, tape.captures, tape.replays) == (1, 1, 10)
    assert learn.stepper.used(learn) == {
        "compile": False,
        "graph": True,
        "graph_notes": [],
        "channels_last": True,
        "fused": None if isinstance(optimizer, Muon) else True,
    }


def test_bf16_training_is_replayed():
    both(replace(RECIPE, precision="bf16"))


@pytest.mark.parametrize("optimizer", [SGD(), AdamW()], ids=["sgd", "adamw"])
def test_optimizer_whose_momentum_moves_steps_outside(optimizer):
    recipe = replace(RECIPE, optimizer=optimizer, schedule=(OneCycle(epochs=2, lr=0.02),))
    learn, tape = both(recipe)
    assert (tape.captures, tape.replays) == (1, 10)
    (note,) = learn.stepper.used(learn)["graph_notes"]
    assert note == "the optimizer's step is outside: its momentum changes from step to step"


def test_fastais_own_schedule_is_followed():
    learns = []
    for backend in (None, Tape()):
        learn = learner(RECIPE, device="cpu")
        learn.stepper = Stepper(Step(graph="try"), CPU, backend=backend)
        learn.fit_one_cycle(2, 0.05)
        learns.append(learn)
    assert_equal(*learns)
    assert learns[1].stepper.graph.replayed == 10
    assert learns[1].stepper.graph.outside == "its momentum changes from step to step"


def test_settings_that_move_unannounced_are_noticed():
    class Decay(Callback):
        only_rates = True

        def before_batch(self):
            if self.learn.train_iter == 3:
                self.learn.opt.opt.param_groups[0]["weight_decay"] = 0.3

    learn, tape = both(RECIPE, lambda learn: learn.add_cb(Decay()))
    assert (tape.captures, tape.replays) == (2, 10)
    assert learn.stepper.graph.outside == "its settings change from step to step"


def test_unfused_and_unknown_optimizers_step_outside():
    def rms(params, lr, **_):
        return OptimWrapper(params, torch.optim.RMSprop, lr=lr)

    for optimizer, note in (
        (SGD(fused=False), "it is not fused"),
        (rms, "RMSprop is not known to be capturable"),
    ):
        learn, tape = both(replace(RECIPE, optimizer=optimizer))
        assert tape.replays == 10
        assert learn.stepper.graph.notes == [f"the optimizer's step is outside: {note}"]


def test_fastais_own_optimizer_steps_outside():
    learn = trained(RECIPE, Tape(), prepare=lambda learn: setattr(learn, "opt_func", FastaiAdam))
    assert learn.stepper.graph.replayed == 10
    assert learn.stepper.graph.outside == "Optimizer is not known to be capturable"


def test_mixed_labels_are_part_of_the_step():
    data = replace(IMAGES, augment=(HorizontalFlip(), MixUp(), CutMix()))
    learn, tape = both(replace(RECIPE, data=data))
    assert (tape.captures, tape.replays) == (1, 10)
    assert learn.stepper.graph.notes == []


def test_alternating_flip_reads_its_epoch_from_a_tensor():
    data = replace(IMAGES, augment=(AlternatingFlip(), ColorJitter(brightness=0.2)))
    schedule = (Constant(epochs=3, lr=0.02), Constant(epochs=2, lr=0.02))
    learn, tape = both(replace(RECIPE, data=data, schedule=schedule))
    assert (tape.captures, tape.replays) == (2, 25)
    assert learn.stepper.graph.notes == []


@dataclass(frozen=True)
class Darker:
    """Augmentation that depends on the epoch in Python."""

    epoch: int = 0

    def __call__(self, x):
        return to_float(x) * 0.5**self.epoch

    def at_epoch(self, epoch):
        return Darker(epoch)


def test_augmentation_that_follows_the_epoch_stays_outside():
    data = replace(IMAGES, augment=(AlternatingFlip(), Darker()))
    learn, tape = both(replace(RECIPE, data=data, schedule=(Constant(epochs=3, lr=0.02),)))
    assert (tape.captures, tape.replays) == (1, 15)
    (note,) = learn.stepper.graph.notes
    assert note.startswith("augmentation is outside")


def test_undecoded_images_are_augmented_outside():
    def in_this_process(learn):
        learn.dls.loaders[:] = [loader.new(num_workers=0) for loader in learn.dls.loaders]

    data = replace(IMAGES, cache="off")
    learn, tape = both(replace(RECIPE, data=data), in_this_process)
    assert tape.replays == 10
    assert not Feed(learn.dls.train, CPU).augments


def test_smaller_last_batch_is_trained_the_ordinary_way():
    def keep_it(learn):
        learn.dls.loaders[0] = learn.dls.train.new(drop_last=False, bs=7)

    learn, tape = both(RECIPE, keep_it)
    assert len(learn.history.steps) == 12
    assert (tape.captures, tape.replays) == (1, 10)


def grouped(net):
    return [list(child.parameters()) for child in net.children()]


def test_frozen_and_unfrozen_stages_are_captured_anew():
    def in_groups(learn):
        learn.splitter = grouped

    schedule = (
        Constant(epochs=1, lr=0.02, frozen=True),
        Constant(epochs=1, lr=0.02, lr_mult=20),
        Constant(epochs=1, lr=0.01, frozen=1),
    )
    _, tape = both(replace(RECIPE, schedule=schedule), in_groups)
    assert (tape.captures, tape.replays) == (3, 15)


def test_layer_that_rests_from_an_epoch_on_is_captured_anew():
    stage = Linear(epochs=3, lr=0.02, callbacks=(FreezeFirst(after=2),))
    _, tape = both(replace(RECIPE, optimizer=AdamW(), schedule=(stage,)))
    assert (tape.captures, tape.replays) == (2, 15)


def test_layer_that_wakes_up_is_captured_with_a_state_of_its_own():
    class WakeUp(Callback):
        def before_epoch(self):
            for parameter in self.learn.model[0].parameters():
                parameter.requires_grad_(self.learn.epoch > 0)

    _, tape = both(
        replace(RECIPE, optimizer=AdamW(), schedule=(Constant(epochs=3, lr=0.02),)),
        lambda learn: learn.add_cb(WakeUp()),
    )
    # Frozen by a callback that nobody knows, so only when the first epoch begins.
    assert (tape.captures, tape.replays) == (3, 15)


def test_stages_that_measure_and_stop_see_the_same():
    schedule = (
        Plateau(epochs=3, lr=0.5, patience=0, monitor="train_loss"),
        Constant(epochs=2, lr=0.02, early_stop=EarlyStop(patience=1)),
    )
    both(replace(RECIPE, schedule=schedule))


def test_lr_finder_trains_the_ordinary_way_and_leaves_no_trace():
    learn, tape = both(replace(RECIPE, schedule=(OneCycle(epochs=2, lr="valley", momenta=None),)))
    assert (tape.captures, tape.replays) == (1, 10)
    before = tape.replays
    learn.lr_find(show_plot=False, num_it=10, suggest_funcs=None)
    learn.validate()
    learn.get_preds()
    assert tape.replays == before


class Sees(Callback):
    def before_batch(self):
        assert self.learn.xb[0].ndim == 4


class Steps(Callback):
    def after_step(self):
        pass


class Watches(Callback):
    def after_backward(self):
        pass


@pytest.mark.parametrize(
    ("callback", "reason"),
    [
        (Watches, WATCHED),
        (Steps, "Steps acts within the training step, at after_step"),
        (Sees, "Sees may change the batch, at before_batch"),
    ],
)
def test_callbacks_within_the_step_make_it_ordinary(callback, reason):
    stage = Constant(epochs=1, lr=0.02)
    learn, tape = both(replace(RECIPE, schedule=(stage,)), lambda learn: learn.add_cb(callback()))
    assert tape.captures == 0
    assert learn.stepper.used(learn)["graph"] is False
    assert learn.stepper.used(learn)["graph_notes"] == [reason]


def test_each_stage_is_asked_anew():
    schedule = (
        Constant(epochs=1, lr=0.02, callbacks=(Watches,)),
        Constant(epochs=1, lr=0.02),
    )
    learn, tape = both(replace(RECIPE, schedule=schedule))
    assert tape.replays == 5
    assert learn.stepper.used(learn)["graph"] is True
    assert learn.stepper.used(learn)["graph_notes"] == [WATCHED]


@pytest.mark.parametrize("optimizer", [SGD(), Adam()], ids=["sgd", "adam"])
@pytest.mark.parametrize("momenta", [None, (0.9, 0.8, 0.9)], ids=["inside", "outside"])
def test_clipping_is_part_of_the_step(optimizer, momenta):
    stage = OneCycle(epochs=2, lr=0.05, momenta=momenta, clip=0.2, clip_value=0.05)
    recipe = replace(RECIPE, optimizer=optimizer, schedule=(stage,))
    learn, tape = both(recipe)
    assert (tape.captures, tape.replays) == (1, 10)
    free = trained(replace(recipe, schedule=(replace(stage, clip=None, clip_value=None),)), None)
    assert free.history.steps != learn.history.steps  # so that it was clipped at all


class Turning(Small):
    """A net that turns its images, by a number that it holds."""

    turns = 0

    def forward(self, x):
        return super().forward(x.rot90(self.turns, (2, 3)))


class Changes(Callback):
    """Changes something before the second epoch's batches, and for good."""

    order = 57  # behind what sets the epoch

    def __init__(self, change):
        self.change = change

    def before_train(self):
        if self.learn.epoch == 1:
            self.change(self.learn)


def copied_images(learn):
    decoded = learn.dls.train.decoded
    decoded.images = decoded.images.flip(2)


def replaced_mixing(learn):
    (mixing,) = learn._grab_cbs(Mixing)
    mixing.values = (MixUp(alpha=2.0),)


@pytest.mark.parametrize(
    "change",
    [
        lambda learn: setattr(learn.loss_func, "label_smoothing", 0.5),
        lambda learn: setattr(learn.model[1][0], "p", 0.6),
        lambda learn: setattr(learn.model[0][1], "momentum", 0.9),
        lambda learn: setattr(learn.model, "turns", 2),
        lambda learn: setattr(learn._grab_cbs(GradientClip)[0], "max_norm", 0.01),
        lambda learn: learn.to_bf16(),
        replaced_mixing,
        copied_images,
    ],
    ids=["loss", "dropout", "norm", "module", "clip", "precision", "mixing", "images"],
)
def test_what_changes_in_python_between_epochs_is_captured_anew(change):
    recipe = replace(
        RECIPE,
        data=replace(IMAGES, augment=(HorizontalFlip(), MixUp())),
        schedule=(Constant(epochs=3, lr=0.05, clip=1.0),),
        model=FromScratch(net=Turning),
    )
    learn, tape = both(recipe, lambda learn: learn.add_cb(Changes(change)))
    assert (tape.captures, tape.replays) == (2, 15)
    other = trained(recipe, None)  # nothing changes
    assert learn.history.row["valid_loss"] != other.history.row["valid_loss"]


@pytest.mark.parametrize(
    "add",
    [
        lambda learn: learn.model[0].register_forward_hook(lambda *_: None),
        lambda learn: learn.model[1].register_full_backward_hook(lambda *_: None),
        lambda learn: learn.loss_func.register_forward_pre_hook(lambda *_: None),
    ],
)
def test_a_hook_makes_every_step_an_ordinary_one(add):
    learn, tape = both(RECIPE, add)
    assert tape.captures == 0
    assert learn.stepper.graph.notes[0].endswith("has a hook")


class Counts(Small):
    seen = 0

    def forward(self, x):
        self.seen += self.training
        return super().forward(x) * (1 + 0.1 * self.seen)


class Remembers(Small):
    shape = None

    def forward(self, x):
        self.shape, self.last = x.shape, x.detach()
        return super().forward(x)


def test_a_net_that_counts_its_steps_is_not_captured_one_that_notes_a_shape_is():
    learn, tape = both(replace(RECIPE, model=FromScratch(net=Counts)))
    assert tape.replays == 0
    assert learn.stepper.graph.notes == ["the training step changes the net's seen in Python"]
    _, tape = both(replace(RECIPE, model=FromScratch(net=Remembers)))
    assert (tape.captures, tape.replays) == (1, 10)


def test_after_a_failed_capture_of_cuda_this_process_captures_no_more():
    class Failed(Tape):
        unusable = "a capture failed in this process; a new one can capture"

    learn, tape = trained(RECIPE, Failed()), Failed()
    assert learn.stepper.graph.notes == [Failed.unusable]
    with pytest.raises(ValueError, match=r"graph='on' needs .*, but a capture failed in this"):
        trained(RECIPE, tape, graph="on")
    assert tape.captures == 0


def test_callback_that_comes_in_between_ends_the_replays():
    class Adds(Callback):
        def after_epoch(self):
            if self.learn.epoch == 0:
                self.learn.add_cb(Watches())

    learn, tape = both(RECIPE, lambda learn: learn.add_cb(Adds()))
    assert tape.replays == 5
    assert learn.stepper.graph.notes == [WATCHED]


def test_insisting_makes_an_obstacle_an_error():
    watched = replace(RECIPE, schedule=(Constant(epochs=1, lr=0.02, callbacks=(Watches,)),))
    with pytest.raises(
        ValueError, match=r"graph='on' .* but Watches acts within the training step"
    ):
        trained(watched, Tape(), graph="on")
    with pytest.raises(ValueError, match="graph='on' needs a CUDA device, got 'cpu'"):
        Stepper(Step(graph="on"), CPU)
    with pytest.raises(ValueError, match="but capturing the training step failed: no memory"):
        trained(RECIPE, Tape(fails=RuntimeError("no memory")), graph="on")


def test_capture_that_fails_leaves_an_ordinary_training(capsys):
    def say(learn):
        learn.epoch_lines.bar.stream = __import__("sys").stdout

    tape = Tape(fails=RuntimeError("no\n memory"))
    learn = trained(RECIPE, tape, prepare=say)
    assert_equal(learn, trained(RECIPE, None))
    assert (tape.captures, tape.replays) == (1, 0)
    assert learn.stepper.used(learn)["graph_notes"] == [
        "capturing the training step failed: no memory"
    ]
    assert "no CUDA graph: capturing the training step failed: no memory" in capsys.readouterr().out


class Reads(Small):
    def forward(self, x):
        return super().forward(x) * float(x.mean() > -100)


class Draws(Small):
    def forward(self, x):
        return super().forward(x) * (1 + random.random() + np.random.rand())


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (Reads, "capturing the training step failed: the program waits for the device"),
        (Draws, "the training step draws random numbers that are not the device's"),
    ],
)
def test_nets_that_need_python_are_not_captured(net, reason):
    learn, tape = both(replace(RECIPE, model=FromScratch(net=net)))
    assert tape.replays == 0
    assert learn.stepper.graph.notes == [reason]


def test_callbacks_get_what_belongs_to_each_step():
    class Keeps(Callback):
        def __init__(self):
            self.kept = []

        def after_batch(self):
            learn = self.learn
            if learn.training:
                self.kept.append((learn.iter, learn.pred, learn.loss, learn.yb[0].clone()))
                assert learn.xb[0].shape == (8, 3, 8, 8)
                assert all(p.grad is None for p in learn.model.parameters())

    kept = []
    for backend in (None, Tape()):
        keeps = Keeps()
        trained(RECIPE, backend, prepare=lambda learn, keeps=keeps: learn.add_cb(keeps))
        kept.append(keeps.kept)
    assert len(kept[0]) == 10
    for one, other in zip(*kept, strict=True):
        assert one[0] == other[0]
        assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))


class Stops(Callback):
    order = 200  # behind the checkpoint

    def after_epoch(self):
        if self.learn.epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", [SGD(), AdamW()], ids=["sgd", "adamw"])
def test_stopped_training_goes_on_with_replays_of_what_it_had(optimizer, tmp_path):
    stage = Linear(epochs=4, lr=0.02, callbacks=(FreezeFirst(after=2),))
    recipe = replace(RECIPE, optimizer=optimizer, schedule=(stage,))
    whole = trained(recipe, None)
    file = tmp_path / "last.ckpt"
    with pytest.raises(KeyboardInterrupt):
        trained(recipe, Tape(), prepare=lambda learn: learn.add_cbs([Checkpoint(file), Stops()]))
    found = read(file)

    def go_on(learn):
        prepare(learn, found, 1)
        learn.add_cb(Checkpoint(file, found))

    tape = Tape()
    resumed = trained(recipe, tape, prepare=go_on)
    assert_equal(resumed, whole)
    # The first layer rests by then: the capture that comes first is of that.
    assert (tape.captures, tape.replays) == (1, 10)


def test_what_an_ordinary_step_leaves_is_gone_before_a_capture():
    # Nothing validates, so that the last batch was one of training.
    recipe = replace(RECIPE, data=replace(IMAGES, test_validates=False))
    left = []

    class Looking(Tape):
        def warm_up(self, program):
            left.append((captured.pred, captured.loss_grad, captured.loss.grad_fn))
            super().warm_up(program)

    captured = learner(recipe, device="cpu")
    Constant(epochs=1, lr=0.01)(captured)
    assert captured.loss_grad.grad_fn is not None
    captured.stepper = Stepper(Step(graph="try"), CPU, backend=Looking())
    Constant(epochs=1, lr=0.01)(captured)
    assert left == [(None, None, None)]


def test_capturing_anew_within_an_epoch_is_warm_up_and_no_training(monkeypatch):
    late = [0.0]
    now = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: now() + late[0])

    class Slow(Tape):
        def warm_up(self, program):
            super().warm_up(program)
            late[0] += 1000.0

    stage = Linear(epochs=3, lr=0.02, callbacks=(FreezeFirst(after=2),))
    learn = trained(replace(RECIPE, schedule=(stage,)), Slow())
    assert learn.stepper.graph.backend.captures == 2
    assert 2000 < learn.stepper.warmup_seconds < 2500
    for row in learn.history.rows:
        assert 0 < row["seconds"] < 500
        assert row["images_per_second"] > 1


def test_capture_that_fails_holds_on_to_nothing():
    made = []

    class Failing(Tape):
        def capture(self, program):
            outputs = program()
            made.append(weakref.ref(outputs.loss))
            raise RuntimeError("it waits")

    gc.disable()
    try:
        learn = trained(RECIPE, Failing())
        assert learn.stepper.graph.notes == ["capturing the training step failed: it waits"]
        assert [each() for each in made] == [None]
    finally:
        gc.enable()


def test_warm_up_that_fails_is_waited_for(monkeypatch):
    """What puts the weights back comes after the steps that were begun on the other stream."""
    said = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            said.append(f"{self.name} waits for {other.name}")

    ours = Stream("ours")
    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: Stream("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: ours)
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: nullcontext())
    monkeypatch.setattr(capture, "_waiting_forbidden", nullcontext)

    def program():
        said.append("step")
        if said.count("step") == 3:
            raise RuntimeError("it waits")

    with pytest.raises(RuntimeError, match="it waits"):
        capture.CudaGraphs(torch.device("cuda")).warm_up(program)
    assert said == ["side waits for ours", "step", "step", "step", "ours waits for side"]


def test_failed_capture_is_remembered_in_the_process(monkeypatch):
    """Random numbers come back through a small capture, the allocator only in a new process."""
    recorded = []

    class Graph:
        replay = None

    def record(self, graph, program):
        recorded.append(graph)
        if len(recorded) == 1:
            raise RuntimeError("it waits")

    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda _: None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(capture.CudaGraphs, "_record", record)
    monkeypatch.setattr(capture.CudaGraphs, "unusable", None)
    graphs = capture.CudaGraphs(torch.device("cuda"))
    with pytest.raises(RuntimeError, match="it waits"):
        graphs.capture(lambda: None)
    assert len(recorded) == 2
    assert capture.CudaGraphs(torch.device("cuda")).unusable.startswith("a capture failed")


def test_what_was_captured_is_let_go_after_a_fit():
    learn = trained(RECIPE, Tape())
    assert learn.stepper.graph.replay is None
    assert learn.stepper.graph.inputs == ()
    assert learn.stepper.graph.backend.waits == 1


def test_feed_cuts_batches_in_two_and_makes_the_loaders_own():
    dls = IMAGES(CPU)
    for augments, gathers in ((True, True), (True, False), (False, False)):
        feed = Feed(dls.train, CPU)
        feed.augments, feed.gathers = augments, gathers
        made = []
        for source in (dls.train, feed):
            torch.manual_seed(0)
            random.seed(0)
            dls.train.rng = random.Random(0)
            batches = [b if source is dls.train else feed.make(*b) for b in source]
            made.append(batches)
        assert len(made[0]) == len(made[1]) == 5
        for one, other in zip(*made, strict=True):
            assert type(other[0]) is torch.Tensor
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_follows_the_epoch_is_seen_inside_of_a_composition():
    assert follows_epoch(compose([HorizontalFlip(), Darker()]))
    assert not follows_epoch(compose([HorizontalFlip(), AlternatingFlip()]))
    assert not follows_epoch(compose([HorizontalFlip(), Rotation(degrees=3), Rotation(degrees=3)]))
