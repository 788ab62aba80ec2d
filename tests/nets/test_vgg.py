"""VGG against torchvision's, and the settings Report 001's ladder needs."""

import pytest
import torch
from torch import nn
from torchvision.models.vgg import VGG as TorchvisionVGG
from torchvision.models.vgg import cfgs, make_layers, vgg19_bn

from fastcv.nets import VGG

FIVE_PAIRS = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))
FOUR_PAIRS = FIVE_PAIRS[:4]


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


def shapes(net):
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def test_vgg_published_weights_fit_key_by_key():
    with torch.device("meta"):  # 143,678,248 parameters that nobody computes with
        oracle, net = vgg19_bn(weights=None), VGG(classes=1000, size=224)
    assert shapes(net) == shapes(oracle)
    assert count(net) == 143_678_248


@pytest.mark.parametrize(
    ("letter", "widths"),
    [
        ("A", ((64,), (128,), (256, 256), (512, 512), (512, 512))),
        ("E", ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)),
    ],
)
def test_vgg_equals_torchvisions_with_copied_weights(letter, widths):
    torch.manual_seed(0)
    oracle = TorchvisionVGG(make_layers(cfgs[letter], batch_norm=True), num_classes=5, dropout=0.0)
    # Torchvision averages to 7x7, which 224 pixels have; at 64 pixels 2x2 are left.
    oracle.avgpool = nn.Identity()
    oracle.classifier[0] = nn.Linear(512 * 2 * 2, 64)
    oracle.classifier[3] = nn.Linear(64, 32)
    oracle.classifier[6] = nn.Linear(32, 5)
    for layer in oracle.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    net = VGG(classes=5, size=64, widths=widths, hidden=(64, 32))
    net.load_state_dict(oracle.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = oracle.eval()(x)
        assert expected.std() > 0
        torch.testing.assert_close(net.eval()(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, ["MaxPool2d"] * 5),
        ({"max_pools": (), "average_pool": True}, ["AdaptiveAvgPool2d"]),
        (
            {"widths": FIVE_PAIRS, "max_pools": (1, 2, 3, 4), "average_pool": True},
            ["MaxPool2d"] * 4 + ["AdaptiveAvgPool2d"],
        ),
        (
            {"widths": FIVE_PAIRS, "max_pools": (1,), "average_pool": True},
            ["MaxPool2d", "AdaptiveAvgPool2d"],
        ),
        (
            {"widths": FOUR_PAIRS, "max_pools": (1, 2, 3), "average_pool": True, "size": 128},
            ["MaxPool2d"] * 3 + ["AdaptiveAvgPool2d"],
        ),
    ],
    ids=["step06", "step07", "step11", "step14", "step15"],
)
def test_vgg_ladder_pools(settings, kinds):
    with torch.device("meta"):
        net = VGG(classes=100, hidden=(4096,), **settings)
        size = settings.get("size", 32)
        assert net(torch.empty(2, 3, size, size)).shape == (2, 100)
    assert [type(m).__name__ for m in net.modules() if "Pool" in type(m).__name__] == kinds
    assert net.classifier[0].in_features == 512


def test_vgg_step_15_parameters_by_arithmetic():
    with torch.device("meta"):
        net = VGG(
            classes=100,
            size=128,
            widths=FOUR_PAIRS,
            max_pools=(1, 2, 3),
            average_pool=True,
            hidden=(4096,),
        )
    pairs = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512)]
    convolutions = sum((9 * i + 1 + 2) * o for i, o in [*pairs, (512, 512)])
    assert count(net) == convolutions + (512 + 1) * 4096 + (4096 + 1) * 100


def test_vgg_without_middle_linear_loses_exactly_that():
    with torch.device("meta"):
        both, one = VGG(classes=100), VGG(classes=100, hidden=(4096,))
    assert count(both) - count(one) == (4096 + 1) * 4096


def test_vgg_he_initialization_draws_convolutions_normal():
    torch.manual_seed(0)
    plain = VGG(classes=5, widths=((64, 64),), max_pools=(1,), hidden=(8,))
    drawn = VGG(classes=5, widths=((64, 64),), max_pools=(1,), hidden=(8,), he_initialization=True)
    expected = (2 / (64 * 9)) ** 0.5
    assert drawn.features[3].weight.std().item() == pytest.approx(expected, rel=0.03)
    assert (drawn.features[3].bias == 0).all()
    # torch's default is uniform up to 1 / sqrt(fan_in)
    assert plain.features[3].weight.abs().max() <= (1 / (64 * 9)) ** 0.5
    assert (plain.features[3].bias != 0).any()


def test_vgg_dropout_acts_only_in_training():
    torch.manual_seed(0)
    net = VGG(classes=5, widths=((8,),), max_pools=(1,), hidden=(64,), dropout=0.5)
    x = torch.randn(2, 3, 32, 32)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 31}, "size must be at least 32 pixels for this VGG, got 31"),
        ({"widths": FOUR_PAIRS}, "max_pools must name blocks between 1 and 4, each once"),
        ({"widths": ((64,), ())}, "widths must hold at least one width in each block"),
        ({"widths": ()}, "widths must hold at least one width in each block"),
    ],
)
def test_vgg_wrong_settings_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        VGG(classes=100, **settings)
