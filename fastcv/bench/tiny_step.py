"""The overhead of a step: three loops around a net that is almost no work."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from fastcv.bench.equivalents import fastai_optimizer
from fastcv.bench.parts import BareTraining, FastTraining
from fastcv.bench.rounds import Clock, Contenders
from fastcv.bench.stock_fastai import StockTraining
from fastcv.bench.synthetic import Synthetic
from fastcv.experiment.building import learner
from fastcv.learning.losses import CrossEntropy
from fastcv.learning.models import FromScratch
from fastcv.learning.optimizers import SGD
from fastcv.recipe.values import Recipe


class TinyNet(nn.Sequential):
    """Two strided convolutions with BatchNorm and a linear head: 1,610 parameters with 10 classes.

    Shape:
        x: (B, channels, H, W).
        returns: (B, classes).
    """

    def __init__(self, *, classes: int, channels: int, size: int):
        super().__init__(
            nn.Conv2d(channels, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, classes),
        )


# fp32 on any machine: with bf16, casting would count as the loop's work.
RECIPE = Recipe(
    data=Synthetic(shape=(3, 8, 8), classes=10, batch_size=16),
    model=FromScratch(net=TinyNet),
    optimizer=SGD(momentum=0.9),
    loss=CrossEntropy(),
    schedule=(),
    precision="fp32",
    name="tiny_step",
)


def contenders(device: torch.device, seconds: float) -> Contenders:
    """Build the three loops; each measures microseconds a step, for some seconds in a round.

    All have the same net, batches and loss. "bare" and "fastcv" use torch's fused SGD,
    "stock_fastai" fastai's. Both Learners have all their callbacks and a one-cycle schedule.
    """
    loops = {
        "bare": BareTraining(learner(RECIPE, device=device), nn.CrossEntropyLoss()),
        "stock_fastai": StockTraining(
            RECIPE.data(device),
            learner(RECIPE, device=device).model,
            nn.CrossEntropyLoss(),
            fastai_optimizer(RECIPE.optimizer),
        ),
        "fastcv": FastTraining(learner(RECIPE, device=device)),
    }
    return {
        name: partial(_microseconds, run, Clock(device, seconds)) for name, run in loops.items()
    }


def _microseconds(run: Callable[[Clock], None], clock: Clock) -> float:
    return RECIPE.data.batch_size / clock.measure(run) * 1e6
