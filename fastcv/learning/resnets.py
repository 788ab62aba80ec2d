"""torchvision's ResNets with a head for other classes."""

from collections.abc import Callable

from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck


def torchvision_resnet(
    arch: Callable[..., ResNet],
    *,
    classes: int,
    channels: int = 3,
    dropout: float = 0.0,
    block_dropout: float = 0.0,
) -> ResNet:
    """Build a torchvision ResNet with random weights and a new last layer.

    Args:
        arch: one of torchvision's builders, called as `arch(weights=None)`.
        classes: number of logits.
        channels: 3, or 1 for a first convolution of one channel.
        dropout: fraction of the features dropped before the last layer, 0 to 1; 0 adds no layer.
        block_dropout: fraction dropped after every ReLU of the residual blocks, 0 to 1.

    Raises:
        ValueError: `arch` builds no ResNet, or `channels` is neither 1 nor 3.
    """
    name = getattr(arch, "__name__", repr(arch))
    if channels not in (1, 3):
        raise ValueError(f"images for {name} must have 1 or 3 channels, got {channels}")
    net = arch(weights=None)
    if not isinstance(net, ResNet):
        raise ValueError(
            f"arch must build a torchvision ResNet, got '{name}': use FromScratch for other nets"
        )
    if channels == 1:
        net.conv1 = _one_channel(net.conv1)
    net.fc = _head(net.fc.in_features, classes, dropout)
    if block_dropout:
        drop_out_in_blocks(net, block_dropout)
    return net


def drop_out_in_blocks(net: ResNet, fraction: float) -> None:
    """Drop a fraction of the activations after every ReLU of a ResNet's residual blocks.

    A block has one ReLU module, called twice (BasicBlock) or three times (Bottleneck). A dropout
    put into that module runs after each call and has no weights, so that their names do not change.
    """
    for block in net.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            block.relu = nn.Sequential(block.relu, nn.Dropout(fraction))


def _one_channel(conv: nn.Conv2d) -> nn.Conv2d:
    one = nn.Conv2d(1, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=False)
    nn.init.kaiming_normal_(one.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's
    return one


def _head(features: int, classes: int, dropout: float) -> nn.Module:
    linear = nn.Linear(features, classes)
    return nn.Sequential(nn.Dropout(dropout), linear) if dropout else linear
