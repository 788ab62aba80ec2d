"""Report 003's net: a residual net for CIFAR-10 with fewer than five million parameters."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from fastcv.nets.init import he_normal
from fastcv.nets.sizes import require_size, require_stages


class LightResNet(nn.Module):
    """Residual network for small images: 5x5 stem, one stage per width, pooled linear head.

    The defaults are the report's best net, with 2,799,146 parameters at 10 classes. Its others are
    `depths=(3,) * 4`, with 4,367,786, and widths 32-64-128-128-256, depths 2-2-2-2-3 and strides
    1-2-2-2-2, with 4,587,306. Convolutions start as He et al. draw them (normal, fan-out).

    Args:
        size: height and width of the images, pixels, at least the product of `strides`.
        widths: channels of each stage, in order; the stem has the first.
        depths: residual blocks of each stage; as long as `widths`.
        strides: stride of each stage's first block; as long as `widths`.

    Source: He et al. 2016, arXiv:1512.03385, section 4.2.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int = 3,
        size: int = 32,
        widths: Sequence[int] = (32, 64, 128, 256),
        depths: Sequence[int] = (2, 2, 2, 2),
        strides: Sequence[int] = (1, 2, 2, 2),
    ) -> None:
        super().__init__()
        require_stages(widths=widths, depths=depths, strides=strides)
        require_size("LightResNet", size, at_least=prod(strides))
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 5, padding=2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        stages: list[nn.Module] = []
        inputs = widths[0]
        for outputs, depth, stride in zip(widths, depths, strides, strict=True):
            first = BasicBlock(inputs, outputs, stride=stride)
            others = (BasicBlock(outputs, outputs) for _ in range(depth - 1))
            stages.append(nn.Sequential(first, *others))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        x = self.stem(x)  # (B, widths[0], H, W)
        x = self.stages(x)  # (B, widths[-1], H/8, W/8) with the default strides
        x = self.pool(x).flatten(1)  # (B, widths[-1])
        return self.classifier(x)  # (B, classes)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to a shortcut, then ReLU.

    The shortcut is a 1x1 convolution with batch norm if width or stride changes, otherwise the
    input itself.

    Shape:
        x: (B, inputs, H, W).
        returns: (B, outputs, H/stride, W/stride), rounded up.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs),
            )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum of branch and shortcut."""
        return self.activation(self.branch(x) + self.shortcut(x))
