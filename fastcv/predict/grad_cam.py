"""Where a net looks: Grad-CAM, and the features that its head judges by."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

import torch
from torch import Tensor, nn


def grad_cam(net: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Return how much each place of each image speaks for a class.

    The channels of the last layer with spatial extent are weighted by the mean gradient of the
    class's logit and added up; what speaks against the class is cut off at 0. The layer is the last
    module to return a (B, C, H, W) tensor with more than one row and column. Gradients are taken of
    its output tensor, so ReLUs that work in place do no harm.

    Args:
        net: in evaluation mode; its parameters need no gradient, and get none.
        x: the net's input.
        classes: index of the class to explain, for each image.

    Shape:
        x: (B, channels, H, W).
        classes: (B,), integers.
        returns: (B, h, w), float32, at least 0, in the layer's resolution.

    Raises:
        ValueError: no layer returns maps.

    Source: Selvaraju et al. 2017, arXiv:1610.02391, section 3.
    """
    found: list[Tensor] = []

    def remember(module: nn.Module, args: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            found[:] = [output]

    with _hooked(net, nn.Module.register_forward_hook, remember), torch.enable_grad():
        logits = net.forward(x.detach().clone().requires_grad_())
        if not found:
            raise ValueError(
                f"Grad-CAM needs a layer that returns maps of more than one pixel, "
                f"{type(net).__name__} has none"
            )
        scores = logits.gather(1, classes[:, None]).sum()
        (gradients,) = torch.autograd.grad(scores, found)
    maps = found[0].detach()  # (B, C, h, w)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * maps).sum(dim=1).relu().float()


def features(net: nn.Module, x: Tensor) -> Tensor:
    """Return what the last linear layer of a net is given.

    Shape:
        x: (B, channels, H, W).
        returns: (B, features), float32; the net's output where it has no linear layer.
    """
    found: list[Tensor] = []

    def remember(module: nn.Module, args: tuple) -> None:
        if isinstance(module, nn.Linear):
            found[:] = [args[0]]

    with _hooked(net, nn.Module.register_forward_pre_hook, remember), torch.no_grad():
        logits = net.forward(x)
    return (found[0] if found else logits).flatten(1).float()


@contextmanager
def _hooked(net: nn.Module, register, hook) -> Iterator[None]:
    """Hook every module within a net, and the net itself, for a while.

    The net is to be run by `net.forward`: a compiled net would not call the hooks of its layers.
    Other threads may run the net meanwhile; the hook sees nothing of that.
    """
    own = get_ident()

    def call(*values: object) -> None:
        if get_ident() == own:
            hook(*values)

    handles = [register(module, call) for module in net.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
