"""Gradients of convolutions for which bf16 is slow or wrong on a processor."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class ConvGradients(TorchFunctionMode):
    """Within the block, compute gradients of some convolutions in fp32 instead of bf16.

    For use within bf16 autocast on a processor. Two kinds of convolutions are meant:

    - Depthwise ones: oneDNN's gradient is fast in bf16 for kernels of 3x3 with stride 1 alone; with
      others it takes 3 to 14 times as long as in fp32, which is the larger part of an
      EfficientNet's training step.
    - Those whose input is narrower than their stride, as a ResNet's last on images of 16 pixels:
      oneDNN's bf16 gradient of the weights that meet only padding is then whatever lay in memory,
      1e36 or not a number, where it must be zero.

    The forward pass stays in bf16, and other convolutions stay as they are.
    """

    def __torch_function__(
        self,
        function: Callable,
        types: Iterable[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if function is F.conv2d and torch.is_grad_enabled():
            function = _conv2d
        return function(*args, **kwargs or {})


def needs_fp32_gradients(net: nn.Module) -> bool:
    """Return whether a net has convolutions of which `ConvGradients` computes some gradients."""
    return any(
        isinstance(each, nn.Conv2d)
        and (
            _is_slow(each.weight, each.stride, each.dilation, each.groups)
            or _reads_garbage(1, each.weight, each.stride)
        )
        for each in net.modules()
    )


def _is_slow(weight: Tensor, stride: Any, dilation: Any, groups: int) -> bool:
    depthwise = groups > 1 and weight.shape[:2] == (groups, 1)
    return depthwise and not (
        weight.shape[2:] == (3, 3) and _pair(stride) == (1, 1) and _pair(dilation) == (1, 1)
    )


def _reads_garbage(width: int, weight: Tensor, stride: Any) -> bool:
    """Whether oneDNN's bf16 gradient of some weights may be what lay in memory."""
    return weight.shape[3] > 1 and width < _pair(stride)[1]


def _pair(value: int | Iterable[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """Compute `F.conv2d`, whose signature it has."""
    in_fp32 = _is_slow(weight, stride, dilation, groups)
    in_fp32 = in_fp32 or _reads_garbage(input.shape[-1], weight, stride)
    if isinstance(padding, str) or not in_fp32:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    settings = _pair(stride), _pair(padding), _pair(dilation), groups
    return _ConvFp32Gradients.apply(input, weight, bias, *settings)


class _ConvFp32Gradients(torch.autograd.Function):
    """A convolution in bf16 with its gradients in fp32."""

    @staticmethod
    def forward(ctx, input, weight, bias, stride, padding, dilation, groups):
        used = [each if each is None else each.bfloat16() for each in (input, weight, bias)]
        ctx.save_for_backward(*used[:2])
        ctx.dtypes = [each if each is None else each.dtype for each in (input, weight, bias)]
        ctx.settings = stride, padding, dilation, groups
        return F.conv2d(*used, *ctx.settings)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        input, weight = (each.float() for each in ctx.saved_tensors)
        stride, padding, dilation, groups = ctx.settings
        gradients = torch.ops.aten.convolution_backward(
            gradient.float(),
            input,
            weight,
            None if ctx.dtypes[2] is None else [len(weight)],
            stride,
            padding,
            dilation,
            False,  # not transposed
            [0, 0],  # padding of the output, of a transposed one
            groups,
            ctx.needs_input_grad[:3],
        )
        kept = [
            each if each is None else each.to(dtype)
            for each, dtype in zip(gradients, ctx.dtypes, strict=True)
        ]
        return *kept, None, None, None, None
