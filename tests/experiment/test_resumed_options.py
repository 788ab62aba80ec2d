"""Balanced sampling, class weights, EMA, accumulation and sizes: stopped and resumed to the bit."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fastcv.augment import HorizontalFlip, MixUp
from fastcv.data import Images, LongTail, Toy
from fastcv.experiment.results import Results
from fastcv.experiment.train import train
from fastcv.learning import (
    EMA,
    AdamW,
    CrossEntropy,
    EarlyStop,
    FreezeFirst,
    FromScratch,
    OneCycle,
    WithSize,
    worst_class_recall,
)
from fastcv.learning.callbacks.checkpoint import Checkpoint
from fastcv.recipe import Recipe


class Small(nn.Sequential):
    def __init__(self, *, classes, channels, size):
        body = (nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))
        super().__init__(nn.Sequential(*body), nn.Sequential(*head))


# 30 images in batches of 8, the last one of 6; two batches a step.
STAGE = OneCycle(epochs=2, lr=0.02, accumulate=3)
RECIPE = Recipe(
    data=Images(
        source=LongTail(source=Toy(classes=4, size=12, train=16, valid=3, test=3), ratio=8),
        size=12,
        batch_size=8,
        drop_last=False,
        balance=0.5,
        augment=(HorizontalFlip(), MixUp()),
    ),
    model=FromScratch(net=Small),
    optimizer=AdamW(),
    loss=CrossEntropy(weights="balanced", label_smoothing=0.1),
    schedule=(
        WithSize(stage=replace(STAGE, callbacks=(FreezeFirst(after=1),)), size=8),
        replace(STAGE, early_stop=EarlyStop(monitor="valid_worst_class_recall")),
    ),
    callbacks=(EMA(decay=0.8),),
    metrics=(worst_class_recall,),
    precision="bf16",
    name="options_toy",
)


class Stop(Exception):
    pass


def test_a_run_with_every_option_resumes_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    settings = {"wandb": "off", "device": "cpu", "write": lambda line: None}
    whole = train(RECIPE, out=tmp_path / "whole", **settings)
    after_epoch = Checkpoint.after_epoch
    for done in (1, 2, 3):  # within the first stage, between the two, within the second
        written = []

        def stop(self, done=done, written=written):
            after_epoch(self)
            written.append(self.path.parent)
            if len(written) == done:
                raise Stop(f"after {done} epochs")

        with monkeypatch.context() as patched:
            patched.setattr(Checkpoint, "after_epoch", stop)
            with pytest.raises(Stop):
                train(RECIPE, out=tmp_path / "stopped", **settings)
        resumed = train(RECIPE, resume=written[-1], **settings)
        assert resumed.steps == whole.steps
        aside = ("seconds", "images_per_second")
        for row, also in zip(resumed.metrics, whole.metrics, strict=True):
            assert {k: v for k, v in row.items() if k not in aside} == {
                k: v for k, v in also.items() if k not in aside
            }
        ours, theirs = (load_file(run.path / "model.safetensors") for run in (resumed, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert whole.summary["valid_worst_class_recall"] == pytest.approx(
        max(row["valid_worst_class_recall"] for row in whole.metrics[2:])
    )
