"""Optimizers as values: torch's fused ones, as a fastai Learner takes them."""

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
    """

    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False

    def __call__(self, params: Iterable, lr: float | slice, **_: object) -> OptimWrapper:
        """Build the optimizer over parameters or lists of parameters (the groups)."""
        return _fused(
            torch.optim.SGD,
            params,
            lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam, one fused step over all parameters; weight decay is added to the gradient (L2).

    Source: Kingma and Ba 2015, arXiv:1412.6980.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __call__(self, params: Iterable, lr: float | slice, **_: object) -> OptimWrapper:
        """Build the optimizer over parameters or lists of parameters (the groups)."""
        return _fused(
            torch.optim.Adam,
            params,
            lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with weight decay taken off the weights themselves.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __call__(self, params: Iterable, lr: float | slice, **_: object) -> OptimWrapper:
        """Build the optimizer over parameters or lists of parameters (the groups)."""
        return _fused(
            torch.optim.AdamW,
            params,
            lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )


def _fused(kind: type, params: Iterable, lr: float | slice, **settings: object) -> OptimWrapper:
    # A slice of rates is spread over the groups by fastai's set_hypers; torch wants a number here.
    start = lr.stop if isinstance(lr, slice) else lr
    return OptimWrapper(params, kind, lr=start, fused=True, **settings)
