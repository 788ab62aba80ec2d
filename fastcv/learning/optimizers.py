"""Optimizers as values: torch's fused ones, wrapped for a fastai Learner."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from fastai.optimizer import OptimWrapper


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum, one fused step over all parameters.

    Args:
        momentum: fraction of the last update that is kept.
        weight_decay: L2 penalty, added to the gradient.
        nesterov: look ahead along the momentum.
        fused: update all parameters in one kernel; False takes torch's default, on a CPU one
            parameter at a time.
    """

    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    fused: bool = True

    def __call__(self, params: Iterable, lr: float | slice, **_: object) -> OptimWrapper:
        """Build the optimizer over parameters or lists of parameters (the groups)."""
        return _built(
            torch.optim.SGD,
            params,
            lr,
            self.fused,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam, one fused step over all parameters; weight decay is added to the gradient (L2).

    `fused` is as in `SGD`.

    Source: Kingma and Ba 2015, arXiv:1412.6980.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    fused: bool = True

    def __call__(self, params: Iterable, lr: float | slice, **_: object) -> OptimWrapper:
        """Build the optimizer over parameters or lists of parameters (the groups)."""
        return _built(
            torch.optim.Adam,
            params,
            lr,
            self.fused,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay, subtracted from the weights themselves.

    `fused` is as in `SGD`.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    fused: bool = True

    def __call__(self, params: Iterable, lr: float | slice, **_: object) -> OptimWrapper:
        """Build the optimizer over parameters or lists of parameters (the groups)."""
        return _built(
            torch.optim.AdamW,
            params,
            lr,
            self.fused,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )


def _built(
    kind: type, params: Iterable, lr: float | slice, fused: bool, **settings: object
) -> OptimWrapper:
    # fastai's set_hypers later distributes a slice over the groups; torch needs a number here.
    start = lr.stop if isinstance(lr, slice) else lr
    # False would forbid torch its faster loops; None lets it choose.
    return OptimWrapper(params, kind, lr=start, fused=fused or None, **settings)
