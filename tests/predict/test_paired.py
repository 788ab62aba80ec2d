from math import comb

import numpy as np
import pytest

from fastcv.predict import Predictions
from fastcv.predict.calibration import fit_temperature
from fastcv.predict.evaluation import calibration_error
from fastcv.predict.paired import compare, difference_interval, mcnemar


def predictions(predicted, targets, paths=None, classes=("a", "b", "c")):
    n = len(targets)
    probabilities = np.full((n, len(classes)), 0.1)
    probabilities[np.arange(n), predicted] = 1 - 0.1 * (len(classes) - 1)
    return Predictions(
        paths=tuple(paths or map(str, range(n))),
        probabilities=probabilities,
        targets=np.array(targets),
        losses=np.zeros(n),
        classes=classes,
    )


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 9), (10, 10), (25, 8)])
def test_mcnemar_is_the_sum_of_the_tails(b, c):
    total = b + c
    tail = sum(comb(total, k) for k in range(min(b, c) + 1)) / 2**total
    assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail))


def test_interval_of_the_difference_holds_it_as_often_as_it_says():
    random = np.random.default_rng(0)
    only_first, only_second, n, rounds = 0.10, 0.06, 200, 2000
    draws = random.multinomial(n, [only_first, only_second, 0.84], size=rounds)
    held = 0
    for b, c, _ in draws:
        low, high = difference_interval(int(b), int(c), n)
        held += low <= only_second - only_first <= high
    assert held / rounds == pytest.approx(0.95, abs=0.015)


def test_runs_are_compared_on_the_images_that_both_have():
    first = predictions([0, 1, 2, 0], [0, 1, 1, 1], paths="wxyz")
    second = predictions([1, 1, 1, 0, 0], [0, 1, 1, 1, 2], paths="wxyzq")
    found = compare(first, second)
    assert found.images == 4
    assert found.accuracies == (0.5, 0.5)
    assert (found.only_first, found.only_second) == (1, 1)
    assert [first.paths[place] for place in found.differ] == ["w", "y"]
    assert [second.paths[place] for place in found.partners] == ["w", "y"]
    assert found.interval[0] < 0 < found.interval[1]


def test_classes_in_another_order_are_the_same_classes():
    first = predictions([0, 1, 2], [0, 1, 2])
    second = predictions([2, 1, 0], [2, 1, 0], classes=("c", "b", "a"))
    assert compare(first, second).accuracies == (1.0, 1.0)
    assert compare(first, second).differ == ()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (predictions([0], [0], classes=("a", "b", "d")), "same classes, got 3 and 3, of which 2"),
        (predictions([0], [0], paths=["x"]), "predicted the same images, got none"),
        (predictions([0], [1]), "the same label in both runs"),
    ],
)
def test_what_cannot_be_compared_is_refused(second, message):
    with pytest.raises(ValueError, match=message):
        compare(predictions([0], [0]), second)


def test_a_temperature_mends_logits_that_were_multiplied():
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 5))
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (odds.cumsum(1) > random.random((20_000, 1))).argmax(1)  # drawn as the net says
    assert fit_temperature(logits, targets) == pytest.approx(1.0, abs=0.03)
    assert fit_temperature(3 * logits, targets) == pytest.approx(3.0, abs=0.1)
    sharp = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)

    def error(probabilities):
        losses = -np.log(probabilities[np.arange(len(targets)), targets])
        paths = tuple(map(str, range(len(targets))))
        return calibration_error(Predictions(paths, probabilities, targets, losses, tuple("abcde")))

    assert error(odds) < 0.02 < 0.2 < error(sharp)
