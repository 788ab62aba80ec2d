from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit, softmax
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
    assert np.array_equal(again.probabilities, predictions.probabilities)
    np.testing.assert_allclose(again.losses, predictions.losses, rtol=1e-6)
    assert [each.name for each in tmp_path.iterdir()] == [of.TABLE]
    with pytest.raises(ValueError, match=r"predictions of the test images must be in '.*npz'"):
        of.read(file, "test")


@pytest.fixture(scope="module")
def tagged():
    """Logits and predictions of 200 images with any of 4 labels."""
    random = np.random.default_rng(1)
    logits, targets = random.normal(size=(200, 4)) * 3, random.integers(0, 2, (200, 4))
    shares = expit(logits).astype(np.float32)
    paths = tuple(map(str, range(200)))
    losses = of.cross_entropies(shares, targets)
    return logits, Predictions(paths, shares, targets, losses, tuple("abcd"))


def test_losses_are_scikit_learns(predictions, tagged):
    found = of.cross_entropies(predictions.probabilities, predictions.targets)
    assert found == pytest.approx(predictions.losses, rel=1e-4)
    shares = predictions.probabilities.astype(np.float64)
    exact = shares / shares.sum(1, keepdims=True)
    assert found.mean() == pytest.approx(metrics.log_loss(predictions.targets, exact), rel=1e-6)
    _, several = tagged
    for place in range(9):
        share, target = several.probabilities[place].astype(float), several.targets[place]
        expected = metrics.log_loss(target, share, labels=[0, 1])
        assert several.losses[place] == pytest.approx(expected, rel=1e-5)
    sure = of.cross_entropies(np.float32([[0, 1]]), np.array([0]))
    assert np.isfinite(sure).all()
    assert sure > 80


@pytest.mark.parametrize("temperature", [0.3, 0.7677, 1.0, 4.0])
def test_another_temperature_is_that_of_the_logits(predictions, tagged, temperature):
    logits = np.log(predictions.probabilities.astype(np.float64)) + 7  # known up to a constant
    found = of.tempered(predictions, temperature)
    expected = softmax(logits / temperature, axis=1)
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-6)
    assert found.losses.mean() == pytest.approx(
        metrics.log_loss(predictions.targets, expected), rel=1e-5
    )
    logits, several = tagged
    found = of.tempered(several, temperature)
    np.testing.assert_allclose(found.probabilities, expit(logits / temperature), rtol=1e-4)


def test_an_older_file_is_read_with_the_plain_loss(predictions, tmp_path):
    file = tmp_path / of.TABLE
    of.save({"valid": replace(predictions, losses=predictions.losses + 0.3)}, file)
    assert not of.is_rounded(file, "valid")
    with np.load(file) as arrays:
        older = dict(arrays)
    older["valid/probabilities"] = older["valid/probabilities"].astype(np.float16)
    np.savez_compressed(file, **older)
    again = of.read(file, "valid")
    assert of.is_rounded(file, "valid")
    np.testing.assert_allclose(again.probabilities, predictions.probabilities, atol=5e-4)
    np.testing.assert_allclose(again.losses, predictions.losses, atol=2e-3)


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "text"])
def test_a_damaged_table_is_refused_in_a_sentence(predictions, tmp_path, damage):
    file = tmp_path / of.TABLE
    of.save({"valid": predictions}, file)
    whole = bytearray(file.read_bytes())
    if damage == "changed":
        middle = len(whole) // 2
        whole[middle : middle + 200] = bytes(200)
    file.write_bytes({"empty": b"", "cut": whole[:-300], "text": b"no table"}.get(damage, whole))
    with pytest.raises(ValueError, match=r"valid images must be in .* they cannot be read"):
        of.read(file, "valid")
    if damage != "changed":  # the list of parts is whole
        with pytest.raises(ValueError, match=r"must hold predictions, .*; remove it"):
            of.parts(file)


def test_lengths_that_do_not_agree_are_refused():
    with pytest.raises(ValueError, match="3 targets of 2 classes need probabilities of shape"):
        Predictions(
            paths=("a",) * 3,
            probabilities=np.ones((2, 2)) / 2,
            targets=np.zeros(3, int),
            losses=np.zeros(3),
            classes=("a", "b"),
        )
