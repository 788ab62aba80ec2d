"""Compose augmentations, and merge neighboring affine ones into one resampling."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fastcv.augment.affine import Resampled


@dataclass(frozen=True)
class Resampling(Resampled):
    """Several affine augmentations in one resampling, with the product of their matrices.

    Draws are the same, in the same order, as one after the other. Nothing is cut off in between: a
    pixel that one step moves out of the image and a later one moves back is kept.

    Args:
        values: the augmentations, in order.
        interpolation: "bilinear" or "nearest".
    """

    values: tuple[Any, ...]
    interpolation: str

    def matrix(self, x: Tensor) -> Tensor:
        """Draw what a call would: maps (B, 3, 3) from output to input pixels from the center."""
        matrices = [value.matrix(x) for value in self.values]
        real = reduce(torch.promote_types, (each.dtype for each in matrices))
        return reduce(torch.matmul, (each.to(real) for each in matrices))


@dataclass(frozen=True)
class Composition:
    """Applies augmentations in turn; bytes stay bytes up to one that does more than move pixels.

    Args:
        values: the augmentations, in order.
    """

    values: tuple[Callable[[Tensor], Tensor], ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Augment a batch."""
        for value in self.values:
            x = value(x)
        return x

    @property
    def moves_pixels(self) -> bool:
        """Whether all steps only move pixels, so that bytes stay bytes."""
        return all(getattr(value, "moves_pixels", False) for value in self.values)


def compose(values: Iterable[Callable[[Tensor], Tensor]]) -> Composition:
    """Join augmentations into one, each run of affine neighbors merged into one `Resampling`.

    Flips and crops are merged only if they stand beside a rotation or an affine map; otherwise they
    stay exact pixel moves. Neighbors that interpolate differently are not merged.

    Raises:
        ValueError: one of them changes labels, as MixUp does.
    """
    values = tuple(values)
    for value in values:
        if getattr(value, "changes_labels", False):
            raise ValueError(
                f"compose takes augmentations of images alone, got {value}: "
                "call it separately, with images and labels"
            )
    steps: list[Any] = []
    for affine, neighbors in groupby(values, _is_affine):
        run = tuple(neighbors)
        steps += _merged(run) if affine else run
    return Composition(tuple(steps))


def _is_affine(value: Any) -> bool:
    return hasattr(value, "matrix") and getattr(value, "mergeable", True)


def _reading(value: Any) -> str | None:
    """Return how an affine augmentation interpolates; None if it only moves pixels."""
    if getattr(value, "moves_pixels", False):
        return None
    return getattr(value, "interpolation", "bilinear")


def _merged(values: tuple[Any, ...]) -> list[Any]:
    runs: list[list[Any]] = [[]]
    readings: list[str | None] = [None]  # the interpolation of each run
    for value in values:
        own = _reading(value)
        if own and readings[-1] and own != readings[-1]:
            runs.append([])
            readings.append(None)
        runs[-1].append(value)
        readings[-1] = readings[-1] or own
    steps: list[Any] = []
    for run, reading in zip(runs, readings, strict=True):
        steps += [Resampling(tuple(run), reading)] if reading and len(run) > 1 else run
    return steps
