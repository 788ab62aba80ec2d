"""Gradients of convolutions in bf16, against float64 and against torch's own."""

from contextlib import nullcontext

import pytest
import torch
from test_precision import make_learner
from torch import nn

from fastcv.learning.conv_gradients import ConvGradients, needs_fp32_gradients

BF16 = 2**-8  # relative rounding of a number


def conv(kernel=5, *, channels=6, groups=6, **keywords):
    torch.manual_seed(0)
    return nn.Conv2d(channels, channels, kernel, groups=groups, **keywords)


def computed(net, x, scope=None):
    """Return the output of a net, in bf16 if `x` is float32, and the gradients of all inputs."""
    x = x.clone().requires_grad_()
    net.zero_grad()
    in_bf16 = torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.float32)
    with in_bf16, scope or nullcontext():
        out = net(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=x.dtype).reshape(out.shape)
    (out.to(x.dtype) * weights).sum().backward()
    return out, [x.grad, *(each.grad for each in net.parameters())]


@pytest.mark.parametrize(
    "keywords",
    [
        {"padding": 2},
        {"kernel": 7, "padding": 3, "bias": False},
        {"kernel": 3, "stride": 2, "padding": 1},
        {"kernel": 3, "stride": (2, 1)},
        {"kernel": 3, "dilation": 2, "padding": (2, 0)},
        {"kernel": (1, 5)},
    ],
)
def test_gradients_are_closer_to_float64_than_those_of_torch_in_bf16(keywords):
    net = conv(**keywords)
    assert needs_fp32_gradients(nn.Sequential(net))
    x = torch.randn(3, 6, 12, 12, generator=torch.Generator().manual_seed(1))
    out, ours = computed(net, x, ConvGradients())
    assert out.grad_fn.name() == "_ConvFp32GradientsBackward"
    torchs_out, torchs = computed(net, x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, torchs_out, rtol=0, atol=0)
    exact = computed(net.double(), x.double())[1]
    for mine, other, oracle in zip(ours, torchs, exact, strict=True):
        assert mine.dtype == torch.float32
        error, torchs_error = ((each - oracle).norm() / oracle.norm() for each in (mine, other))
        assert error < BF16
        assert error <= 1.05 * torchs_error


@pytest.mark.parametrize(
    "keywords",
    [
        {"kernel": 3, "padding": 1},  # fast in bf16
        {"groups": 1},
        {"groups": 3},
        {"channels": 1, "groups": 1},
        {"padding": "same"},
    ],
)
def test_other_convolutions_stay_as_they_are(keywords):
    out, _ = computed(
        conv(**keywords), torch.randn(2, keywords.get("channels", 6), 8, 8), ConvGradients()
    )
    assert out.grad_fn.name() != "_ConvFp32GradientsBackward"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("size", "keywords"),
    [
        (1, {"kernel_size": 3, "stride": 2, "padding": 1}),  # ResNet-18's last on 16 pixels
        (1, {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 4}),
        (1, {"kernel_size": 5, "stride": 2, "padding": 2}),
        (2, {"kernel_size": 7, "stride": 4, "padding": 3}),
        ((4, 1), {"kernel_size": 3, "stride": 2, "padding": 1}),
        (3, {"kernel_size": 4, "stride": 4, "padding": 1}),
    ],
)
def test_weights_that_meet_only_padding_get_a_gradient_of_zero(size, keywords, layout):
    torch.manual_seed(0)
    net = nn.Conv2d(64, 128, bias=False, **keywords).to(memory_format=layout)
    assert needs_fp32_gradients(net)
    height, width = (size, size) if isinstance(size, int) else size
    x = torch.randn(32, 64, height, width).contiguous(memory_format=layout)
    out, ours = computed(net, x, ConvGradients())
    assert out.dtype == torch.bfloat16
    exact = computed(net.double(), x.double())[1]
    for mine, oracle in zip(ours, exact, strict=True):
        assert (mine - oracle).norm() / oracle.norm() < BF16
        assert not mine[oracle == 0].any()


def test_a_strided_convolution_of_a_wider_image_stays_as_it_is():
    net = nn.Conv2d(4, 8, 3, stride=2, padding=1)
    out, _ = computed(net, torch.randn(2, 4, 2, 2), ConvGradients())
    assert out.grad_fn.name() != "_ConvFp32GradientsBackward"


def test_nothing_is_kept_where_no_gradient_is_asked_for():
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), ConvGradients():
        assert conv()(torch.randn(2, 6, 8, 8)).grad_fn is None


def test_frozen_weights_get_no_gradient():
    net = conv(padding=2)
    net.weight.requires_grad_(False)
    x = torch.randn(2, 6, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), ConvGradients():
        net(x).float().sum().backward()
    assert net.weight.grad is None
    assert x.grad is not None
    assert net.bias.grad.tolist() == pytest.approx([2 * 8 * 8] * 6)


class Seen(nn.Module):
    """Notes what computes the gradient of its convolution."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv
        self.head = nn.Linear(3, 2)
        self.seen = set()

    def forward(self, x):
        out = self.conv(x)
        if out.grad_fn is not None:
            self.seen.add(out.grad_fn.name())
        return self.head(out.mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "name"), [("bf16", "_ConvFp32GradientsBackward"), ("fp32", "ConvolutionBackward0")]
)
@pytest.mark.parametrize(
    "settings", [{"kernel_size": 5, "groups": 3}, {"kernel_size": 3, "stride": 16, "padding": 1}]
)
def test_training_in_bf16_takes_them(settings, kind, name):
    learn = make_learner(kind)
    learn.model = Seen(nn.Conv2d(3, 3, **settings))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert learn.model.seen == {name}
