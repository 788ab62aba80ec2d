"""Checks of a net's image size and of the lists that describe it."""

from collections.abc import Sequence


def require_size(net: str, size: int, *, at_least: int) -> None:
    """Raise a ValueError if images of `size` pixels are too small for the net."""
    if size < at_least:
        raise ValueError(
            f"size must be at least {at_least} pixels for this {net}, got {size}: "
            f"resize the images to {at_least} or more"
        )


def require_stages(**lists: Sequence[int]) -> None:
    """Raise a ValueError unless the named lists are equally long and hold numbers of 1 or more."""
    names = " and ".join(lists)
    lengths = [len(values) for values in lists.values()]
    if len(set(lengths)) > 1 or not lengths[0]:
        numbers = " and ".join(map(str, lengths))
        raise ValueError(f"{names} must be equally long and not empty, got {numbers} entries")
    if any(value < 1 for values in lists.values() for value in values):
        got = " and ".join(str(tuple(values)) for values in lists.values())
        raise ValueError(f"{names} must hold numbers of at least 1, got {got}")


def require_pools(max_pools: Sequence[int], *, blocks: int, what: str) -> None:
    """Raise a ValueError unless `max_pools` names blocks that exist, counted from 1, each once."""
    if len(set(max_pools)) < len(max_pools) or not set(max_pools) <= set(range(1, blocks + 1)):
        raise ValueError(
            f"max_pools must name {what} between 1 and {blocks}, each once, got {tuple(max_pools)}"
        )
