"""The steps of a training: a row of numbers for each, held in arrays."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

COLUMNS = ("loss", "lr", "momentum")
_NONE = float("nan")  # of the momentum, where an optimizer has none


class Steps(Sequence):
    """Rows {"step", "loss", "lr", "momentum"}, numbered from 1: 24 bytes each instead of 400.

    Args:
        rows: to begin with.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()):
        self._columns = {name: array("d") for name in COLUMNS}
        self.extend(rows)

    def extend(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; their numbers are those of their places."""
        for row in rows:
            for name, column in self._columns.items():
                column.append(_NONE if row[name] is None else row[name])

    def __len__(self) -> int:
        return len(self._columns["loss"])

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"there are {len(self)} steps, got place {place}")
        numbers = {name: column[place] for name, column in self._columns.items()}
        if numbers["momentum"] != numbers["momentum"]:
            numbers["momentum"] = None
        return {"step": place % len(self) + 1, **numbers}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[place] for place in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def __repr__(self) -> str:
        return f"<{len(self)} steps>"

    def state(self) -> dict[str, Tensor]:
        """Return the columns as tensors, float64."""
        return {
            name: torch.tensor(column, dtype=torch.float64)
            for name, column in self._columns.items()
        }

    def restore(self, state: Mapping[str, Tensor] | Sequence[Mapping[str, Any]]) -> None:
        """Put back what `state` returned, or the rows of a checkpoint of an older fastcv."""
        if not isinstance(state, Mapping):
            self._columns = Steps(state)._columns
            return
        columns = {name: array("d", state[name].tolist()) for name in COLUMNS}
        if len({len(column) for column in columns.values()}) > 1:
            raise ValueError("its steps have columns of several lengths")
        self._columns = columns
