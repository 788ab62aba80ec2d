"""Similar pictures: hashes as ImageHash's, all close pairs found, copies told from other photos."""

import imagehash
import numpy as np
import pytest
from PIL import Image

from fastcv.data import duplicates
from fastcv.data.duplicates import (
    close_pairs,
    correlations,
    distances,
    groups,
    packed,
    perceptual_hashes,
    similar,
)


def squares(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32), dtype=np.uint8)


def hashes(count, seed=0):
    return np.random.default_rng(seed).random((count, 64)) < 0.5


def by_all_pairs(bits, distance):
    """The oracle: every pair is compared."""
    apart = (bits[:, None] != bits[None]).sum(axis=2)
    return np.argwhere(np.triu(apart <= distance, k=1))


def test_perceptual_hashes_are_imagehashs():
    smooth = [
        np.asarray(Image.fromarray(each[:5, :7]).resize((90, 70), Image.Resampling.BICUBIC))
        for each in squares(8)
    ]
    pictures = [Image.fromarray(each) for each in (*squares(8), *smooth)]
    stacked = np.stack(
        [np.asarray(each.resize((32, 32), Image.Resampling.LANCZOS)) for each in pictures]
    )
    expected = np.stack([imagehash.phash(each).hash.reshape(-1) for each in pictures])
    assert (perceptual_hashes(stacked) == expected).all()


def test_packed_hashes_keep_their_distances():
    bits = hashes(20)
    words = packed(bits)
    assert (words.shape, words.dtype) == ((20, 4), np.uint16)
    assert (distances(words[:10], words[10:]) == (bits[:10] != bits[10:]).sum(axis=1)).all()


@pytest.mark.parametrize("distance", [0, 3, 4, 7, 8, 11])
def test_close_pairs_are_those_of_all_pairs(distance):
    bits = hashes(30)
    flipped = bits.repeat(12, axis=0)  # families, whose members differ in up to 12 bits
    random = np.random.default_rng(1)
    for row in flipped:
        row[random.permutation(64)[: random.integers(0, 7)]] ^= True
    pairs, complete = close_pairs(packed(flipped), distance=distance)
    assert complete
    expected = by_all_pairs(flipped, distance)
    assert len(expected) > 100 or distance < 3
    assert pairs.tolist() == expected.tolist()


def test_close_pairs_stop_at_the_closest():
    bits = np.tile(hashes(1), (6, 1))
    for row in range(1, 6):
        bits[row, :row] ^= True  # row k differs from row 0 in k bits
    pairs, complete = close_pairs(packed(bits), most=5)
    assert not complete
    apart = [abs(first - second) for first, second in pairs.tolist()]
    assert len(pairs) == 5
    assert max(apart) == 1


def test_correlations_ignore_brightness_and_a_small_shift():
    picture = np.kron(squares(1)[0, :8, :8], np.ones((2, 2))).astype(np.float32)
    darker = picture * 0.5 + 7
    shifted = np.roll(picture, 1, axis=1)
    other = np.kron(squares(1, seed=1)[0, :8, :8], np.ones((2, 2)))
    found = correlations(np.stack([picture] * 3), np.stack([darker, shifted, other]))
    assert found[:2] == pytest.approx(1, abs=1e-4)
    assert found[2] < 0.6


def test_correlation_without_shift_is_numpys():
    first, second = squares(2)[:, :16, :16]
    best = correlations(first[None], second[None])[0]
    plain = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert best >= plain - 1e-5
    assert correlations(first[None], first[None])[0] == pytest.approx(1, abs=1e-5)
    flat = np.full((1, 16, 16), 9, np.uint8)
    assert correlations(flat, first[None])[0] == pytest.approx(0)


def test_similar_hashes_of_unlike_pictures_are_no_pair(monkeypatch):
    words, small = packed(np.tile(hashes(1), (3, 1))), squares(3)[:, :16, :16].copy()
    small[2] = small[0]
    assert similar(words, small).pairs.tolist() == [[0, 2]]
    monkeypatch.setattr(duplicates, "BATCH", 1)
    assert similar(words, small).pairs.tolist() == [[0, 2]]
    nothing = similar(packed(hashes(3)), small)
    assert (len(nothing.pairs), nothing.complete) == (0, True)


def test_groups_join_what_is_connected():
    assert groups(np.array([[5, 9], [1, 5], [2, 3], [9, 12]])) == [[1, 5, 9, 12], [2, 3]]
    assert groups(np.empty((0, 2), int)) == []
