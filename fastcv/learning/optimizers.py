"""Optimizers as values: torch's fused ones, wrapped for a fastai Learner."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from fastai.optimizer import OptimWrapper

from fastcv.recipe.bounds import check_flags, check_number, check_numbers


class _Fused:
    """An optimizer of torch as a value: its fields are the keywords of `kind`."""

    kind: ClassVar[type[torch.optim.Optimizer]]

    def __call__(self, params: Iterable, lr: float | slice, **_: object) -> OptimWrapper:
        """Build the optimizer over parameters or lists of parameters (the groups)."""
        # fastai's set_hypers later distributes a slice over the groups; torch needs a number here.
        start = lr.stop if isinstance(lr, slice) else lr
        # False would forbid torch its faster loops; None lets it choose.
        settings = vars(self) | {"fused": self.fused or None}
        return OptimWrapper(params, self.kind, lr=start, **settings)


@dataclass(frozen=True, kw_only=True)
class SGD(_Fused):
    """Stochastic gradient descent with momentum, one fused step over all parameters.

    Args:
        momentum: fraction of the last update that is kept.
        weight_decay: L2 penalty, added to the gradient.
        nesterov: look ahead along the momentum.
        fused: update all parameters in one kernel; False takes torch's default, on a CPU one
            parameter at a time.
    """

    kind = torch.optim.SGD
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    fused: bool = True

    def __post_init__(self):
        check_number("momentum", self.momentum, least=0, below=1)
        check_number("weight_decay", self.weight_decay, least=0)
        check_flags(self, "nesterov", "fused")


@dataclass(frozen=True, kw_only=True)
class Adam(_Fused):
    """Adam, one fused step over all parameters; weight decay is added to the gradient (L2).

    Args:
        betas: fractions of the running means of the gradient and of its square that are kept.
        eps: added to the denominator.
        weight_decay: L2 penalty, added to the gradient; of `AdamW` the fraction of the weights,
            times the learning rate, that each step subtracts.
        fused: as in `SGD`.

    Source: Kingma and Ba 2015, arXiv:1412.6980.
    """

    kind = torch.optim.Adam
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    fused: bool = True

    def __post_init__(self):
        check_numbers("betas", self.betas, 2, least=0, below=1)
        check_number("eps", self.eps, least=0)
        check_number("weight_decay", self.weight_decay, least=0)
        check_flags(self, "fused")


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay, subtracted from the weights themselves.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    kind = torch.optim.AdamW
    weight_decay: float = 0.01
