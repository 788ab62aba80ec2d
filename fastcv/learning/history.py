"""What happens in a training, as rows: one an epoch, one a step."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from fastai.callback.core import Callback

from fastcv.learning.lr_finder import Rates

CHECK_EVERY = 64  # steps between two looks at the losses; each look waits for the device


class History(Callback):
    """Gather losses, accuracy, rates and speed of every fit of a Learner.

    Sums stay on the device and are read once an epoch. `rows` has a dict an epoch with the columns
    of metrics.csv, `steps` a dict a step with those of steps.csv; both run on over the stages.

    Args:
        on_epoch: called with the epoch's row and its steps.
    """

    order, run_valid, name = 55, True, "history"

    def __init__(self, on_epoch: Callable[[dict, list[dict]], None] | None = None):
        self.rows: list[dict[str, Any]] = []
        self.steps: list[dict[str, Any]] = []
        self.found: list[tuple[int, Rates]] = []  # what the LR finder found, with the stage
        self.also: dict[str, float] = {}  # what else was measured in this epoch, for its row
        self.stage = 0
        self.resuming = False  # from the start of a resumed run to the first fit
        self.on_epoch = on_epoch

    @property
    def row(self) -> dict[str, Any]:
        """The row of the last epoch."""
        return self.rows[-1]

    def before_epoch(self) -> None:
        """Start the clock and the sums."""
        self._start = time.perf_counter()
        self._losses: list[torch.Tensor] = []
        self._rates: list[tuple[float, float | None]] = []
        self._checked = 0
        self._train_seconds = 0.0
        self._sums: dict[bool, torch.Tensor] = {}

    def before_train(self) -> None:
        """Start the clock of the training part."""
        self._train_start = time.perf_counter()

    def after_batch(self) -> None:
        """Add this batch to the sums, on the device."""
        if self.learn.borrowed or not len(self.learn.yb) or not hasattr(self, "_sums"):
            return
        learn = self.learn
        loss = learn.loss.detach()
        targets = learn.yb[0]
        size = len(targets)
        predicted = learn.pred.detach().argmax(dim=-1)
        if targets.ndim > 1:  # soft targets: right is the class with the largest share
            targets = targets.argmax(dim=-1)
        right = (predicted == targets).sum()
        batch = torch.stack((loss * size, right.to(loss.dtype), loss.new_full((), size)))
        sums = self._sums.get(learn.training)
        self._sums[learn.training] = batch if sums is None else sums + batch
        if not learn.training:
            return
        self._losses.append(loss)
        group = learn.opt.opt.param_groups[-1]
        momentum = group["betas"][0] if "betas" in group else group.get("momentum")
        self._rates.append((group["lr"], momentum))
        if len(self._losses) - self._checked >= CHECK_EVERY:
            self._check_finite()

    def _check_finite(self) -> None:
        losses = torch.stack(self._losses[self._checked :]).tolist()
        for batch, loss in enumerate(losses, self._checked + 1):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss must stay finite, got {loss} in epoch {self._epochs_before() + 1}, "
                    f"batch {batch}: lower the learning rate, clip the gradient or train in fp32"
                )
        self._checked = len(self._losses)

    def _epochs_before(self) -> int:
        return self.rows[-1]["epoch"] if self.rows else 0

    def after_train(self) -> None:
        """Stop the clock of the training part, once the device has done its work."""
        if self._losses:
            self._check_finite()
            self._train_seconds = time.perf_counter() - self._train_start

    def after_epoch(self) -> None:
        """Read the sums and add the epoch's row."""
        if True not in self._sums:  # a validation of its own
            return
        row: dict[str, Any] = {"stage": self.stage, "epoch": self._epochs_before() + 1}
        for split, training in (("train", True), ("valid", False)):
            if training in self._sums:
                loss, right, count = self._sums[training].double().tolist()
                row[f"{split}_loss"], row[f"{split}_accuracy"] = loss / count, right / count
                if training:
                    row["images_per_second"] = count / self._train_seconds
        row["lr"], row["momentum"] = self._rates[-1]
        row["seconds"] = time.perf_counter() - self._start
        row |= self.also
        self.also = {}
        first = len(self.steps) + 1
        steps = [
            {"step": step, "loss": loss, "lr": lr, "momentum": momentum}
            for step, (loss, (lr, momentum)) in enumerate(
                zip(torch.stack(self._losses).tolist(), self._rates, strict=True), first
            )
        ]
        self.rows.append(row)
        self.steps.extend(steps)
        if self.on_epoch is not None:
            self.on_epoch(row, steps)
