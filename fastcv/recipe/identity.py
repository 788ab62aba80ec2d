"""When two recipes are one experiment, and what a run changed of its recipe."""

from collections.abc import Mapping
from typing import Any

# What does not decide an experiment: who it is, where it lies, and how fast it is computed.
_ASIDE = (
    "name",
    "seed",
    "precision",
    "optimizer.fused",
    "data.path",
    "data.cache",
    "data.skip_bad",
)
_ASIDE_FOLDERS = ("reported", "step")


def essence(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a flat recipe what decides its result, but for the seed.

    Two recipes with the same essence are one experiment under two names. What is left out: name,
    seed, what was reported, where the data lies, precision and the other ways to be quick.
    """
    return {
        key: value
        for key, value in flat.items()
        if key not in _ASIDE and key.partition(".")[0] not in _ASIDE_FOLDERS
    }


def differences(flat: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """List what `other` has otherwise, by key: (value here, value there); None where it is not."""
    here, there = essence(flat), essence(other)
    return {
        key: (here.get(key), there.get(key))
        for key in dict.fromkeys([*here, *there])
        # One that is not there differs from one that is None.
        if (key in here, here.get(key)) != (key in there, there.get(key))
    }


def change(key: str, ours: Any, theirs: Any) -> str:
    """Say one of the `differences`: "schedule.0.epochs: 70 → 2"."""
    return f"{key}: {_value(ours)} → {_value(theirs)}"


def _value(value: Any) -> str:
    if isinstance(value, str) and ":" in value:
        return value.partition(":")[2]
    if isinstance(value, Mapping | list | tuple):
        return repr(value)
    return str(value)
