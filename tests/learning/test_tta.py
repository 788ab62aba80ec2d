import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from fastcv.learning.tta import TTA, accuracy


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
        self.seen = 0

    def forward(self, x):
        self.seen += 1
        return self.layers(x)


def images():
    return torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def hand_made_views(x):
    """Six views by torchvision, the two in place as often as the four moved ones together."""
    padded = v2.Pad(1, padding_mode="reflect")(x)
    moved = [v2.functional.crop(padded, top, top, 9, 9) for top in (0, 2)]
    views = [x, x, *moved]
    return views + [v2.functional.horizontal_flip(view) for view in views]


def test_views_are_the_mean_of_the_logits_of_hand_made_views():
    net, x = Net(), images()
    with torch.inference_mode():
        expected = torch.stack([net(view) for view in hand_made_views(x)]).mean(0)
        net.seen = 0
        torch.testing.assert_close(TTA().predict(net, x), expected)
        assert net.seen == 6
        assert not torch.allclose(net(x), expected, atol=1e-2)


def test_parts_of_the_views_can_be_left_out():
    net, x = Net(), images()
    with torch.inference_mode():
        torch.testing.assert_close(TTA(mirror=False, shift=0).predict(net, x), net(x))
        both = (net(x) + net(x.flip(-1))) / 2
        torch.testing.assert_close(TTA(shift=0).predict(net, x), both)
        views = hand_made_views(x)[:4]
        expected = torch.stack([net(view) for view in views]).mean(0)
        torch.testing.assert_close(TTA(mirror=False).predict(net, x), expected)


def test_accuracy_counts_images_not_batches():
    net, x = Net(), images()
    with torch.inference_mode():
        classes = TTA().predict(net, x).argmax(1)
    wrong = (classes + 1) % 5
    batches = [(x[:4], classes[:4]), (x[4:], wrong[4:])]
    assert accuracy(net, batches, TTA()) == pytest.approx(4 / 6)


def test_a_shift_below_zero_is_refused():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        TTA(shift=-1)
