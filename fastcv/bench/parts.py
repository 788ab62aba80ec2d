"""fastcv, fastcv without each of its parts, and its step alone."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from fastai.data.core import DataLoaders
from torch import nn

from fastcv.bench.rounds import Clock, Stopwatch
from fastcv.bench.stock_fastai import EPOCHS, RATE
from fastcv.experiment.building import learner
from fastcv.learning.learner import Learner
from fastcv.learning.stages.schedules import OneCycle
from fastcv.recipe.values import Recipe
from fastcv.terminal import Bar


class Terminal(io.StringIO):
    """A stream that poses as a terminal, so that the progress bar does its work."""

    def isatty(self) -> bool:
        """Return True: bars are drawn here."""
        return True


class FastTraining:
    """A recipe's Learner, all its callbacks and its progress bar, in one cycle over all layers."""

    def __init__(self, learn: Learner):
        self.learn = learn
        learn.epoch_lines.bar = Bar(Terminal())

    def __call__(self, clock: Clock) -> None:
        """Train until the round is over."""
        with self.learn.added_cbs(Stopwatch(clock)):
            # A momentum that moves would keep the optimizer out of a CUDA graph.
            OneCycle(epochs=EPOCHS, lr=RATE, momenta=None)(self.learn)


class BareTraining:
    """The upper limit on this hardware: fastcv's step alone, on batches already on the device.

    Net, optimizer, precision, memory layout and compilation are those of a recipe's Learner, whose
    data are `Synthetic`; its net is trained in place. Python launches every kernel;
    `captured.CapturedTraining` is the limit with a CUDA graph.
    """

    def __init__(self, learn: Learner, loss: nn.Module):
        learn.create_opt()
        learn("before_fit")  # places the net and sets its memory layout, as a fit does
        self.net, self.loss = learn.model, loss
        self.forward = learn.stepper.net(learn)
        self.optimizer = learn.opt.opt
        for group in self.optimizer.param_groups:
            group["lr"] = RATE
        self.batches = learn.dls.train.dataset
        self.precision = learn.precision

    def __call__(self, clock: Clock) -> None:
        """Train until the round is over."""
        self.net.train()
        for x, y in clock.batches(self.batches):
            with self.precision.scope(x.device):
                logits = self.forward(x)
            self.loss(logits.float(), y).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part that makes fastcv fast, and how to switch it off."""

    name: str  # the contender is called "without_NAME"
    says: str  # what the part does, for the table
    used: Callable[[Recipe, Learner], bool]  # whether the Learner uses it on this machine
    off: Callable[[Recipe], Recipe]  # the recipe without it


def stepping(recipe: Recipe, **settings: object) -> Recipe:
    """Return the recipe with other settings of its step."""
    return replace(recipe, step=replace(recipe.step, **settings))


PARTS = (
    Part(
        name="cache",
        says="images decoded once, batches gathered whole",
        used=lambda recipe, learn: recipe.data.cache != "off",
        off=lambda recipe: replace(recipe, data=replace(recipe.data, cache="off")),
    ),
    Part(
        name="bf16",
        says="bf16 autocast, else fp32",
        used=lambda recipe, learn: learn.precision.precision == "bf16",
        off=lambda recipe: replace(recipe, precision="fp32"),
    ),
    Part(
        name="channels_last",
        says="channels-last images and weights, else channels first",
        used=lambda recipe, learn: recipe.step.channels_last,
        off=lambda recipe: stepping(recipe, channels_last=False),
    ),
    Part(
        name="fused_optimizer",
        says="one fused optimizer step, else torch's default",
        used=lambda recipe, learn: recipe.optimizer.fused,
        off=lambda recipe: replace(recipe, optimizer=replace(recipe.optimizer, fused=False)),
    ),
    Part(
        name="compile",
        says="net compiled, else its layers one by one",
        used=lambda recipe, learn: recipe.step.compile,
        off=lambda recipe: stepping(recipe, compile=False),
    ),
    Part(
        name="graph",
        says="steps replayed from a CUDA graph, else launched by Python",
        used=lambda recipe, learn: learn.stepper.graph is not None,
        off=lambda recipe: stepping(recipe, graph="off"),
    ),
)


@dataclass(frozen=True)
class Built:
    """Loaders as a recipe's data: building them again would hold the images in memory twice."""

    dls: DataLoaders

    def __call__(self, device: torch.device | None = None) -> DataLoaders:
        """Return the loaders."""
        return self.dls


def without(recipe: Recipe, learn: Learner, device: torch.device) -> dict[str, Learner]:
    """Build a Learner without each part that the recipe's `learn` uses, by the contender's name."""
    learners = {}
    for part in PARTS:
        if part.used(recipe, learn):
            lesser = part.off(recipe)
            if lesser.data == recipe.data:
                lesser = replace(lesser, data=Built(learn.dls))
            learners[f"without_{part.name}"] = learner(lesser, device=device)
    return learners
