import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastcv.nets import SpeedrunNet


def smooth_images(count=200, channels=3, size=16):
    """Images whose neighboring pixels and channels are alike, as photographs' are."""
    torch.manual_seed(0)
    x = F.avg_pool2d(torch.randn(count, channels, size + 4, size + 4), 5, stride=1)
    return 4 * x + 2 * x.mean(1, keepdim=True) + 0.1 * torch.randn_like(x)


def second_moments(net, images):
    """Of the positive half of the first layer's outputs, over all patches."""
    values = net.whitening(images)[:, : net.whitening.values].transpose(0, 1).flatten(1)
    return values @ values.T / values.shape[1]


@pytest.mark.parametrize(("channels", "patch"), [(3, 2), (1, 3)])
def test_whitened_patches_have_the_identity_as_covariance(channels, patch):
    net = SpeedrunNet(classes=2, channels=channels, size=16, patch=patch)
    images = smooth_images(channels=channels)
    size = channels * patch**2
    with torch.no_grad():
        assert (second_moments(net, images) - torch.eye(size)).abs().max() > 0.5
        net.whitening.fit(images, epsilon=0.0)
        moments = second_moments(net, images)
        torch.testing.assert_close(moments, torch.eye(size), atol=1e-3, rtol=0)
        outputs = net.whitening(images)
        torch.testing.assert_close(outputs[:, :size], -outputs[:, size:])


def test_whitening_is_the_eigenvectors_of_unfolded_patches():
    net, images = SpeedrunNet(classes=2, size=16), smooth_images()
    net.whiten(images)
    patches = F.unfold(images, 2).transpose(0, 1).flatten(1)  # an oracle that copies every patch
    squares, vectors = torch.linalg.eigh(patches @ patches.T / patches.shape[1])
    expected = (vectors / (squares + 5e-4).sqrt()).T.flip(0)
    found = net.whitening.filters[:12].flatten(1)
    assert torch.allclose(found.abs(), expected.abs(), atol=1e-2, rtol=1e-2)  # signs are free


def test_epsilon_keeps_noise_small():
    net = SpeedrunNet(classes=2, size=16)
    flat = smooth_images().mean(1, keepdim=True).expand(-1, 3, -1, -1)  # gray: color is constant
    net.whiten(flat)
    assert net.whitening.filters.abs().max() <= 1 / 5e-4**0.5


def test_first_layer_starts_as_an_orthonormal_transform_of_patches():
    filters = SpeedrunNet(classes=2).whitening.filters.flatten(1)
    torch.testing.assert_close(filters[:12] @ filters[:12].T, torch.eye(12))
    torch.testing.assert_close(filters[0], torch.full((12,), 12**-0.5))  # the mean comes first


def test_filters_are_saved_but_not_trained():
    net = SpeedrunNet(classes=2)
    assert "whitening.filters" in net.state_dict()
    assert "whitening.filters" not in dict(net.named_parameters())


def test_default_has_the_stated_number_of_parameters():
    assert sum(p.numel() for p in SpeedrunNet(classes=10).parameters()) == 1_971_352


def test_convolutions_start_as_the_identity_on_their_first_outputs():
    stage = SpeedrunNet(classes=2).stages[0]
    x = torch.randn(1, 24, 6, 6)
    torch.testing.assert_close(stage.convolutions[0](x)[:, :24], x)
    assert stage.convolutions[0](x)[:, 24:].std() > 0.1


def test_shift_is_a_batch_norm_without_scale():
    norm = SpeedrunNet(classes=2, memory=0.75).stages[0].norms[0]
    oracle = nn.BatchNorm2d(64, momentum=0.25, affine=False)
    x = 3 * torch.randn(8, 64, 4, 4) + 1
    for _ in range(2):
        torch.testing.assert_close(norm(x), oracle(x))
    torch.testing.assert_close(norm.eval()(x), oracle.eval()(x))
    assert [name for name, _ in norm.named_parameters()] == ["bias"]


def test_third_convolution_stands_on_a_shortcut():
    stage = SpeedrunNet(classes=2, depth=3).eval().stages[1]
    nn.init.zeros_(stage.convolutions[2].weight)
    x = torch.randn(2, 64, 8, 8)
    first = F.gelu(stage.norms[0](F.max_pool2d(stage.convolutions[0](x), 2)))
    torch.testing.assert_close(stage(x), F.gelu(first))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 1}, "depth must be at least 2 convolutions a stage, got 1"),
        ({"widths": ()}, "not empty"),
        ({"patch": 4, "size": 10}, "at least 11 pixels .*got 10"),
    ],
)
def test_settings_that_make_no_net_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SpeedrunNet(classes=2, **settings)
