"""Seeded, stratified splits: the same images on every machine and with every numpy."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Real

from fastcv.data.samples import Samples
from fastcv.recipe.bounds import LARGEST, shown


def stratified(
    labels: Sequence[str],
    holdout: int | float,
    seed: int,
    groups: Sequence[str | None] | None = None,
    most: int | None = None,
) -> tuple[list[int], list[int]]:
    """Choose the images of each class to hold out.

    An image's rank is a hash of the seed, its class and its place within that class: there is no
    random generator, and a class keeps its split when other classes are added or removed.

    With groups, one of round(1 / holdout) grouped `folds` is held out.

    Args:
        labels: the class of each image, in a stable order (sorted paths).
        holdout: an integer is the number of images to hold out of each class; a float is a fraction
            of each class (0 <= fraction < 1), rounded half up, and at least one image of each class
            that has two. At least one image of each class stays. With groups, a fraction of at most
            a half, or 0.
        seed: any integer.
        groups: the group of each image, which is not split, or None for an image on its own.
        most: largest number of images to hold out in all, though at least one of each class that
            would have any; with groups, about so many. None for no limit.

    Returns:
        (held out, rest): two ascending lists of indices; each image is in exactly one.

    Raises:
        ValueError: `holdout` is out of range, a class has too few images for it, no class has two,
            or groups cannot be held out without all images of a class.
    """
    counted = isinstance(holdout, int)
    check_holdout("holdout", holdout)
    if holdout and groups is not None and any(group is not None for group in groups):
        return _whole_groups(labels, holdout, seed, groups, most)
    ranked, shares = _ranked(labels, seed), {}
    for label, indices in ranked.items():
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
        shares[label] = share
    if most is not None:
        sizes = {label: 1 if counted else len(indices) for label, indices in ranked.items()}
        shares = _limited(shares, sizes, most)
    held = sorted(index for label, share in shares.items() for index in ranked[label][:share])
    if holdout > 0 and not held:
        raise ValueError(
            "some class must have at least two images to be split, but every class has one: "
            "add images, or hold none out"
        )
    return held, others(held, len(labels))


def _limited(shares: Mapping[str, int], sizes: Mapping[str, float], most: int) -> dict[str, int]:
    """Lower the shares of classes in proportion to their sizes, until they sum to `most`.

    The n-th image of a class is held out from the fraction (n - 1/2) / size up, as rounding half up
    has it: those of the smallest fractions stay. The first image of each class comes first.
    """
    ranked = sorted(
        (number and (number + 0.5) / sizes[label], label)
        for label, share in shares.items()
        for number in range(share)
    )
    classes = sum(share > 0 for share in shares.values())
    left = Counter(label for _, label in ranked[: max(most, classes)])
    return {label: left[label] for label in shares}


def hold_out(samples: Samples, holdout: int | float, seed: int, most: int | None = None) -> Samples:
    """Hold validation images out of the training images, by `stratified`, unless there are some.

    Args:
        samples: what a source has listed.
        holdout: as in `stratified`; 0 holds none out.
        seed: likewise.
        most: likewise.

    Raises:
        ValueError: what `stratified` raises.
    """
    if samples.valid or holdout == 0:
        return samples
    train = samples.train
    strata = samples.strata(train)
    held, rest = stratified(strata, holdout, seed, samples.groups_of(train), most)
    return samples._replace(
        train=[train[index] for index in rest], valid=[train[index] for index in held]
    )


def others(held: Sequence[int], count: int) -> list[int]:
    """Return the indices below `count` that are not in `held`, ascending."""
    chosen = set(held)
    return [index for index in range(count) if index not in chosen]


def folds(
    labels: Sequence[str], count: int, seed: int, groups: Sequence[str | None] | None = None
) -> list[list[int]]:
    """Cut images into folds, each of which is to validate once, while the others train.

    The images of each class are dealt out in the order of the ranks of `stratified`, so that
    the folds' sizes differ by one image at most, and so do their numbers of images of each class.
    Groups stay whole: scikit-learn's `StratifiedGroupKFold` then balances the classes as well as
    it can.

    Args:
        labels: the class of each image, in a stable order.
        count: the number of folds, at least 2.
        seed: any integer.
        groups: the group of each image, which is not split, or None for an image on its own.

    Returns:
        `count` ascending lists of indices; each image is in exactly one.

    Raises:
        ValueError: there are fewer images or groups than folds, or a class would have to train
            without images, as all of its images are in one fold.
    """
    if groups is not None and any(group is not None for group in groups):
        found = _grouped(labels, count, seed, groups)
    else:
        if count > len(labels):
            raise ValueError(
                f"each fold must have images, but {count} folds share {len(labels)}: ask for fewer"
            )
        ranked = [index for indices in _ranked(labels, seed).values() for index in indices]
        found = [sorted(ranked[first::count]) for first in range(count)]
    for held in found:
        if lost := _lost(labels, held):
            raise ValueError(
                f"every class must have images in two folds, but all of class '{lost}' are in one: "
                "add images of it, or in other groups, or remove the class"
            )
    return found


def _grouped(
    labels: Sequence[str], count: int, seed: int, groups: Sequence[str | None]
) -> list[list[int]]:
    # Here, because this import takes seconds, and most data has no groups.
    from sklearn.model_selection import StratifiedGroupKFold

    own = [group if group is not None else index for index, group in enumerate(groups)]
    if count > len(set(own)):
        raise ValueError(
            f"each fold must have a group of images, but there are {len(set(own))} groups for "
            f"{count} folds: ask for fewer, or hold more out"
        )

    def rank(group: str | int) -> bytes:
        return digest(f"{seed}/{group!r}")

    # Numbered in a seeded order, which breaks ties: no random generator here either.
    number = {group: index for index, group in enumerate(sorted(set(own), key=rank))}
    with warnings.catch_warnings():
        # It warns of classes that are not in every fold.
        warnings.simplefilter("ignore", UserWarning)
        try:
            splits = StratifiedGroupKFold(count).split(
                labels, labels, [number[group] for group in own]
            )
            return [held.tolist() for _, held in splits]
        except ValueError as error:
            most = max(Counter(labels).values())
            raise ValueError(
                f"some class must have an image for each of {count} folds, but the largest has "
                f"{most}: ask for fewer folds, or hold more out"
            ) from error


def _whole_groups(
    labels: Sequence[str],
    holdout: int | float,
    seed: int,
    groups: Sequence[str | None],
    most: int | None,
) -> tuple[list[int], list[int]]:
    """Hold whole groups out: the seed chooses one of as many folds as the fraction asks for.

    If a fold would have more than `most` images, there are more folds, but not more than groups, or
    than the largest class has images.
    """
    if not 0 < holdout <= 0.5:
        raise ValueError(
            f"groups of images are held out as a fraction of at most 0.5, got {holdout!r}: pass, "
            "for example, 0.2"
        )
    count = round(1 / holdout)
    if most is not None:
        own = {index if group is None else group for index, group in enumerate(groups)}
        needed = -(-len(labels) // most)
        count = max(count, min(needed, len(own), max(Counter(labels).values())))
    found = _grouped(labels, count, seed, groups)
    first = int.from_bytes(digest(str(seed)), "big")
    for turn in range(count):
        held = found[(first + turn) % count]
        if held and not _lost(labels, held):
            return held, others(held, len(labels))
    raise ValueError(
        f"holding groups out must leave images of every class to train on, but class "
        f"'{_lost(labels, found[first % count])}' loses them all: hold fewer out, or add groups"
    )


def _lost(labels: Sequence[str], held: Sequence[int]) -> str | None:
    """Return a class of which no image is left once some are held out, if any."""
    left = Counter(labels)
    left.subtract(labels[index] for index in held)
    return next((label for label in sorted(left) if left[label] == 0), None)


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
        ranked.append((digest(f"{seed}/{label}/{len(ranked)}"), index))
    return {label: [index for _, index in sorted(ranked)] for label, ranked in ranks.items()}


def digest(text: str) -> bytes:
    """Return the SHA-256 of a text, by which images are ranked."""
    # A folder's name may be any bytes.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
