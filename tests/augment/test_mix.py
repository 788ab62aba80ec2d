"""MixUp and CutMix against torchvision's with the same parameters, and the loss they feed."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from fastcv.augment import CutMix, MixUp, mix_images, mix_targets, paste, soft_targets


def batch(count=6):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, 3, 8, 10, generator=generator)
    return x, torch.randint(4, (count,), generator=generator)


def test_mixing_equals_torchvision():
    x, y = batch()
    weights = torch.linspace(0, 1, 6)
    mixed, target = mix_images(x, weights), mix_targets(soft_targets(y, 4), weights)
    theirs = v2.MixUp(num_classes=4)
    for i, weight in enumerate(weights.tolist()):
        params = {"lam": weight, "labels": y, "batch_size": 6}
        assert torch.allclose(mixed[i], theirs.transform(x, params)[i], atol=1e-6)
        assert torch.allclose(target[i], theirs.transform(y, params)[i], atol=1e-6)


def test_pasting_equals_torchvision():
    x, y = batch()
    top, left = torch.arange(6) % 4, torch.arange(6)
    height, width = torch.arange(6) % 5, torch.arange(6) % 5
    pasted, weights = paste(x, top, left, height, width)
    target = mix_targets(soft_targets(y, 4), weights)
    theirs = v2.CutMix(num_classes=4)
    for i in range(6):
        y1, x1, h, w = (int(each[i]) for each in (top, left, height, width))
        params = {"box": (x1, y1, x1 + w, y1 + h), "lam_adjusted": 1 - h * w / 80}
        params |= {"labels": y, "batch_size": 6}
        assert torch.equal(pasted[i], theirs.transform(x, params)[i])
        assert torch.allclose(target[i], theirs.transform(y, params)[i], atol=1e-6)


def test_cutmix_counts_the_pixels_it_pasted():
    torch.manual_seed(0)
    x = torch.arange(500.0).view(-1, 1, 1, 1).expand(-1, 1, 9, 7).contiguous()
    mixed, target = CutMix()(x, torch.arange(500), classes=500)
    kept = (mixed == x).float().mean((1, 2, 3))
    own = target.diagonal()
    assert torch.allclose(own, kept, atol=1e-6)
    assert torch.allclose(target.sum(1), torch.ones(500))
    # Beta(1, 1) keeps half on average, and rectangles cut off at the border leave more.
    theirs = v2.CutMix(num_classes=2)
    expected = torch.tensor([theirs.make_params([x])["lam_adjusted"] for _ in range(1000)])
    assert own.mean() == pytest.approx(expected.mean().item(), abs=0.06)


def test_mixup_weighs_each_image_by_itself():
    torch.manual_seed(0)
    x = torch.rand(3000, 1, 1, 1)
    mixed, target = MixUp(alpha=0.4)(x, torch.arange(3000), classes=3000)
    weights = target.diagonal()
    expected = weights.view(-1, 1, 1, 1) * x + (1 - weights.view(-1, 1, 1, 1)) * x.roll(1, 0)
    assert torch.allclose(mixed, expected, atol=1e-6)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    assert weights.mean() == pytest.approx(0.5, abs=0.03)
    assert weights.var() == pytest.approx(1 / (4 * 1.8), rel=0.06)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_give_the_weighted_mean_of_both_labels_losses(smoothing):
    x, y = batch()
    torch.manual_seed(1)
    _, target = MixUp(alpha=1.0)(x, y, classes=4)
    torch.manual_seed(1)
    weights = MixUp(alpha=1.0)(x, torch.arange(6), classes=6)[1].diagonal()
    logits = torch.randn(6, 4)
    loss = F.cross_entropy(logits, target, label_smoothing=smoothing)
    own = F.cross_entropy(logits, y, label_smoothing=smoothing, reduction="none")
    other = F.cross_entropy(logits, y.roll(1), label_smoothing=smoothing, reduction="none")
    assert torch.allclose(loss, (weights * own + (1 - weights) * other).mean(), atol=1e-6)


def test_cutmix_after_mixup_keeps_probabilities():
    x, y = batch()
    x, target = CutMix()(*MixUp()(x, y, classes=4))
    assert target.shape == (6, 4)
    assert torch.allclose(target.sum(1), torch.ones(6))


def test_class_numbers_need_the_count_of_classes():
    x, y = batch()
    with pytest.raises(ValueError, match="classes must be an integer"):
        MixUp()(x, y)


@pytest.mark.parametrize("value", [MixUp, CutMix])
def test_impossible_settings_are_refused(value):
    with pytest.raises(ValueError, match="alpha must be above 0, got 0"):
        value(alpha=0.0)
