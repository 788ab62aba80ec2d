"""Callbacks of a stage and of a recipe: fastai's own, in real trainings on toy images."""

import csv
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation
from fastai.metrics import error_rate
from tape import Tape
from torch import nn

from fastcv.augment import HorizontalFlip
from fastcv.data import Toy
from fastcv.data.images import Images
from fastcv.experiment.building import learner
from fastcv.experiment.results import Results
from fastcv.experiment.train import train
from fastcv.learning import SGD, TTA, Constant, CrossEntropy, FreezeFirst, FromScratch
from fastcv.learning.callbacks.checkpoint import Checkpoint
from fastcv.learning.cuda_graph import stepper as stepper_module
from fastcv.learning.cuda_graph.stepper import Stepper
from fastcv.recipe import Recipe, flat, override, unflat
from fastcv.recipe.values import Step


class Net(nn.Sequential):
    def __init__(self, *, classes, channels, size):
        super().__init__(nn.Flatten(), nn.Linear(channels * size**2, classes))


# 32 images in batches of 8: four steps an epoch.
RECIPE = Recipe(
    data=Images(
        source=Toy(classes=2, size=8, train=16, test=5),
        size=8,
        batch_size=8,
        augment=(HorizontalFlip(),),
    ),
    model=FromScratch(net=Net),
    optimizer=SGD(momentum=0.0),
    loss=CrossEntropy(),
    schedule=(Constant(epochs=3, lr=0.01),),
    precision="fp32",
    name="callbacks_toy",
)


def with_callbacks(*callbacks, **changes):
    return replace(RECIPE, schedule=(replace(RECIPE.schedule[0], callbacks=callbacks, **changes),))


def fitted(recipe):
    learn = learner(recipe, device="cpu")
    for stage in recipe.schedule:
        stage(learn)
    return learn


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train a recipe into a run directory, without its figures."""
    monkeypatch.setattr(Results, "_draw", lambda self: None)

    def run(recipe, **options):
        return train(recipe, out=tmp_path / "runs", wandb="off", device="cpu", **options)

    return run


def scripted(monkeypatch, losses):
    """Have fastai's Recorder see these validation losses, epoch by epoch."""
    from fastcv.learning.callbacks.recorder import Recorder

    after_epoch = Recorder.after_epoch

    def scripted_after_epoch(self):
        after_epoch(self)
        if self.learn.fitting:
            self.values[-1][1] = losses[len(self.learn.history.rows)]

    monkeypatch.setattr(Recorder, "after_epoch", scripted_after_epoch)


def test_saved_model_is_the_best_epochs_and_the_summary_is_its_row(trained, monkeypatch):
    scripted(monkeypatch, [0.9, 0.1, 0.5])
    recipe = with_callbacks(partial(SaveModelCallback, monitor="valid_loss"))
    run = trained(recipe, keep_checkpoint=True)
    best, last = run.metrics[1], run.metrics[2]
    assert run.summary["train_loss"] == pytest.approx(best["train_loss"])
    assert run.summary["train_loss"] != pytest.approx(last["train_loss"])
    assert run.summary["valid_loss"] == pytest.approx(best["valid_loss"], rel=1e-4)
    saved = torch.load(run.path / "models" / "model.pth", weights_only=True)
    kept = torch.load(run.path / "last.ckpt", weights_only=True)["model"]
    assert not torch.equal(saved["1.weight"], kept["1.weight"])


def test_fastais_early_stopping_ends_its_stage_and_no_other(trained, monkeypatch, capsys):
    scripted(monkeypatch, [0.1, 0.5, 0.5, 0.5, 0.5])
    stopping = partial(EarlyStoppingCallback, monitor="valid_loss", patience=2)
    recipe = with_callbacks(stopping, epochs=9)
    recipe = replace(recipe, schedule=(*recipe.schedule, Constant(epochs=1, lr=0.01)))
    run = trained(recipe)
    assert [row["stage"] for row in run.metrics] == [0, 0, 0, 1]
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("epoch") for line in lines) == 4
    assert any("early stopping" in line for line in lines)


def test_csv_logger_writes_a_row_an_epoch_into_the_run_directory(trained):
    # The metric has the run validate once more at its end, which must not empty the file.
    run = trained(replace(RECIPE, callbacks=(CSVLogger,), metrics=(error_rate,)))
    with (run.path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    for name, column in (("valid_loss", "valid_loss"), ("error_rate", "valid_error_rate")):
        found = [float(row[name]) for row in rows]
        assert found == pytest.approx([row[column] for row in run.metrics])


def test_gradient_accumulation_steps_as_with_one_large_batch():
    data = replace(RECIPE.data, augment=())
    few = replace(with_callbacks(partial(GradientAccumulation, n_acc=32)), data=data)
    whole = replace(RECIPE, data=replace(data, batch_size=32))
    accumulated, at_once = fitted(few), fitted(whole)
    torch.testing.assert_close(
        accumulated.model.state_dict(), at_once.model.state_dict(), rtol=1e-4, atol=1e-6
    )
    assert accumulated.history.row["train_loss"] == pytest.approx(
        at_once.history.row["train_loss"], rel=1e-4
    )


@pytest.mark.parametrize("mix", [MixUp, CutMix])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fastais_mixing_trains_on_both_labels(mix, precision):
    class Looks(Callback):
        order = 100
        losses = ()

        def after_loss(self):
            if self.learn.training:
                mixer = getattr(self.learn, "mix_up", None) or self.learn.cut_mix
                loss = nn.CrossEntropyLoss(reduction="none")
                one, other = (loss(self.learn.pred, y[0]) for y in (self.learn.yb, mixer.yb1))
                expected = torch.lerp(other, one, mixer.lam).mean()
                self.losses += ((self.learn.loss.item(), expected.item()),)

    recipe = replace(with_callbacks(mix), precision=precision)
    learn = learner(recipe, device="cpu")
    looks = Looks()
    learn.add_cb(looks)
    loss_func = learn.loss_func
    recipe.schedule[0](learn)
    assert len(looks.losses) == 12
    for found, expected in looks.losses:
        assert found == pytest.approx(expected, rel=1e-5)
    assert learn.loss_func is loss_func
    assert learn.validate()[0] == pytest.approx(learn.history.row["valid_loss"])


def test_fastais_mixing_goes_with_a_compiled_net(monkeypatch):
    monkeypatch.setattr(stepper_module, "compiled", lambda net: lambda x: net(x))
    recipe = with_callbacks(MixUp)
    plain, compiled = (fitted(replace(recipe, step=Step(compile=each))) for each in (False, True))
    assert compiled.history.steps == plain.history.steps


class Counts(Callback):
    made = 0

    def __init__(self):
        type(self).made += 1
        self.fits = 0

    def before_fit(self):
        self.fits += 1


def test_a_stages_callbacks_are_fresh_and_a_recipes_stay(monkeypatch):
    monkeypatch.setattr(Counts, "made", 0)
    stage = Constant(epochs=1, lr=0.01)
    learn = fitted(replace(RECIPE, callbacks=(Counts,), schedule=(stage, stage)))
    assert (Counts.made, learn.counts.fits) == (1, 2)
    stage = replace(stage, callbacks=(Counts,))
    learn = fitted(replace(RECIPE, schedule=(stage, stage)))
    assert Counts.made == 3
    assert not hasattr(learn, "counts")


@pytest.mark.parametrize("make", [Constant, Recipe])
def test_an_instance_is_refused(make):
    sentence = r"since each stage starts with fresh ones, got an instance of CSVLogger: give CSVLog"
    recipe = {"data": None, "model": None, "schedule": (), "optimizer": None, "loss": None}
    settings = recipe if make is Recipe else {"epochs": 1, "lr": 0.1}
    with pytest.raises(ValueError, match=sentence):
        make(**settings, callbacks=(CSVLogger(),))
    with pytest.raises(ValueError, match=r"must be a tuple, as callbacks=\(\.\.\., \), got <class"):
        make(**settings, callbacks=CSVLogger)
    with pytest.raises(ValueError, match="values that can be called, got 3"):
        make(**settings, callbacks=(3,))


def needs(one):
    """Stand in for a callback that was not bound to its arguments."""


@pytest.mark.parametrize(
    ("callback", "sentence"),
    [
        (needs, r"without arguments, got <function needs .*: bind its arguments with functools"),
        (dict, "must return a fastai Callback when it is called, got a dict from <class 'dict'>"),
    ],
)
def test_what_builds_no_callback_is_refused(callback, sentence):
    with pytest.raises(ValueError, match=sentence):
        fitted(with_callbacks(callback))


@pytest.mark.parametrize("monitor", ["valid_accuracy", "train_accuracy"])
def test_a_monitor_that_fastai_does_not_record_is_refused(monitor):
    sentence = f"monitor must be one of train_loss, valid_loss, accuracy, got '{monitor}'"
    with pytest.raises(ValueError, match=sentence):
        fitted(with_callbacks(partial(SaveModelCallback, monitor=monitor)))


def test_a_fastai_monitor_without_validation_images_is_refused():
    recipe = replace(with_callbacks(EarlyStoppingCallback), data=replace(RECIPE.data))
    recipe = replace(recipe, data=replace(recipe.data, test_validates=False))
    with pytest.raises(ValueError, match="must be one of train_loss, got 'valid_loss'"):
        fitted(recipe)


@pytest.mark.parametrize(
    "callback",
    [
        CSVLogger,
        partial(SaveModelCallback, monitor="valid_loss"),
        FreezeFirst(after=2),
        TTA(shift=2),
    ],
)
def test_callbacks_are_written_and_read_again(callback):
    recipe = replace(with_callbacks(callback), callbacks=(callback,))
    values = flat(recipe)
    assert unflat(values, trust=True) == recipe
    assert flat(unflat(values, trust=True)) == values


def test_callbacks_are_set_by_name():
    stage = RECIPE.schedule[0]
    recipe = override(RECIPE, "schedule.0.callbacks=FreezeFirst(after=2)")
    assert recipe.schedule == (replace(stage, callbacks=(FreezeFirst(after=2),)),)
    recipe = override(RECIPE, "schedule.0.callbacks=FreezeFirst(after=2), TTA")
    assert recipe.schedule[0].callbacks == (FreezeFirst(after=2), TTA())
    recipe = override(recipe, "schedule.0.callbacks.0.after=1", "schedule.0.callbacks.1.shift=0")
    assert recipe.schedule[0].callbacks == (FreezeFirst(after=1), TTA(shift=0))
    assert override(recipe, "schedule.0.callbacks=()") == RECIPE
    recipe = override(RECIPE, "callbacks=fastai.callback.progress:CSVLogger")
    assert recipe.callbacks == (CSVLogger,)


def test_freezing_after_less_than_no_epoch_is_refused():
    with pytest.raises(ValueError, match="after must be at least 0, got -1"):
        FreezeFirst(after=-1)


def printed(recipe, capsys, backend):
    learn = learner(recipe, device="cpu")
    learn.stepper = Stepper(Step(graph="try"), torch.device("cpu"), backend=backend)
    for stage in recipe.schedule:
        stage(learn)
    return capsys.readouterr().out.splitlines()


def test_a_callback_that_keeps_steps_from_being_captured_is_named_once(capsys):
    accumulating = partial(GradientAccumulation, n_acc=16)
    stages = [
        replace(RECIPE.schedule[0], callbacks=each) for each in ((accumulating,), (), (MixUp,))
    ]
    lines = printed(replace(RECIPE, schedule=(stages[0], *stages)), capsys, Tape())
    assert [line for line in lines if line.startswith("no CUDA graph")] == [
        "no CUDA graph: GradientAccumulation acts within the training step, at after_loss",
        "no CUDA graph: MixUp may change the batch, at before_batch",
    ]


def test_callbacks_beside_the_step_leave_it_captured(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tape = Tape()
    recipe = with_callbacks(SaveModelCallback, EarlyStoppingCallback, CSVLogger, TTA())
    lines = printed(recipe, capsys, tape)
    assert not [line for line in lines if "no CUDA graph" in line]
    assert tape.replays % 4 == 0 < tape.replays


@dataclass(frozen=True, kw_only=True)
class Drifts:
    """A callback value of a user's own, with a state: it lowers the rate by what it remembers."""

    by: float = 0.5

    def __call__(self):
        return Drifting(self.by)


class Drifting(Callback):
    run_valid = False
    order = 60

    def __init__(self, by):
        self.by, self.factor = by, 1.0

    def before_epoch(self):
        self.learn.opt.opt.param_groups[-1]["lr"] = 0.01 * self.factor

    def after_epoch(self):
        self.factor *= self.by

    def state(self):
        return {"factor": self.factor}

    def restore(self, state):
        self.factor = state["factor"]


def test_a_resumed_stage_restores_its_callbacks(trained, monkeypatch, tmp_path):
    scripted(monkeypatch, [0.1, 0.2, 0.3, 0.4, 0.5])
    callbacks = Drifts(), SaveModelCallback, partial(EarlyStoppingCallback, patience=3)
    recipe = with_callbacks(*callbacks, epochs=9)
    whole = trained(recipe)
    assert len(whole.metrics) == 4
    assert [row["lr"] for row in whole.metrics] == [0.01, 0.005, 0.0025, 0.00125]
    after_epoch = Checkpoint.after_epoch

    def stop(self):
        after_epoch(self)
        if len(self.learn.history.rows) == 2:
            raise InterruptedError("after an epoch")

    monkeypatch.setattr(Checkpoint, "after_epoch", stop)
    with pytest.raises(InterruptedError):
        trained(recipe)
    monkeypatch.setattr(Checkpoint, "after_epoch", after_epoch)
    (stopped,) = [path.parent for path in tmp_path.rglob("last.ckpt") if path.parent != whole.path]
    resumed = trained(recipe, resume=stopped)
    assert resumed.steps == whole.steps
    assert resumed.summary["train_loss"] == whole.summary["train_loss"]
    assert resumed.summary["valid_loss"] == whole.summary["valid_loss"]
