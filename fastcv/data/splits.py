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
    places: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        places.setdefault(label, []).append(index)

    held: list[int] = []
    for label, indices in places.items():
        if counted:
            share = holdout
        else:
            # Half up, since round() goes to the even neighbour and would treat 5 and 15 unalike.
            share = int(len(indices) * holdout + 0.5)
            share = min(max(share, 1 if holdout > 0 else 0), len(indices) - 1)
        if share >= len(indices):
            raise ValueError(
                f"holding {share} images of each class out must leave some to train on, but class "
                f"'{label}' has {len(indices)}: hold fewer out, or add images"
            )
        ranked = sorted(range(len(indices)), key=lambda place: _rank(seed, label, place))
        held.extend(indices[place] for place in ranked[:share])
    if holdout > 0 and not held:
        raise ValueError(
            "a split needs a class with at least two images, but every class has one: "
            "add images, or hold none out"
        )
    held.sort()
    chosen = set(held)
    return held, [index for index in range(len(labels)) if index not in chosen]


def _rank(seed: int, label: str, place: int) -> bytes:
    return hashlib.sha256(f"{seed}/{label}/{place}".encode()).digest()
