"""Seeded, stratified splits: the same images on every machine, whatever numpy is installed."""

import hashlib
from collections.abc import Sequence


def stratified(
    labels: Sequence[str], holdout: int | float, seed: int
) -> tuple[list[int], list[int]]:
    """Choose images to hold out, from each class its share.

    An image's rank is a hash of the seed, its class and its place within that class: no random
    generator takes part, and a class keeps its split when other classes come or go.

    Args:
        labels: the class of each image, in a stable order (sorted paths).
        holdout: an integer holds out so many images of each class; a float holds out that
            fraction of each class (0 <= fraction < 1), rounded half up, and at least one image
            of each class that has two. At least one image of each class stays.
        seed: any integer.

    Returns:
        (held out, rest): two ascending lists of indices which share none and together are all.

    Raises:
        ValueError: `holdout` is out of range, a class has too few images for it, or no class
            has two.
    """
    counted = isinstance(holdout, int)
    if holdout < 0 or (not counted and not holdout < 1):
        raise ValueError(
            "holdout must be a number of images per class (0, 1, 2, ...) or a fraction "
            f"(0 <= fraction < 1), got {holdout!r}"
        )
    held: list[int] = []
    for label, indices in _ranked(labels, seed).items():
        if counted:
            share = holdout
        else:
            # Half up, since round() goes to the even neighbor and would treat 5 and 15 unalike.
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
            "a split needs a class with at least two images, but every class has one: "
            "add images, or hold none out"
        )
    held.sort()
    chosen = set(held)
    return held, [index for index in range(len(labels)) if index not in chosen]


def kept(labels: Sequence[str], per_class: int, seed: int) -> list[int]:
    """Choose the same number of images of each class.

    Args:
        labels: the class of each image.
        per_class: images to keep of each class.
        seed: any integer.

    Returns:
        ascending indices.

    Raises:
        ValueError: a class has fewer images.
    """
    chosen: list[int] = []
    for label, indices in _ranked(labels, seed).items():
        if len(indices) < per_class:
            raise ValueError(
                f"{per_class} images of each class must be there to keep, but class '{label}' has "
                f"{len(indices)}: keep fewer"
            )
        chosen.extend(indices[:per_class])
    return sorted(chosen)


def _ranked(labels: Sequence[str], seed: int) -> dict[str, list[int]]:
    """The images of each class, in an order that the seed, the class and their places decide."""
    places: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        places.setdefault(label, []).append(index)
    return {
        label: [
            index
            for _, index in sorted(
                (_rank(seed, label, place), index) for place, index in enumerate(indices)
            )
        ]
        for label, indices in places.items()
    }


def _rank(seed: int, label: str, place: int) -> bytes:
    # A folder's name may be any bytes.
    ranked = f"{seed}/{label}/{place}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(ranked).digest()
