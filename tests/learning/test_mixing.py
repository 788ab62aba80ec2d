from dataclasses import replace

import pytest
import torch

from fastcv.augment import CutMix, HorizontalFlip, MixUp
from fastcv.data import Toy
from fastcv.data.images import Images
from fastcv.experiment.building import learner
from fastcv.learning.losses import CrossEntropy
from fastcv.recipes.digits import recipe as digits

TOY = Images(source=Toy(classes=4, size=12, train=8), size=12, batch_size=8)
RECIPE = replace(
    digits, data=TOY, loss=CrossEntropy(label_smoothing=0.1), precision="fp32", schedule=()
)


def record_batches(learn):
    """Train an epoch and give back what the net and the loss were given."""
    seen = []
    loss = learn.loss_func

    def watch(logits, targets):
        seen.append((learn.training, targets.detach().clone()))
        return loss(logits, targets)

    learn.loss_func = watch
    learn.fit(1, lr=0.01)
    return seen


@pytest.mark.parametrize("mix", [MixUp(alpha=1.0), CutMix(alpha=1.0)])
def test_training_targets_are_mixed_and_validation_targets_are_not(mix):
    data = replace(TOY, augment=(HorizontalFlip(), mix))
    seen = record_batches(learner(replace(RECIPE, data=data), device="cpu"))
    for training, targets in seen:
        if training:
            assert targets.shape == (8, 4)
            assert torch.allclose(targets.sum(1), torch.ones(8))
        else:
            assert targets.ndim == 1
    assert any(((t > 0).sum(1) > 1).any() for training, t in seen if training)


def test_without_mixing_targets_are_class_numbers():
    seen = record_batches(learner(RECIPE, device="cpu"))
    assert all(targets.ndim == 1 for _, targets in seen)


def test_batches_that_are_shown_keep_their_labels():
    dls = replace(TOY, augment=(MixUp(alpha=1.0),))("cpu")
    x, y = dls.train.one_batch()
    assert y.ndim == 1
    assert x.shape == (8, 3, 12, 12)


def test_what_changes_labels_must_come_last():
    with pytest.raises(ValueError, match="must come last in augment, got MixUp"):
        replace(TOY, augment=(MixUp(alpha=1.0), HorizontalFlip()))("cpu")
