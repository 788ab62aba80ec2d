"""Checkpoints within an epoch: a run that goes on from one ends with the bits of one that did not.

The oracle is a run that was never stopped.
"""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fastcv import interruption
from fastcv.augment import ColorJitter, MixUp, RandomCrop
from fastcv.experiment.directory import Run
from fastcv.experiment.results import Results
from fastcv.experiment.train import train
from fastcv.interruption import Checkpointed
from fastcv.learning import SGD, EarlyStop, OneCycle, Plateau
from fastcv.learning.callbacks.checkpoint import Checkpoint
from fastcv.recipes.digits import recipe as digits

DATA = replace(
    digits.data,
    train_per_class=24,
    batch_size=16,
    augment=(RandomCrop(padding=1), ColorJitter(brightness=0.2), MixUp()),
)
RECIPES = {
    "adamw": replace(digits, data=DATA, schedule=(OneCycle(epochs=2, lr=3e-3),)),
    "decoding": replace(  # image by image, in fastai's way
        digits,
        data=replace(DATA, cache="off", augment=DATA.augment[:1]),
        optimizer=SGD(),
        schedule=(Plateau(epochs=2, lr=0.05, early_stop=EarlyStop(monitor="train_loss")),),
    ),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    yield
    interruption._asked.clear()


def stopped(recipe, out, batch):
    """A run that a signal stops after some batches of all epochs."""
    seen = 0
    after_batch = Checkpoint.after_batch

    def counted(self):
        nonlocal seen
        seen += self.learn.fitting and not self.learn.borrowed
        if seen == batch:
            interruption.ask()
        after_batch(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "after_batch", counted)
        with pytest.raises(Checkpointed):
            train(recipe, out=out, wandb="off", device="cpu", write=lambda line: None)
    interruption._asked.clear()
    (path,) = (out / "digits").iterdir()
    return Run(path)


@pytest.mark.parametrize(  # of 15 batches an epoch
    ("name", "batch"), [("adamw", 1), ("adamw", 7), ("adamw", 20), ("adamw", 29), ("decoding", 20)]
)
def test_a_run_stopped_within_an_epoch_goes_on_to_the_same_bits(tmp_path, name, batch, whole):
    recipe = RECIPES[name]
    run = stopped(recipe, tmp_path, batch)
    assert len(run.metrics) == batch // 15
    assert not (run.path / ".lock").exists()
    resumed = train(run.recipe, resume=run, wandb="off", device="cpu", write=lambda line: None)
    expected = whole(recipe)
    assert resumed.steps == expected.steps
    timed = ("seconds", "images_per_second")
    for ours, theirs in zip(resumed.metrics, expected.metrics, strict=True):
        assert {k: v for k, v in ours.items() if k not in timed} == {
            k: v for k, v in theirs.items() if k not in timed
        }
    ours, theirs = (load_file(each.path / "model.safetensors") for each in (resumed, expected))
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that were never stopped, each trained once."""
    known = {}

    def get(recipe):
        key = recipe.data.cache
        if key not in known:
            out = tmp_path_factory.mktemp("whole")
            known[key] = train(recipe, out=out, wandb="off", device="cpu", write=lambda line: None)
        return known[key]

    return get


def test_a_checkpoint_is_due_after_some_minutes_and_not_while_a_gradient_waits(
    tmp_path, monkeypatch
):
    from functools import partial

    from fastai.callback.training import GradientAccumulation

    written = []
    write = Checkpoint._write

    def noted(self, epochs, running, asked):
        written.append(running.get("batch"))
        write(self, epochs, running, asked)

    monkeypatch.setattr(Checkpoint, "_write", noted)
    stage = replace(RECIPES["adamw"].schedule[0], epochs=1)
    recipe = replace(
        RECIPES["adamw"],
        schedule=(stage,),
        callbacks=(partial(GradientAccumulation, n_acc=32),),  # every other batch has a step
    )
    options = {"out": tmp_path, "wandb": "off", "device": "cpu", "write": lambda line: None}
    train(recipe, checkpoint_every=1e-9, **options)
    assert written == [2, 4, 6, 8, 10, 12, 14, None]
    written.clear()
    train(recipe, **options)
    assert written == [None]
