"""Seeded, stratified splits: the same images on every machine and with every numpy."""

import hashlib
from collections.abc import Sequence
from numbers import Real

from fastcv.recipe.bounds import LARGEST, shown


def stratified(
    labels: Sequence[str], holdout: int | float, seed: int
) -> tuple[list[int], list[int]]:
    """Choose the images of each class to hold out.

    An image's rank is a hash of the seed, its class and its place within that class: there is no
    random generator, and a class keeps its split when other classes are added or removed.

    Args:
        labels: the class of each image, in a stable order (sorted paths).
        holdout: an integer is the number of images to hold out of each class; a float is a fraction
            of each class (0 <= fraction < 1), rounded half up, and at least one image of each class
            that has two. At least one image of each class stays.
        seed: any integer.

    Returns:
        (held out, rest): two ascending lists of indices; each image is in exactly one.

    Raises:
        ValueError: `holdout` is out of range, a class has too few images for it, or no class
            has two.
    """
    counted = isinstance(holdout, int)
    check_holdout("holdout", holdout)
    held: list[int] = []
    for label, indices in _ranked(labels, seed).items():
        if counted:
            share = holdout
        else:
            # Half up: round() goes to the even neighbor, and would treat 5 and 15 differently.
            share = int(len(indices) * holdout + 0.5)
            share = min(max(share, 1 if holdout > 0 else 0), len(indices) - 1)
        if share >= len(indices):
            raise ValueError(
                f"holding {share} images of each class out must leave some to train on, but class "
                f"'{label}' has {len(indices)}: hold fewer out, or add images"
            )
        held.extend(indices[:share])
    if holdout > 0 and not held:
        raise ValueError(
            "some class must have at least two images to be split, but every class has one: "
            "add images, or hold none out"
        )
    held.sort()
    chosen = set(held)
    return held, [index for index in range(len(labels)) if index not in chosen]


def check_holdout(name: str, holdout: int | float) -> None:
    """Raise a ValueError unless `holdout` is a number of images of each class, or a fraction."""
    number = isinstance(holdout, Real) and not isinstance(holdout, bool)
    if not number or not 0 <= holdout <= LARGEST or not (isinstance(holdout, int) or holdout < 1):
        raise ValueError(
            f"{name} must be a number of images per class (0, 1, 2, ...) or a fraction "
            f"(0 <= fraction < 1), got {shown(holdout)}: pass, for example, 0.2"
        )


def kept(labels: Sequence[str], per_class: int, seed: int) -> list[int]:
    """Choose `per_class` images of each class, and return their indices, ascending.

    Raises:
        ValueError: a class has fewer images.
    """
    chosen: list[int] = []
    for label, indices in _ranked(labels, seed).items():
        if len(indices) < per_class:
            raise ValueError(
                f"each class must have the {per_class} images to keep, but class '{label}' has "
                f"{len(indices)}: keep fewer"
            )
        chosen.extend(indices[:per_class])
    return sorted(chosen)


def _ranked(labels: Sequence[str], seed: int) -> dict[str, list[int]]:
    """Return the images of each class, ordered by a hash of seed, class and place."""
    ranks: dict[str, list[tuple[bytes, int]]] = {}
    for index, label in enumerate(labels):
        ranked = ranks.setdefault(label, [])
        # A folder's name may be any bytes.
        named = f"{seed}/{label}/{len(ranked)}".encode("utf-8", "surrogateescape")
        ranked.append((hashlib.sha256(named).digest(), index))
    return {label: [index for _, index in sorted(ranked)] for label, ranked in ranks.items()}
