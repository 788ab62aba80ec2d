"""CUDA graphs: whether they train as ordinary steps do, and the upper limit with them."""

from dataclasses import replace
from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException
from torch import Tensor, nn

from fastcv.bench.parts import BareTraining, Built, stepping
from fastcv.bench.rounds import Clock
from fastcv.bench.stock_fastai import EPOCHS, RATE
from fastcv.experiment.building import learner
from fastcv.learning.cuda_graph.capture import CudaGraphs
from fastcv.learning.cuda_graph.feed import Feed
from fastcv.learning.cuda_graph.program import step_program
from fastcv.learning.learner import Learner
from fastcv.learning.snapshot import snapshot_rng
from fastcv.learning.stages.schedules import Constant
from fastcv.recipe.values import Recipe

STEPS = 50  # over which losses are compared


def backend(device: torch.device) -> CudaGraphs | None:
    """Return what captures on a device; None if nothing does."""
    return CudaGraphs(device) if device.type == "cuda" else None


class CapturedTraining(BareTraining):
    """The upper limit with a CUDA graph: each batch is copied into it, and it is replayed.

    Raises:
        RuntimeError: the step cannot be captured.
    """

    def __init__(self, learn: Learner, loss: nn.Module, graphs: CudaGraphs):
        super().__init__(learn, loss)
        learn.loss_func = loss
        learn.model.train()
        learn.training = True
        self.inputs = tuple(torch.clone(each) for each in self.batches[0])
        device = self.inputs[0].device
        rates = [torch.full((), RATE, device=device) for _ in self.optimizer.param_groups]
        feed = Feed(learn.dls.train, device)
        program = step_program(learn, feed, self.inputs, rates)
        graphs.warm_up(program)
        self.replay = graphs.capture(program)

    def __call__(self, clock: Clock) -> None:
        """Train until the round is over."""
        for batch in clock.batches(self.batches):
            for buffer, each in zip(self.inputs, batch, strict=True):
                buffer.copy_(each, non_blocking=True)
            self.replay()


class FirstLosses(Callback):
    """Keep the losses of the first `STEPS` training steps, and end the fit."""

    order, run_valid = 1000, False

    def __init__(self):
        self.kept: list[Tensor] = []

    def after_batch(self) -> None:
        """Keep the loss."""
        self.kept.append(self.learn.loss.detach().clone())
        if len(self.kept) == STEPS:
            raise CancelFitException


def compared(recipe: Recipe, dls: Any, device: torch.device) -> dict[str, Any]:
    """Train some steps from the same weights on the same batches, without a graph and with one.

    Returns:
        "steps"; "largest_loss_difference"; of the training with a graph "replayed", how many steps
        were, "warmup_seconds", and "notes", why steps or parts of them were not replayed.
    """
    losses, learn = [], None
    for graph in ("off", "try"):
        learn = learner(replace(stepping(recipe, graph=graph), data=Built(dls)), device=device)
        heard = FirstLosses()
        with snapshot_rng(dls), learn.no_bar():
            Constant(epochs=EPOCHS, lr=RATE, callbacks=(lambda heard=heard: heard,))(learn)
        losses.append(torch.stack(heard.kept).double().cpu())
    return {
        "steps": len(losses[0]),
        "largest_loss_difference": (losses[0] - losses[1]).abs().max().item(),
        "replayed": learn.stepper.graph.replayed,
        "warmup_seconds": learn.stepper.warmup_seconds,
        "notes": learn.stepper.used(learn)["graph_notes"],
    }
