"""The nets of Reports 000, 002 and 003: parameters by arithmetic, blocks against an oracle."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock as TorchvisionBlock

from fastcv.nets import LightResNet, ResidualBaseNet, ScaledResNet
from fastcv.nets.light_resnet import BasicBlock
from fastcv.nets.residual_basenet import ResidualBlock
from fastcv.nets.scaled_resnet import ScaledBlock


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


def conv(inputs, outputs, kernel=3):
    return (inputs * kernel**2 + 1) * outputs


def filled(module):
    """Return the module in eval mode with batch norms that are far from the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


# Report 003


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({}, 2_799_146),
        ({"depths": (3, 3, 3, 3)}, 4_367_786),
        (
            {
                "widths": (32, 64, 128, 128, 256),
                "depths": (2, 2, 2, 2, 3),
                "strides": (1, 2, 2, 2, 2),
            },
            4_587_306,
        ),
    ],
)
def test_light_resnet_published_parameters(settings, parameters):
    assert count(LightResNet(classes=10, **settings)) == parameters


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(8, 8, 1), (8, 16, 1), (8, 16, 2)])
def test_basic_block_equals_torchvisions(inputs, outputs, stride):
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
    oracle = filled(TorchvisionBlock(inputs, outputs, stride, downsample))
    block = BasicBlock(inputs, outputs, stride=stride).eval()
    copied = zip(block.state_dict(), oracle.state_dict().values(), strict=True)
    block.load_state_dict(dict(copied))
    x = torch.randn(4, inputs, 9, 9)
    with torch.inference_mode():
        torch.testing.assert_close(block(x), oracle(x))


def test_light_resnet_convolutions_start_he_normal():
    torch.manual_seed(0)
    net = LightResNet(classes=10)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            expected = (2 / (layer.out_channels * layer.kernel_size[0] ** 2)) ** 0.5
            # five standard errors of a sample's standard deviation
            margin = 5 * expected / (2 * layer.weight.numel()) ** 0.5
            assert abs(layer.weight.std().item() - expected) < margin
            assert layer.weight.abs().max() > 2 * expected  # a uniform one ends at 1.73
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert (layer.bias == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": (2, 2, 2)}, "widths and depths and strides must be equally long.* 4 and 3"),
        ({"depths": (2, 2, 0, 2)}, "at least 1, got .*(2, 2, 0, 2)"),
        ({"widths": (), "depths": (), "strides": ()}, "not empty"),
        ({"size": 7}, "size must be at least 8 pixels for this LightResNet, got 7"),
    ],
)
def test_light_resnet_wrong_settings_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        LightResNet(classes=10, **settings)


# Report 000


def residual_basenet_parameters(*, norm):
    stem = conv(3, 64) + conv(64, 128) + conv(128, 256)
    block1 = 2 * conv(256, 256)
    block2 = conv(256, 512) + conv(512, 512) + conv(256, 512, 1)
    block3 = conv(512, 1024) + conv(1024, 1024) + conv(512, 1024, 1)
    linears = (1024 + 1) * 128 + (128 + 1) * 100
    norms = 2 * (64 + 128 + 256 + 2 * (256 + 512 + 1024) + 100) if norm else 0
    return stem + block1 + block2 + block3 + linears + norms


@pytest.mark.parametrize("norm", [True, False])
def test_residual_basenet_parameters_by_arithmetic(norm):
    assert count(ResidualBaseNet(classes=100, norm=norm)) == residual_basenet_parameters(norm=norm)


def test_residual_basenet_no_norm_has_none():
    kinds = {type(layer) for layer in ResidualBaseNet(classes=100, norm=False).modules()}
    assert not kinds & {nn.BatchNorm2d, nn.BatchNorm1d}


def test_residual_basenet_no_activation_same_weights_no_relu():
    plain = ResidualBaseNet(classes=100)
    linear = ResidualBaseNet(classes=100, activation=None)
    shapes = [parameter.shape for parameter in plain.parameters()]
    assert [parameter.shape for parameter in linear.parameters()] == shapes
    assert sum(isinstance(layer, nn.ReLU) for layer in plain.modules()) == 3 + 2 * 3
    assert not any(isinstance(layer, nn.ReLU) for layer in linear.modules())


def test_residual_basenet_linears_have_no_activation_between():
    names = [type(layer).__name__ for layer in ResidualBaseNet(classes=100).classifier]
    assert names == ["Linear", "Linear", "BatchNorm1d"]


def test_residual_block_halves_and_ends_in_its_activation():
    x = torch.randn(2, 8, 8, 8)
    block = ResidualBlock(8, 16, stride=2, activation="relu", norm=True)
    assert block(x).shape == (2, 16, 4, 4)
    assert block(x).min() == 0
    linear = ResidualBlock(8, 16, stride=2, activation=None, norm=True)
    assert linear(x).min() < 0


def test_residual_block_without_activation_and_norm_is_affine():
    block = ResidualBlock(8, 8, activation=None, norm=False)
    x, y = torch.randn(2, 2, 8, 8, 8)
    middle = (block(x) + block(y)) / 2
    torch.testing.assert_close(block((x + y) / 2), middle, rtol=1e-4, atol=1e-5)


def test_residual_basenet_widths_are_the_six_it_has():
    with pytest.raises(ValueError, match=r"widths must be six, got 2: \(8, 16\)"):
        ResidualBaseNet(classes=10, widths=(8, 16))
    net = ResidualBaseNet(classes=10, widths=(1, 2, 3, 4, 5, 6))
    shapes = [layer.out_channels for layer in net.stem if isinstance(layer, nn.Conv2d)]
    assert shapes == [1, 2, 3]
    assert [block.branch[0].out_channels for block in net.blocks] == [4, 5, 6]


def test_residual_basenet_unknown_activation_is_an_error():
    with pytest.raises(ValueError, match="activation must be \"relu\" or None, got 'gelu'"):
        ResidualBaseNet(classes=100, activation="gelu")


# Report 002


def scaled_parameters(
    *, widths=(64, 128, 256, 512), depths=(3, 4, 6, 3), convs=2, shortcut=True, side=16
):
    blocks = [width for width, depth in zip(widths, depths, strict=True) for _ in range(depth)]
    total = conv(3, widths[0]) + 2 * widths[0]
    for inputs, outputs in pairwise([widths[0], *blocks]):
        total += conv(inputs, outputs) + (convs - 1) * conv(outputs, outputs) + 2 * convs * outputs
        total += conv(inputs, outputs, 1) if shortcut and inputs != outputs else 0
    return total + (widths[-1] * side**2 + 1) * 50 + (50 + 1) * 100 + 2 * 100


FIVE = {"depths": (1, 1, 1, 1), "convs": 1, "shortcut": False}
SIX = {**FIVE, "depths": (1, 1, 1, 2)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({**FIVE, "scale": 1.0, "max_pools": (1, 3)}, scaled_parameters(**FIVE, side=8)),
        ({**SIX, "scale": 1.0, "max_pools": (1, 3)}, scaled_parameters(**SIX, side=8)),
        ({"shortcut": False, "scale": 1.0}, scaled_parameters(shortcut=False)),
        ({"scale": 1.0}, scaled_parameters()),
        ({}, scaled_parameters()),
        ({"hidden_norm": True}, scaled_parameters() + 2 * 50),
    ],
    ids=["step02", "step03", "step04", "step05", "step06", "step07"],
)
def test_scaled_resnet_ladder_parameters_by_arithmetic(settings, expected):
    assert count(ScaledResNet(classes=100, **settings)) == expected


def test_scaled_resnet_stays_at_full_resolution_until_the_last_pool():
    net = ScaledResNet(classes=100, size=16)
    sides = []
    for stage in net.stages:
        stage[-1].register_forward_pre_hook(lambda _, x: sides.append(x[0].shape[-1]))
    with torch.inference_mode():
        net.eval()(torch.randn(1, 3, 16, 16))
    assert sides == [16, 16, 16, 16]
    assert net.classifier[0].in_features == 512 * 8 * 8


def test_scaled_resnet_max_pools_follow_the_named_stages():
    net = ScaledResNet(classes=10, depths=(1, 1, 1, 1), max_pools=(1, 3))
    ends = [isinstance(stage[-1], nn.MaxPool2d) for stage in net.stages]
    assert ends == [True, False, True, False]


@pytest.mark.parametrize("outputs", [8, 16])
def test_scaled_block_is_its_input_plus_a_tenth_of_its_branch(outputs):
    block = filled(ScaledBlock(8, outputs, convs=2, shortcut=True, scale=0.1))
    x = torch.randn(2, 8, 6, 6)
    branch = x
    for layer in block.branch:
        branch = layer(branch)
    same = x if outputs == 8 else block.shortcut(x)
    torch.testing.assert_close(block(x), same + branch / 10)
    assert [type(layer).__name__ for layer in block.branch] == ["Conv2d", "BatchNorm2d", "ReLU"] * 2


def test_scaled_block_without_shortcut_is_its_branch():
    block = filled(ScaledBlock(8, 8, convs=1, shortcut=False, scale=1.0))
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block(x), block.branch(x))
    assert block(x).min() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": (3, 4, 6)}, "widths and depths must be equally long .* 4 and 3"),
        ({"max_pools": (1, 5)}, r"stages between 1 and 4, each once, got \(1, 5\)"),
        ({"max_pools": (4, 4)}, "each once"),
        ({"convs": 0}, "convs must be at least 1, got 0"),
    ],
)
def test_scaled_resnet_wrong_settings_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        ScaledResNet(classes=100, **settings)
