from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from fastcv.predict import Predictions, evaluate
from fastcv.predict import evaluation as of

CLASSES = tuple("abcdefg")


@pytest.fixture(scope="module")
def predictions():
    """Predictions of 500 images that are right for some, and sure of themselves for most."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 7, 500)
    logits = random.normal(size=(500, 7))
    logits[np.arange(500), targets] += random.choice([0.0, 3.0], 500)
    logits[targets == 3, 4] += 2.0
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Predictions(
        paths=tuple(f"{index}.jpg" for index in range(500)),
        probabilities=probabilities.astype(np.float32),
        targets=targets,
        losses=-np.log(probabilities[np.arange(500), targets]),
        classes=CLASSES,
    )


def test_numbers_are_scikit_learns(predictions):
    found = evaluate(predictions)
    y, p = predictions.targets, predictions.probabilities
    assert found.images == 500
    assert found.accuracy == pytest.approx(metrics.accuracy_score(y, p.argmax(1)))
    assert found.top5 == pytest.approx(metrics.top_k_accuracy_score(y, p, k=5))
    exact = p.astype(np.float64) / p.sum(1, keepdims=True, dtype=np.float64)
    assert found.loss == pytest.approx(metrics.log_loss(y, exact), rel=1e-4)
    assert found.macro_f1 == pytest.approx(metrics.f1_score(y, p.argmax(1), average="macro"))
    expected = metrics.precision_recall_fscore_support(y, p.argmax(1))
    for index, row in enumerate(found.per_class):
        each = (row["precision"], row["recall"], row["f1"], row["support"])
        assert each == pytest.approx([column[index] for column in expected])


@pytest.mark.parametrize(("right", "total"), [(0, 5), (5, 5), (1, 2), (913, 1000), (9_191, 10_000)])
def test_interval_is_scipys_wilson_interval(right, total):
    expected = binomtest(right, total).proportion_ci(0.95, "wilson")
    assert of.wilson(right, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_calibration_error_is_that_of_its_bins(predictions):
    confidence, right = predictions.probabilities.max(1), predictions.right
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (confidence >= low) & (confidence < high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert evaluate(predictions).calibration_error == pytest.approx(expected, rel=1e-5)


def test_a_class_is_most_confused_with_the_one_that_takes_most_of_its_images(predictions):
    counts = metrics.confusion_matrix(predictions.targets, predictions.predicted)
    assert (predictions.confusion() == counts).all()
    assert evaluate(predictions).per_class[3]["most_confused_with"] == "e"


def test_a_class_that_is_never_predicted_or_never_there_has_zeros():
    found = Predictions(
        paths=("x", "y"),
        probabilities=np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]]),
        targets=np.array([0, 1]),
        losses=np.array([0.1, 1.6]),
        classes=("a", "b", "c"),
    )
    rows = evaluate(found).per_class
    assert [row["f1"] for row in rows] == pytest.approx([2 / 3, 0, 0])
    assert [row["support"] for row in rows] == [1, 1, 0]
    assert evaluate(found).macro_f1 == pytest.approx(1 / 3)  # over the classes with images
    assert evaluate(found).top5 is None


def test_predictions_come_back_from_their_table(predictions, tmp_path):
    file = tmp_path / of.TABLE
    of.save({"valid": predictions}, file)
    again = of.read(file, "valid")
    assert again.paths == predictions.paths
    assert again.classes == predictions.classes
    assert (again.targets == predictions.targets).all()
    np.testing.assert_allclose(again.probabilities, predictions.probabilities, atol=5e-4)
    np.testing.assert_allclose(again.losses, predictions.losses, rtol=1e-6)
    assert [each.name for each in tmp_path.iterdir()] == [of.TABLE]
    with pytest.raises(ValueError, match=r"predictions of the test images must be in '.*npz'"):
        of.read(file, "test")


def test_lengths_that_do_not_agree_are_refused():
    with pytest.raises(ValueError, match="3 targets of 2 classes need probabilities of shape"):
        Predictions(
            paths=("a",) * 3,
            probabilities=np.ones((2, 2)) / 2,
            targets=np.zeros(3, int),
            losses=np.zeros(3),
            classes=("a", "b"),
        )
