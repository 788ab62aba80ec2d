"""Find pictures that look alike, by perceptual hashes: many images, no comparison of all pairs.

The hash is ImageHash's `phash`, computed for a whole batch at once: the tests compare the two bit
by bit. It is computed here because ImageHash takes one image at a time (3.5 times as long, most of
it under Python's lock), and finds no pairs.
"""

from typing import NamedTuple

import numpy as np

SIDE = 32  # pixels of the gray squares that are hashed
LOW = 8  # frequencies kept along each axis
SMALL = 16  # pixels of the squares that are compared at last
DISTANCE = 8  # bits of 64 in which the hashes of similar pictures may differ
CORRELATION = 0.85  # and at least this much must their small squares agree
MOST_PAIRS = 300_000  # of similar hashes that are compared
BANDS = 4  # parts of a hash, 16 bits each
BATCH = 4_096  # pairs compared at a time

_places = np.arange(SIDE)
# DCT-II as scipy computes it, without the factor that the comparison with the median cancels.
_COSINES = np.cos(np.pi * (2 * _places[None] + 1) * _places[:LOW, None] / (2 * SIDE))
_COSINES = _COSINES.astype(np.float32)  # (LOW, SIDE)
_ONES = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)


class Similar(NamedTuple):
    """Pairs of pictures that look alike.

    Attributes:
        pairs: (N, 2), each with the smaller index first, ascending.
        complete: whether all pairs with hashes within `DISTANCE` were compared; where pictures are
            alike by nature, as handwritten digits are, only the closest ones are.
    """

    pairs: np.ndarray
    complete: bool


def perceptual_hashes(squares: np.ndarray) -> np.ndarray:
    """Hash gray pictures by their low frequencies: bit k says whether the k-th exceeds the median.

    Args:
        squares: (N, 32, 32), uint8.

    Returns:
        (N, 64), bool; row by row as in ImageHash's `phash`.
    """
    low = _COSINES @ squares.astype(np.float32) @ _COSINES.T  # (N, LOW, LOW)
    flat = low.reshape(len(squares), LOW * LOW)
    return flat > np.median(flat, axis=1, keepdims=True)


def packed(bits: np.ndarray) -> np.ndarray:
    """Pack hashes, (N, 64) bool, into (N, 4) words of 16 bits, each with bits of all frequencies.

    Neighboring frequencies agree more often than distant ones: words of neighbors would be few.
    """
    mixed = bits.reshape(len(bits), 64 // BANDS, BANDS).transpose(0, 2, 1)
    return np.packbits(np.ascontiguousarray(mixed), axis=2).view(np.uint16).reshape(-1, BANDS)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Count the bits in which packed hashes differ, row by row: (N, 4) and (N, 4) to (N,)."""
    return _ONES[first ^ second].sum(axis=1, dtype=np.uint8)


def close_pairs(
    words: np.ndarray, most: int = MOST_PAIRS, distance: int = DISTANCE
) -> tuple[np.ndarray, bool]:
    """Find the pairs of packed hashes that differ in at most `distance` bits.

    Two hashes that differ in at most 4r + 3 bits differ in at most r bits of one of their four
    words. So each word is looked up, with up to r bits flipped, in a table of where it occurs: r is
    0, then 1, then 2, as long as fewer than `most` pairs are found.

    Args:
        words: (N, 4), as `packed` returns them.
        most: number of pairs to stop at; the closest are kept.
        distance: bits, below 12.

    Returns:
        the pairs, (P, 2), ascending; and whether these are all.
    """
    radius = distance // BANDS
    pairs = np.empty((0, 2), np.int64)
    for bits in range(radius + 1):
        found = [pairs]
        for band in range(BANDS):
            found += _lookups(words, band, bits, distance)
        pairs = np.unique(np.concatenate(found), axis=0)
        if len(pairs) > most:
            apart = distances(words[pairs[:, 0]], words[pairs[:, 1]])
            closest = np.sort(np.argsort(apart, kind="stable")[:most])
            return pairs[closest], False
    return pairs, True


def _lookups(words: np.ndarray, band: int, bits: int, distance: int) -> list[np.ndarray]:
    """Return the pairs whose words of one band differ in exactly `bits` bits."""
    keys = words[:, band].astype(np.int64)
    order = np.argsort(keys, kind="stable")
    counts = np.bincount(keys, minlength=1 << 16)
    starts = np.cumsum(counts) - counts
    found = []
    for flips in np.flatnonzero(bits == _ONES):
        flipped = keys ^ flips
        matches = counts[flipped]
        first = np.repeat(np.arange(len(keys)), matches)
        before = np.repeat(np.cumsum(matches) - matches, matches)
        second = order[starts[flipped][first] + np.arange(len(first)) - before]
        once = first < second
        first, second = first[once], second[once]
        near = distances(words[first], words[second]) <= distance
        found.append(np.stack([first[near], second[near]], axis=1))
    return found


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlate pictures pair by pair, at the best of nine shifts of up to one pixel.

    Brightness and contrast do not count, and a shift makes up for a slight crop.

    Args:
        first: (N, S, S), gray.
        second: likewise.

    Returns:
        (N,), from -1 to 1.
    """
    best = np.full(len(first), -1.0, np.float32)
    side = first.shape[1]
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            here, there = (
                pictures[
                    :,
                    max(0, sign * down) : side + min(0, sign * down),
                    max(0, sign * right) : side + min(0, sign * right),
                ].astype(np.float32)
                for pictures, sign in ((first, 1), (second, -1))
            )
            here -= here.mean(axis=(1, 2), keepdims=True)
            there -= there.mean(axis=(1, 2), keepdims=True)
            energy = (here**2).sum(axis=(1, 2)) * (there**2).sum(axis=(1, 2))
            product = (here * there).sum(axis=(1, 2))
            best = np.maximum(best, product / np.sqrt(np.maximum(energy, 1e-6)))
    return best


def similar(words: np.ndarray, small: np.ndarray, most: int = MOST_PAIRS) -> Similar:
    """Find pictures that are copies of each other but for encoding, size, brightness or a crop.

    Args:
        words: (N, 4), packed hashes.
        small: (N, 16, 16), gray, uint8.
        most: number of pairs with similar hashes that are compared, the closest first.
    """
    pairs, complete = close_pairs(words, most)
    alike = [
        correlations(small[batch[:, 0]], small[batch[:, 1]]) >= CORRELATION
        for batch in np.split(pairs, range(BATCH, len(pairs), BATCH))
    ]
    return Similar(pairs[np.concatenate(alike)], complete)


def groups(pairs: np.ndarray) -> list[list[int]]:
    """Join pairs that share a member into groups of two and more, each ascending, in order."""
    parent: dict[int, int] = {}

    def root(index: int) -> int:
        while parent.setdefault(index, index) != index:
            parent[index] = index = parent[parent[index]]
        return index

    for first, second in pairs.tolist():
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    found: dict[int, list[int]] = {}
    for index in sorted(parent):
        found.setdefault(root(index), []).append(index)
    return list(found.values())
