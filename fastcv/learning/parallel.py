"""A net that several ranks train together: each on its part of a batch, with the mean gradient.

torch's DistributedDataParallel averages the gradients. Layers that depend on the other images of a
batch, or draw random numbers for it, are made to see the whole batch:

- dropout (`nn.Dropout`) draws its mask for the whole batch, and takes its own images';
- batch norm, where a recipe asks for it, takes mean and variance over all ranks.

So a step is that of one process with the whole batch, up to rounding. Other layers that draw random
numbers draw different ones on each rank, and not those that one process would.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from fastcv import ranks
from fastcv.augment.part import Part, drawing, drawn_for


class Parallel:
    """A net, or the head that trains alone, whose backward pass averages gradients over the ranks.

    It is made for the parameters that train; freezing others needs another one.

    Args:
        net: the module whose parameters train.
        function: computes it, as compiled or on stored features; `net` itself or what calls it.
    """

    def __init__(self, net: nn.Module, function: Callable[..., Tensor]):
        self._device = next(net.parameters()).device
        gpu = [self._device.index] if self._device.type == "cuda" else None
        called = _Called(net, function)
        self._ddp = DistributedDataParallel(
            called, device_ids=gpu, process_group=ranks.tensor_group()
        )

    def __call__(self, part: Part | None, seed: int, *xb: Tensor) -> Tensor:
        """Compute the logits of this rank's images.

        Args:
            part: which ones they are.
            seed: of random numbers that are this rank's own.
            xb: the images.
        """
        with drawing(part and part.mixed()), _own_numbers(self._device, seed):
            return self._ddp(*xb)

    def reduce(self, now: bool) -> None:
        """Set whether the next backward pass averages gradients, or only accumulates them."""
        self._ddp.require_backward_grad_sync = now


class _Called(nn.Module):
    """A module as a function computes it."""

    def __init__(self, net: nn.Module, function: Callable[..., Tensor]):
        super().__init__()
        self.net, self.function = net, function

    def forward(self, *xb: Tensor) -> Tensor:
        return self.function(*xb)


def share(net: nn.Module, *, sync_batch_norm: bool) -> None:
    """Let the layers of a net that depend on the whole batch see it, where several ranks train.

    Classes are replaced by subclasses: parameters, names and the answers of `isinstance` stay.

    Args:
        net: not yet trained.
        sync_batch_norm: whether batch norm normalizes by the statistics of the whole batch.

    Raises:
        ValueError: batch norm is to be synchronized, and is of an unknown class.
    """
    for module in net.modules():
        if type(module) is nn.Dropout:
            module.__class__ = _WholeDropout
        elif sync_batch_norm and isinstance(module, _BatchNorm):
            if type(module) not in _SYNCED:
                raise ValueError(
                    f"step.sync_batch_norm needs torch's own batch norm, the net has a "
                    f"{type(module).__name__}: leave it out, or take another net"
                )
            module.__class__ = _SYNCED[type(module)]


def whole_dropout(x: Tensor, p: float) -> Tensor:
    """Drop elements of this rank's images (B, ...), as torch would of the whole batch's on a CPU.

    Without other ranks it is torch's own dropout.
    """
    part = drawn_for()
    if part is None or not p:
        return dropout(x, p)
    noise = torch.empty((part.count, *x.shape[1:]), dtype=x.dtype, device=x.device)
    if x.ndim == 4 and not x.is_contiguous():
        noise = noise.contiguous(memory_format=torch.channels_last)
    with _common_numbers(x.device):
        noise.bernoulli_(1 - p)
    return x * part.of(noise.div_(1 - p))


class _WholeDropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training or drawn_for() is None:
            return super().forward(x)
        return whole_dropout(x, self.p)


class _Sum(torch.autograd.Function):
    """The sum over the ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return ranks.summed(x.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return ranks.summed(grad.clone())


class _Synced(_BatchNorm):
    """Batch norm over the images of all ranks; with a single one, and to evaluate, torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        part = drawn_for()
        if not self.training or part is None or ranks.count() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        # A rank that computes an image only to be there must not count it.
        counted = x[: part.own].to(torch.promote_types(x.dtype, torch.float32))
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        count = x.new_tensor([counted.numel() // x.shape[1]], dtype=counted.dtype)
        sums = _Sum.apply(torch.cat([counted.sum(axes), count]))
        elements = sums[-1]
        mean = sums[:-1] / elements
        # The mean is known before squares are summed, which would lose digits otherwise.
        squares = (counted - mean.view(shape)).square().sum(axes)
        variance = _Sum.apply(squares) / elements
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach(), elements.detach())
        scale = torch.rsqrt(variance + self.eps)
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, elements: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / float(self.num_batches_tracked)
        unbiased = variance * (elements / (elements - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


class _Synced1d(_Synced, nn.BatchNorm1d):
    pass


class _Synced2d(_Synced, nn.BatchNorm2d):
    pass


class _Synced3d(_Synced, nn.BatchNorm3d):
    pass


_SYNCED = {nn.BatchNorm1d: _Synced1d, nn.BatchNorm2d: _Synced2d, nn.BatchNorm3d: _Synced3d}

# The generator's state that all ranks have in common, while a rank draws its own numbers.
_common: Tensor | None = None


@contextmanager
def _own_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """Draw this rank's own random numbers within the block, on the device of its net.

    Else dropout of unknown kinds would drop the same of each rank's images.
    """
    global _common
    outer, _common = _common, _state(device)
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.cuda.manual_seed(seed)
    try:
        yield
    finally:
        _set_state(device, _common)
        _common = outer


@contextmanager
def _common_numbers(device: torch.device) -> Iterator[None]:
    """Draw the numbers that all ranks have in common, within a block of `_own_numbers`."""
    global _common
    if _common is None:
        yield
        return
    own = _state(device)
    _set_state(device, _common)
    try:
        yield
    finally:
        _common = _state(device)
        _set_state(device, own)


def _state(device: torch.device) -> Tensor:
    return torch.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device)


def _set_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.cuda.set_rng_state(state, device)
