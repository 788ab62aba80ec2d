"""What several ranks train, started by torchrun; and what one process trains, to compare with."""

import json
import os
import signal
import sys
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.metrics import BalancedAccuracy
from sklearn.metrics import f1_score
from torch.nn import functional as F

from fastcv import nets, ranks
from fastcv.augment import Affine, CutMix, MixUp, RandomErasing
from fastcv.augment.part import part_of
from fastcv.experiment.results import Results
from fastcv.experiment.train import train
from fastcv.learning import (
    EMA,
    TTA,
    Constant,
    EarlyStop,
    FreezeFirst,
    FromScratch,
    Muon,
    OneCycle,
)
from fastcv.learning.callbacks import checkpoint
from fastcv.learning.parallel import Parallel, share
from fastcv.recipes.digits import recipe as digits


def darker(x):
    """An augmentation of one's own, which knows of no ranks."""
    return x * (0.5 + torch.rand(len(x), 1, 1, 1) / 2)


@dataclass(frozen=True, kw_only=True)
class Halves(FromScratch):
    """A net whose head can train alone."""

    def __call__(self, dls, **keywords):
        def halves(net):
            return [list(child.parameters()) for child in net.children()]

        return super().__call__(dls, splitter=halves, **keywords)


# 70 images in batches of 23: the last one has a single image, and the last one of validation too.
data = replace(digits.data, train_per_class=7, batch_size=23, valid_batch_size=358)
digits = replace(digits, data=data, precision="fp32")  # the same on every processor
moved = (Affine(degrees=10, translate=(0.1, 0.1)), RandomErasing(value="random"))

RECIPES = {
    "mixed": replace(
        digits,
        data=replace(data, augment=(*moved, MixUp(), CutMix())),
        schedule=(
            OneCycle(epochs=2, lr=3e-3, clip=1.0, accumulate=2, callbacks=(EMA(decay=0.9),)),
        ),
    ),
    "found": replace(
        digits,
        data=replace(data, augment=(darker,)),
        optimizer=Muon(),
        schedule=(
            Constant(epochs=2, lr=1e-3, early_stop=EarlyStop(), callbacks=(FreezeFirst(after=1),)),
            OneCycle(epochs=1, lr="valley", callbacks=(TTA(),)),
        ),
        metrics=(BalancedAccuracy, partial(f1_score, average="macro")),
    ),
    "head": replace(
        digits,
        model=Halves(net=nets.MnistCNN),
        callbacks=(partial(SaveModelCallback, monitor="valid_loss"),),
        schedule=(Constant(epochs=2, lr=1e-2, frozen=1),),
    ),
    "uncached": replace(
        digits,
        data=replace(data, cache="off", augment=moved[1:], train_per_class=3),
        schedule=(Constant(epochs=1, lr=1e-2),),
    ),
}
LONG = replace(digits, schedule=(OneCycle(epochs=3, lr=3e-3),), name="killed")


class Kill(Callback):
    """Kill the second rank within an epoch, the first time that it is started."""

    order = 101  # after the checkpoint

    def after_batch(self):
        again = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
        if self.training and self.epoch == 1 and self.iter == 2 and not again and ranks.rank():
            os.kill(os.getpid(), signal.SIGKILL)


def trained(name, recipe, out, **options):
    options = {"wandb": "off", "device": "cpu", "write": lambda line: None} | options
    return train(replace(recipe, name=name), out=out, **options)


def light():
    torch.manual_seed(0)
    return nets.LightResNet(classes=10, channels=1).double()


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(13, 1, 8, 8, generator=generator).double(), torch.arange(13) % 10


def synchronized():
    """Return the largest relative difference of a gradient from one process's."""
    whole, (x, y) = light(), batch()
    F.cross_entropy(whole(x), y).backward()
    with ranks.joined("cpu"):
        net, part = light(), part_of(len(x))
        share(net, sync_batch_norm=True)
        parallel = Parallel(net, net)
        loss = F.cross_entropy(parallel(part, 0, part.of(x)), part.of(y))
        (loss * part.own * ranks.count() / part.count).backward()
    grads = [(a.grad, b.grad) for a, b in zip(whole.parameters(), net.parameters(), strict=True)]
    statistics = zip(whole.buffers(), net.buffers(), strict=True)
    return {
        "gradients": max(float((a - b).abs().max() / a.abs().max()) for a, b in grads),
        "statistics": max(float((a - b).abs().max()) for a, b in statistics),
    }


def main(out):
    """Train everything; the second attempt goes on where the first one was killed."""
    for name, recipe in RECIPES.items():
        trained(name, recipe, out / "ranks")
    found = synchronized()
    trained("killed", LONG, out / "whole")
    often = {"checkpoint_every": 1e-9, "keep_checkpoint": True}
    killing = replace(LONG, callbacks=(Kill,))
    lines = []
    run = trained("killed", killing, out / "stopped", **often, write=lines.append)
    if ranks.own() == 0:
        found |= {"lines": lines, "run": str(run.path)}
        (out / "found.json").write_text(json.dumps(found))
    else:
        print("the second rank is done")


def undrawn(patch):
    """Leave figures out, and let ranks agree often, until `patch` is undone."""
    patch.setattr(Results, "_draw", lambda self: None)
    patch.setattr(checkpoint, "AGREE_EVERY", 2)


if __name__ == "__main__":
    warnings.filterwarnings("error", category=FutureWarning, module="fastcv")
    torch.set_num_threads(1)
    undrawn(pytest.MonkeyPatch())
    main(Path(sys.argv[1]))
