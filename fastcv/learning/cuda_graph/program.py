"""A training step as a function of fixed buffers, which a graph captures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from fastai.learner import Learner
from torch import Tensor

from fastcv.learning.callbacks.clipping import CLIPS
from fastcv.learning.callbacks.freeze_first import FirstChildFrozen
from fastcv.learning.callbacks.mixing import Mixing
from fastcv.learning.callbacks.precision import Precision
from fastcv.learning.cuda_graph.capture import Outputs
from fastcv.learning.cuda_graph.feed import Feed, Raw, is_raw
from fastcv.learning.snapshot import snapshot


def step_program(
    learn: Learner, feed: Feed, inputs: Raw, rates: list[Tensor] | None
) -> Callable[[], Outputs]:
    """Return a training step as a function of the buffers `inputs`.

    Args:
        learn: in training mode.
        feed: makes a batch of the buffers.
        inputs: what the feed passes for each batch.
        rates: tensors with the learning rates of the optimizer's groups; None leaves the
            optimizer's step out.
    """
    optimizer = learn.opt.opt if rates is not None else None
    precision, mixing = learn._grab_cbs(Precision), learn._grab_cbs(Mixing)
    clips = [each for each, _ in learn._handlers("before_step") if type(each) in CLIPS and each.run]
    parameters = list(learn.model.parameters())

    def program() -> Outputs:
        for parameter in parameters:
            parameter.grad = None  # so that backward allocates gradients instead of adding to them
        x, y = feed.make(*inputs)
        for each in mixing:
            x, y = each.mixed(x, y)
        for each in precision:
            x = each.laid_out(x)
        pred = learn.forward_pass(x)
        loss = learn.loss_func(pred, y)
        loss.backward()
        for each in clips:
            each.before_step()
        if optimizer is not None:
            with _read_from(rates, optimizer.param_groups):
                optimizer.step()
        grads = [(each, each.grad) for each in parameters if each.grad is not None]
        for parameter in parameters:
            parameter.grad = None
        left = grads if optimizer is None else []
        return Outputs(x, y, pred.detach(), loss.detach(), left)

    return program


class Variant(NamedTuple):
    """What the kernels of a training step depend on, beside the step itself.

    Attributes:
        epoch: of the fit; it decides which layers are frozen.
        images: of the batch; None: as many as the loader puts into one.
    """

    epoch: int
    images: int | None


def variants(learn: Learner) -> list[Variant]:
    """Return all kinds of steps that the fit will have, its first one first."""
    rests = {each.after for each in learn.cbs if isinstance(each, FirstChildFrozen)}
    epochs = [learn.epoch, *sorted(each for each in rests if learn.epoch < each < learn.n_epoch)]
    loader = learn.dls.train
    count, size = getattr(loader, "n", None), getattr(loader, "bs", None)
    keeps = count and size and not getattr(loader, "drop_last", True)
    sizes: list[int | None] = [None]
    if keeps and count > size and count % size:
        sizes.append(count % size)  # of an epoch's last batch
    return [Variant(epoch, images) for images in sizes for epoch in epochs]


def one_step(learn: Learner, variant: Variant) -> None:
    """Run a training step of the next batch without a trace, as a warm-up: the net compiles."""
    with snapshot(learn):
        loss_func = learn.loss_func
        learn.epoch = variant.epoch
        as_in_training(learn)
        learn.loss_func = loss_func  # fastai's MixUp replaces it, for batches that it has mixed
        feed = Feed(learn.dl, torch.device(learn.dls.device))
        raw = next(iter(feed))
        if is_raw(raw):
            inputs = tuple(each[: variant.images].to(learn.dls.device) for each in raw)
            step_program(learn, feed, inputs, None)()


@contextmanager
def _read_from(rates: list[Tensor], groups: list[dict]) -> Iterator[None]:
    """Let an optimizer's groups read their rates from tensors and its step be captured.

    Within the block only: elsewhere a group's rate is a number that is shown, saved and scheduled.
    """
    before = [(group["lr"], group.get("capturable")) for group in groups]
    capturing = any(rate.is_cuda for rate in rates) and torch.cuda.is_current_stream_capturing()
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
        if "capturable" in group:
            group["capturable"] = capturing  # torch warns if a capturable step is not captured
    try:
        yield
    finally:
        for group, (rate, capturable) in zip(groups, before, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = capturable


def as_in_training(learn: Learner) -> None:
    """Run what fastai's and fastcv's callbacks do when an epoch begins: freezing and modes."""
    learn.dl = learn.dls.train
    for event in ("before_epoch", "before_train"):
        for callback, _ in learn._handlers(event):
            if type(callback).__module__.partition(".")[0] in ("fastai", "fastcv"):
                callback(event)
