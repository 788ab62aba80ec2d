"""A training as rows of numbers: one an epoch, one a step."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.learner import Metric
from torch import Tensor

from fastcv import ranks
from fastcv.learning.callbacks.recorder import last_group
from fastcv.learning.callbacks.steps import Steps
from fastcv.learning.lr_finder import Rates
from fastcv.learning.metrics import Column

CHECK_EVERY = 64  # steps between two looks at the losses; each look waits for the device


@dataclass
class Tally:
    """Losses and hits of an epoch's training or validation part, on the device until `read`.

    Attributes:
        losses: of the batches that were read.
        right: correctly classified images among them.
        images: of every batch.
        waiting: losses of the batches that were not read yet.
        hits: for each image of these, whether it was classified correctly.
        shares: the fraction of each waiting batch that is this rank's; None: ranks do not share
            batch by batch.
        predictions: logits and class numbers of every batch; None: they are not kept.
        multi_label: whether images have several labels; one is classified correctly if all its
            labels are, at a probability of 0.5.
    """

    losses: list[float] = field(default_factory=list)
    right: int = 0
    images: list[int] = field(default_factory=list)
    waiting: list[Tensor] = field(default_factory=list)
    hits: list[Tensor] = field(default_factory=list)
    predictions: list[tuple[Tensor, Tensor]] | None = None
    multi_label: bool = False
    shares: list[float] | None = None

    def add(
        self,
        loss: Tensor,
        logits: Tensor,
        targets: Tensor,
        images: tuple[int, int] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            loss: of the batch, or of a rank's part of it.
            logits: of the net.
            targets: what they should be.
            images: how many this rank has, and how many count as the batch's; None: all there are.

        Shape:
            loss: scalar, the mean over the batch, without a graph.
            logits: (B, classes).
            targets: (B,) class numbers, or (B, classes) shares, of which the largest counts; of
                several labels an image, those above a half.
        """
        if self.multi_label:
            targets = (targets > 0.5).long()
            hits = ((logits > 0) == (targets > 0)).all(dim=-1)
        else:
            targets = targets.argmax(dim=-1) if targets.ndim > 1 else targets
            hits = logits.argmax(dim=-1) == targets
        count = targets.shape[0]
        if images is not None:
            own, count = images
            hits, logits, targets = hits[:own], logits[:own], targets[:own]
        if self.shares is not None:
            self.shares.append(own / count)
        self.waiting.append(loss)
        self.hits.append(hits)
        self.images.append(count)
        if self.predictions is not None:
            self.predictions.append((logits.detach(), targets))

    def read(self) -> None:
        """Wait for the device and read the losses and hits that are there.

        Of batches that ranks share, all of them must read at the same time.
        """
        if not self.waiting:
            return
        losses, right = torch.stack(self.waiting), torch.cat(self.hits).sum()
        if self.shares is not None:
            shares = torch.tensor(self.shares, dtype=torch.float64, device=losses.device)
            parts = torch.where(shares > 0, losses.double() * shares, 0.0)
            *found, right = ranks.summed(torch.cat([parts, right.double()[None]])).tolist()
            self.losses += found
        else:
            self.losses += losses.tolist()
        self.right += int(right)
        self.waiting.clear()
        self.hits.clear()
        if self.shares is not None:
            self.shares.clear()

    def gather(self) -> None:
        """Count what all ranks have counted, of images that they do not share batch by batch."""
        self.read()
        weighted = zip(self.losses, self.images, strict=True)
        total = math.fsum(loss * images for loss, images in weighted)
        found = ranks.gathered((total, self.right, sum(self.images)))
        total, self.right, images = math.fsum(each[0] for each in found), 0, 0
        for _, right, count in found:
            self.right += right
            images += count
        self.losses, self.images = ([total / images], [images]) if images else ([], [])
        if self.predictions is not None:
            self.predictions = in_order(self.predictions)

    @property
    def loss(self) -> float:
        """The mean over all images."""
        self.read()
        weighted = zip(self.losses, self.images, strict=True)
        return math.fsum(loss * images for loss, images in weighted) / sum(self.images)

    @property
    def accuracy(self) -> float:
        """The fraction of all images that were classified correctly."""
        self.read()
        return self.right / sum(self.images)


def in_order(batches: Sequence[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """Return the batches of all ranks, in the order that one process would have them in."""
    device = batches[0][0].device if batches else torch.device("cpu")
    found = ranks.gathered([tuple(each.cpu() for each in batch) for batch in batches])
    parts = chain.from_iterable(zip_longest(*found))
    return [tuple(each.to(device) for each in part) for part in parts if part is not None]


class History(Callback):
    """Gather losses, accuracy, rates and speed of every fit of a Learner.

    Losses and hits stay on the device, and are read every `CHECK_EVERY` steps. `rows` holds a dict
    for each epoch with the columns of metrics.csv, `steps` is a sequence of one for each step with
    those of steps.csv; both continue from stage to stage.

    Args:
        on_epoch: called with the epoch's row and its steps.

    Attributes:
        found: what the LR finder found, each with its stage.
        rates: the last parameter group's learning rate in each stage, with the stage's number.
        also: further numbers for the row of the running epoch, by column.
        stage: the number of the running stage.
        kept: the epoch whose weights the last fit put back, if it did.
        saved: files of weights saved in this training, each with its epoch.
        resuming: whether a resumed run has yet to begin its first fit.
        keeps_predictions: whether to keep the predictions for the validation images.
    """

    order, run_valid, name = 55, True, "history"
    _tallies: dict[bool, Tally] | None = None  # of training and validation, from the first epoch on

    def __init__(self, on_epoch: Callable[[dict, list[dict]], None] | None = None):
        self.rows: list[dict[str, Any]] = []
        self.steps = Steps()
        self.found: list[tuple[int, Rates]] = []
        self.rates: list[tuple[int, float]] = []
        self.also: dict[str, float] = {}
        self.stage = 0
        self.kept: int | None = None
        self.saved: dict[str, int] = {}
        self.resuming = False
        self.keeps_predictions = False
        self.on_epoch = on_epoch

    @property
    def row(self) -> dict[str, Any]:
        """The row of the last epoch."""
        return self.rows[-1]

    @property
    def final(self) -> dict[str, Any]:
        """The row of the epoch whose weights the net has; empty before the first."""
        rows = [row for row in self.rows if self.kept is None or row["epoch"] == self.kept]
        return rows[-1] if rows else {}

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the part that runs or ran last in this epoch; None without images."""
        tally = (self._tallies or {}).get(self.learn.training)
        return tally.accuracy if tally is not None and tally.images else None

    @property
    def predictions(self) -> tuple[Tensor, Tensor] | None:
        """Logits (N, classes) and class numbers (N,) of this epoch's validation images, if any.

        Of several labels an image, (N, classes), 1 where it has a label.
        """
        kept = self._tallies[False].predictions
        return tuple(map(torch.cat, zip(*kept, strict=True))) if kept else None

    def before_epoch(self) -> None:
        """Start the clock and the sums."""
        self._start = time.perf_counter()
        kept = [] if self.keeps_predictions else None
        several = getattr(self.learn.dls, "multi_label", False)
        shares = [] if ranks.count() > 1 else None
        self._tallies = {
            True: Tally(multi_label=several, shares=shares),
            False: Tally(predictions=kept, multi_label=several),
        }
        self._rates: list[tuple[float, float | None]] = []
        self._train_seconds = 0.0

    def before_train(self) -> None:
        """Start the clock of the training part, in which the weights change."""
        self.kept = None
        self._train_start = time.perf_counter()

    def running_epoch(self) -> dict[str, Any]:
        """Return what is known of the running epoch's training part, as plain data."""
        tally, now = self._tallies[True], time.perf_counter()
        tally.read()
        return {
            "losses": tally.losses,
            "right": tally.right,
            "images": tally.images,
            "rates": self._rates,
            "seconds": now - self._start,
            "train_seconds": now - self._train_start,
        }

    def restore_epoch(self, known: dict[str, Any]) -> None:
        """Go on with what `running_epoch` returned."""
        tally, now = self._tallies[True], time.perf_counter()
        tally.losses, tally.images = list(known["losses"]), list(known["images"])
        tally.right = known["right"]
        self._rates = [tuple(pair) for pair in known["rates"]]
        self._start = now - known["seconds"]
        self._train_start = now - known["train_seconds"]

    def leave_out(self, seconds: float) -> None:
        """Exclude seconds in which nothing was trained from the times of the running epoch."""
        self._start += seconds
        self._train_start += seconds

    def after_batch(self) -> None:
        """Record this batch; losses and hits stay on the device."""
        learn = self.learn
        if self._tallies is None or not len(learn.yb) or learn.borrowed:
            return
        tally = self._tallies[learn.training]
        images = None
        if ranks.count() > 1:
            own, every = learn.images
            images = (own, every if learn.training else own)
        tally.add(learn.loss.detach(), learn.pred, learn.yb[0], images)
        if not learn.training:
            return
        group = last_group(learn.opt)
        momentum = group["betas"][0] if "betas" in group else group.get("momentum")
        self._rates.append((group["lr"], momentum))
        if len(tally.waiting) >= CHECK_EVERY:
            self._check_finite()

    def gather(self) -> None:
        """Know what all ranks have measured of the validation images."""
        if self._tallies is None or self.learn.borrowed:
            return
        self._tallies[False].gather()
        for metric in self.learn.metrics:
            if isinstance(metric, Column):
                metric.measure_all(self.learn, self.predictions)

    def _check_finite(self) -> None:
        tally = self._tallies[True]
        seen = len(tally.losses)
        tally.read()
        for batch, loss in enumerate(tally.losses[seen:], seen + 1):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss must stay finite, got {loss} in epoch {self._epochs_before() + 1}, "
                    f"batch {batch}: lower the learning rate, clip the gradient or train in fp32"
                )

    def _epochs_before(self) -> int:
        return self.rows[-1]["epoch"] if self.rows else 0

    def after_train(self) -> None:
        """Stop the clock of the training part when the device has finished its work."""
        if self._rates:
            self._check_finite()
            self._train_seconds = time.perf_counter() - self._train_start

    def after_epoch(self) -> None:
        """Read the sums and add the epoch's row."""
        if self._rates:  # else a validation outside of a fit
            self._add_row()
        self._tallies[False].predictions = None

    def _add_row(self) -> None:
        row: dict[str, Any] = {"stage": self.stage, "epoch": self._epochs_before() + 1}
        for split, training in (("train", True), ("valid", False)):
            tally = self._tallies[training]
            if tally.images:
                row[f"{split}_loss"], row[f"{split}_accuracy"] = tally.loss, tally.accuracy
                if training:
                    row["images_per_second"] = sum(tally.images) / self._train_seconds
                else:
                    own = [each for each in self.learn.metrics if isinstance(each, Column)]
                    row |= {f"valid_{metric.name}": metric.value for metric in own}
        row["lr"], row["momentum"] = self._rates[-1]
        row["seconds"] = time.perf_counter() - self._start
        row |= self.also
        self.also = {}
        first = len(self.steps) + 1
        steps = [
            {"step": step, "loss": loss, "lr": lr, "momentum": momentum}
            for step, (loss, (lr, momentum)) in enumerate(
                zip(self._tallies[True].losses, self._rates, strict=True), first
            )
        ]
        self.rows.append(row)
        self.steps.extend(steps)
        if self.on_epoch is not None:
            self.on_epoch(row, steps)


class Accuracy(Metric):
    """The accuracy that a History of the same Learner counts, as a metric: it is counted once."""

    name = "accuracy"

    def __init__(self, history: History):
        self.history = history

    @property
    def value(self) -> float | None:
        """The accuracy on the part that runs or ran last in this epoch."""
        return self.history.accuracy
