import sys

import numpy as np
import pytest

from fastcv.predict import Predictions, label_errors


def predictions(targets, probabilities):
    n, classes = probabilities.shape
    return Predictions(
        tuple(map(str, range(n))),
        probabilities,
        targets,
        -np.log(probabilities[np.arange(n), targets]),
        tuple(map(str, range(classes))),
    )


@pytest.fixture
def noisy():
    """600 images of a good net; the labels of 30 were exchanged for the next class."""
    random = np.random.default_rng(0)
    true = random.integers(0, 4, 600)
    logits = random.normal(size=(600, 4))
    logits[np.arange(600), true] += 5
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = random.choice(600, 30, replace=False)
    labels = true.copy()
    labels[wrong] = (labels[wrong] + 1) % 4
    return predictions(labels, probabilities.astype(np.float32)), set(wrong.tolist())


@pytest.fixture
def cleanlab():
    return pytest.importorskip("cleanlab", reason="needs cleanlab, of the extra labels")


def test_exchanged_labels_are_found(cleanlab, noisy):
    found, wrong = noisy
    suspected = label_errors(found)
    assert len(wrong & set(suspected.tolist())) >= 27
    assert len(set(suspected.tolist()) - wrong) <= 3
    of_label = found.probabilities[suspected, found.targets[suspected]]
    assert (np.diff(of_label) >= 0).all()


def test_a_class_of_one_image_or_none_is_no_error(cleanlab):
    targets = np.array([0, 0, 0, 1])
    probabilities = np.full((4, 3), 0.05, dtype=np.float32)
    probabilities[np.arange(4), targets] = 0.9
    assert label_errors(predictions(targets, probabilities)).tolist() == []


def test_without_cleanlab_an_error_says_what_to_install(noisy, monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(ImportError, match=r"fastcv\[labels\]"):
        label_errors(noisy[0])
