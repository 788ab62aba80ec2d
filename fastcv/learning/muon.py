"""Muon: an optimizer that orthogonalizes the momentum of each filter bank."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from fastai.optimizer import OptimWrapper
from torch import Tensor

from fastcv.recipe.bounds import check_flags, check_number, check_whole

# Of the polynomial a s + b s^3 + c s^5, which is steep at 0. Iterated, it does not converge, but
# keeps singular values between 0.68 and 1.14: as good as 1 here, in half the steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Move the singular values of each matrix towards 1, and keep its singular vectors.

    With U S V' the singular value decomposition, the result is nearly U V'. Each step of the
    Newton-Schulz iteration applies an odd polynomial to all singular values at once, with three
    matrix products. Five steps bring those above a hundredth of the Frobenius norm to 0.68-1.14.

    Args:
        matrices: (N, rows, columns), float; a batch costs hardly more than one matrix.
        steps: number of iterations.

    Returns:
        (N, rows, columns), of the type of `matrices`; computed in bfloat16 on a GPU.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[1] > x.shape[2]
    if tall:  # makes the products as small as possible
        x = x.transpose(1, 2)
    # The Frobenius norm is above the largest singular value.
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).to(matrices.dtype)


class OrthogonalMomentum(torch.optim.Optimizer):
    """Muon for filters and stochastic gradient descent for all else, in one torch optimizer.

    All groups have the same settings; `orthogonal` selects the rule of a group:

    - True: subtract lr * `orthogonalize`(momentum), where each filter bank is a matrix with a row
      for each output. With `keep_norm` the mean squared norm of a bank's filters (its rows) is
      first set to 1.
    - False: torch's SGD with Nesterov momentum, on gradients times `scale`.

    Args:
        groups: dicts with "params", "momentum", the fraction of the last update that is kept,
            "nesterov", whether to look ahead along it, and other settings.
        lr: of all groups; a group's "lr" may also be a tensor, for a captured graph.
        weight_decay: each step subtracts lr * weight_decay times a weight from it.
        steps: iterations of `orthogonalize`.
    """

    def __init__(
        self,
        groups: Iterable[dict],
        *,
        lr: float,
        weight_decay: float = 0.0,
        steps: int = 5,
    ):
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "steps": steps,
            "momentum": 0.0,
            "nesterov": False,
            "orthogonal": False,
            "scale": 1.0,
            "keep_norm": False,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            grads = [p.grad for p in params]
            if group["orthogonal"]:
                self._step_filters(group, params, self._with_momentum(group, params, grads))
                continue
            grads = torch._foreach_mul(grads, group["scale"])
            torch._foreach_add_(grads, params, alpha=group["weight_decay"])
            updates = self._with_momentum(group, params, grads)
            torch._foreach_sub_(params, torch._foreach_mul(updates, group["lr"]))

    def _with_momentum(self, group: dict, params: list, grads: list) -> list[Tensor]:
        """Add the gradients to the momentum and return the updates."""
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        if not group["nesterov"]:
            return buffers
        return list(torch._foreach_add(grads, buffers, alpha=group["momentum"]))

    def _step_filters(self, group: dict, params: list, updates: list) -> None:
        if group["keep_norm"]:
            norms = torch._foreach_norm(params)
            factors = [math.sqrt(len(p)) / n for p, n in zip(params, norms, strict=True)]
            torch._foreach_mul_(params, factors)
        elif group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        alike = defaultdict(list)
        for p, update in zip(params, updates, strict=True):
            alike[len(p), p[0].numel()].append((p, update))
        for (rows, columns), pairs in alike.items():
            # flatten follows the shape, not the memory, so channels-last filters come out right
            stacked = torch.stack([update.flatten(1) for _, update in pairs])
            moves = orthogonalize(stacked, group["steps"])
            # A tall matrix of orthonormal columns has short rows; as in torch.optim.Muon.
            rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
            for (p, _), move in zip(pairs, moves, strict=True):
                p.sub_(move.view(p.shape) * rate)


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Muon for the filters of convolutions; SGD with Nesterov momentum for biases and the head.

    A net's parameters form three groups, in this order: filters (more than two dimensions),
    biases (one), and matrices (two: the head). All follow the schedule's learning rate, which is
    made for the filters: the distance that a step moves them, as a fraction of their norm. To train
    the others faster or slower, scale their gradients.

    Args:
        momentum: of the filters; fraction of the last update that is kept.
        nesterov: look ahead along the momentum.
        steps: iterations that make the momentum orthogonal.
        keep_norm: before each step, scale filters to a norm of 1, on average over their layer. For
            nets with a batch norm behind every filter, which cancels the scale. Without it the
            filters decay by `weight_decay`.
        weight_decay: each step subtracts lr * weight_decay times a weight from it.
        other_momentum: of biases and matrices, with Nesterov's look-ahead.
        bias_scale: factor of the gradients of biases.
        matrix_scale: factor of the gradients of matrices.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
    """

    momentum: float = 0.95
    nesterov: bool = True
    steps: int = 5
    keep_norm: bool = False
    weight_decay: float = 0.0
    other_momentum: float = 0.9
    bias_scale: float = 1.0
    matrix_scale: float = 1.0

    def __post_init__(self):
        check_number("momentum", self.momentum, least=0, below=1)
        check_number("other_momentum", self.other_momentum, least=0, below=1)
        check_whole("steps", self.steps, least=1, most=1000)
        for name in ("weight_decay", "bias_scale", "matrix_scale"):
            check_number(name, getattr(self, name), least=0)
        check_flags(self, "nesterov", "keep_norm")

    def __call__(self, params: Iterable, lr: float | slice, **_: object) -> OptimWrapper:
        """Build the optimizer over parameters.

        Raises:
            ValueError: `params` are groups, or there is no filter among them.
        """
        params = list(params)
        if not all(isinstance(p, Tensor) for p in params):
            raise ValueError(
                f"Muon must make the parameter groups itself, got {len(params)} from the model: "
                "use a FromScratch model"
            )
        filters = [p for p in params if p.ndim > 2]
        biases = [p for p in params if p.ndim < 2]
        matrices = [p for p in params if p.ndim == 2]
        if not filters:
            raise ValueError(
                "Muon must have filters to train, got a net without convolutions: use SGD or AdamW"
            )
        other = {"momentum": self.other_momentum, "nesterov": True}
        groups = [
            {
                "params": filters,
                "momentum": self.momentum,
                "nesterov": self.nesterov,
                "orthogonal": True,
                "keep_norm": self.keep_norm,
            },
            {"params": biases, "scale": self.bias_scale, **other},
            {"params": matrices, "scale": self.matrix_scale, **other},
        ]
        optimizer = OrthogonalMomentum(
            [group for group in groups if group["params"]],
            lr=lr.stop if isinstance(lr, slice) else lr,
            weight_decay=self.weight_decay,
            steps=self.steps,
        )
        return OptimWrapper(opt=optimizer)
