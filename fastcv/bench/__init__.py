"""Measure how fast this machine trains a recipe: plain PyTorch, stock fastai, fastcv, its parts.

    fastcv bench light_resnet_cifar10 --json bench.json

All contenders train the same net on the same images with the same kinds of augmentation, in one
process and in interleaved rounds. `plain_pytorch`, `stock_fastai` and `parts` describe them.
"""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import default_device
from torch import nn

from fastcv.bench import captured, equivalents, memory, tiny_step
from fastcv.bench.captured import CapturedTraining
from fastcv.bench.parts import BareTraining, Built, FastTraining, stepping, without
from fastcv.bench.plain_pytorch import Pictures, PlainLoader, PlainTraining
from fastcv.bench.rounds import Clock, Contenders, drain, interleaved, median, quartiles
from fastcv.bench.stock_fastai import RATE, StockTraining, stock_loaders
from fastcv.bench.synthetic import Synthetic
from fastcv.bench.table import describe, lines
from fastcv.experiment.building import learner
from fastcv.learning import cuda
from fastcv.learning.learner import Learner
from fastcv.learning.losses import CrossEntropy
from fastcv.recipe.values import Recipe

__all__ = ["bench"]


def bench(
    recipe: Recipe,
    *,
    device: str | torch.device | None = None,
    rounds: int = 5,
    seconds_per_round: float = 3.0,
    images: int | None = None,
    peak_memory: bool = False,
    write: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure loaders, trainings, a step's overhead and the start, and print a table.

    All layers train, at a low constant or one-cycle rate, which does not change the speed.
    Validation, warm-up and the start of worker processes are not timed.

    Args:
        recipe: its data are `Images` with augmentation that torchvision and fastai also have.
        device: as in `fastcv.learner`.
        rounds: each contender is measured once in each round.
        seconds_per_round: timed seconds of each contender in a round.
        images: number of training images, about the same of each class; None for all.
        peak_memory: also compare the memory of two processes; it takes as long as loading an epoch.
        write: called with each line of the table.

    Returns:
        Medians. "loader" and "training": images per second by contender; "step": microseconds;
        "start": seconds; "brings": fastcv's speed relative to fastcv without a part; "spread": the
        quartiles of the first four; "memory": megabytes, with `peak_memory`; "graph", on a GPU:
        what `captured.compared` returns; "machine", and the numbers that describe the measurement.

    Raises:
        ValueError: the recipe has something that cannot be compared, or a number is too small.
    """
    if rounds < 1 or seconds_per_round <= 0:
        raise ValueError(
            f"rounds must be at least 1 and seconds_per_round above 0, got {rounds} and "
            f"{seconds_per_round}"
        )
    equivalents.check(recipe.data, recipe.optimizer)
    if isinstance(recipe.loss, CrossEntropy):  # weights cost nothing, and need images to count
        recipe = replace(recipe, loss=replace(recipe.loss, weights=None))
    device = torch.device(device) if device is not None else default_device()
    learn = learner(recipe, device=device)
    if images is not None:
        if images < 2 * learn.dls.c:
            raise ValueError(f"images must be at least two of each class, got {images}")
        few = replace(recipe.data, train_per_class=images // learn.dls.c)
        recipe = replace(recipe, data=few)
        learn = learner(recipe, device=device)

    loading, training = _contenders(recipe, learn, device, seconds_per_round, write)
    asked = {
        "loader": loading,
        "training": training,
        "step": tiny_step.contenders(device, seconds_per_round / 3),
        "start": {"fastcv": partial(_start, recipe, device)},
    }
    measured = {}
    for kind, contenders in asked.items():
        write(f"measuring {kind}, {rounds} rounds of {', '.join(contenders)}")
        measured[kind] = interleaved(contenders, rounds)
    medians = {kind: _each(median, found) for kind, found in measured.items()}
    speeds = medians["training"]
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "rounds": rounds,
        "seconds_per_round": seconds_per_round,
        "images": len(learn.dls.train_ds),
        "batch_size": recipe.data.batch_size,
        "image_shape": list(learn.dls.image_shape),
        **medians,
    }
    result["brings"] = {
        name.removeprefix("without_"): speeds["fastcv"] / speed
        for name, speed in speeds.items()
        if name.startswith("without_")
    }
    if "with_graph" in speeds:
        result["brings"]["graph"] = speeds["with_graph"] / speeds["fastcv"]
    if captured.backend(device) is not None:
        result["graph"] = captured.compared(recipe, learn.dls, device)
    result["spread"] = {kind: _each(quartiles, found) for kind, found in measured.items()}
    if peak_memory:
        result["memory"] = memory.peaks(recipe, device, learn.dls.image_shape, learn.dls.c)
    result["machine"] = describe(device, learn.precision.precision)
    write("")
    for line in lines(result):
        write(line)
    return result


def _each(statistic: Callable, found: dict[str, list[float]]) -> dict[str, Any]:
    return {name: statistic(values) for name, values in found.items()}


def _contenders(
    recipe: Recipe,
    learn: Learner,
    device: torch.device,
    seconds: float,
    write: Callable[[str], None],
) -> tuple[Contenders, Contenders]:
    """Build the contenders that load and those that train; the trainings use the loaders."""
    data, samples = recipe.data, list(learn.dls.train_ds.items)
    decoded = learn.dls.train.decoded
    pixels = decoded and decoded.images[decoded.rows].numpy(force=True)
    pictures = Pictures(samples, learn.dls.vocab, data, pixels)
    plain = PlainLoader(pictures, data.batch_size, device)
    stock = stock_loaders(samples, learn.dls.vocab, data, device)
    loaders = {"plain_pytorch": plain, "stock_fastai": stock.train, "fastcv": learn.dls.train}

    synthetic = Synthetic(
        shape=learn.dls.image_shape, classes=learn.dls.c, batch_size=data.batch_size
    )
    ceiling = learner(replace(recipe, data=synthetic), device=device)
    plain_net, stock_net = (deepcopy(learn.model) for _ in range(2))
    plain_loss, stock_loss = _losses(recipe)
    optimizer = equivalents.torch_optimizer(recipe.optimizer)(plain_net.parameters(), lr=RATE)
    opt_func = equivalents.fastai_optimizer(recipe.optimizer)
    trainings = {
        "plain_pytorch": _as_usual(PlainTraining(plain, plain_net, plain_loss, optimizer)),
        "stock_fastai": _as_usual(StockTraining(stock, stock_net, stock_loss, opt_func)),
        "fastcv": FastTraining(learn),
        "ceiling": BareTraining(ceiling, recipe.loss()),
    }
    if (graphs := captured.backend(device)) is not None:
        if learn.stepper.graph is None:
            graphed = replace(stepping(recipe, graph="try"), data=Built(learn.dls))
            trainings["with_graph"] = FastTraining(learner(graphed, device=device))
        other = learner(replace(recipe, data=synthetic), device=device)
        try:
            trainings["ceiling_with_graph"] = CapturedTraining(other, recipe.loss(), graphs)
        except RuntimeError as error:
            write(f"ceiling_with_graph is left out: {' '.join(str(error).split())}")
    for name, lesser in without(recipe, learn, device).items():
        trainings[name] = FastTraining(lesser)
    loading = {name: partial(drain, loader) for name, loader in loaders.items()}
    return _clocked(loading, device, seconds), _clocked(trainings, device, seconds)


def _as_usual(run: Callable[[Clock], None]) -> Callable[[Clock], None]:
    """Let a contender run with torch's own settings of a GPU, not with fastcv's."""

    def call(clock: Clock) -> None:
        with cuda.torchs_own():
            run(clock)

    return call


def _clocked(runs: dict[str, Callable], device: torch.device, seconds: float) -> Contenders:
    return {name: partial(Clock(device, seconds).measure, run) for name, run in runs.items()}


def _losses(recipe: Recipe) -> tuple[Callable, Callable]:
    """Return torch's and fastai's cross-entropy; for any other loss, the recipe's own twice."""
    if not isinstance(recipe.loss, CrossEntropy):
        return recipe.loss(), recipe.loss()
    smoothing = {"label_smoothing": recipe.loss.label_smoothing}
    return nn.CrossEntropyLoss(**smoothing), CrossEntropyLossFlat(**smoothing)


def _start(recipe: Recipe, device: torch.device) -> float:
    """Measure the seconds from the recipe to the Learner's first batch, with cached images."""
    began = time.perf_counter()
    next(iter(learner(recipe, device=device).dls.train))
    return time.perf_counter() - began
