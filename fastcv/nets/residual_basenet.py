"""Report 000's net: BaseNet grown into three convolutions and three residual blocks."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from fastcv.nets.sizes import require_size


class ResidualBaseNet(nn.Module):
    """Three convolutions, a max-pool, three residual blocks, average pool, two linear layers.

    The report's two ablations are settings. `norm=False` removes the final `BatchNorm1d` too,
    which needs batches of two images or more in training.

    Readings:
        - No activation stands between the two linear layers, as none is listed.
        - The ReLU listed with each block's second convolution comes after the addition.
        - Convolutions have biases.

    Args:
        size: height and width of the images, pixels, at least 8.
        widths: six: channels of the three convolutions, then of the three residual blocks.
        activation: "relu", or None for a net whose only non-linearity is its max-pool.
        norm: whether batch norm follows each 3x3 convolution and the logits.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int = 3,
        size: int = 32,
        widths: Sequence[int] = (64, 128, 256, 256, 512, 1024),
        activation: Literal["relu"] | None = "relu",
        norm: bool = True,
    ) -> None:
        super().__init__()
        require_size("ResidualBaseNet", size, at_least=8)
        if activation not in ("relu", None):
            raise ValueError(f'activation must be "relu" or None, got {activation!r}')
        if len(widths) != 6:
            raise ValueError(f"widths must be six, got {len(widths)}: {tuple(widths)}")
        how = {"activation": activation, "norm": norm}
        self.stem = nn.Sequential(
            *_convolution(channels, widths[0], **how),
            *_convolution(widths[0], widths[1], **how),
            *_convolution(widths[1], widths[2], **how),
            nn.MaxPool2d(2),
        )
        self.blocks = nn.Sequential(
            ResidualBlock(widths[2], widths[3], **how),
            ResidualBlock(widths[3], widths[4], stride=2, **how),
            ResidualBlock(widths[4], widths[5], stride=2, **how),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(widths[-1], 128),
            nn.Linear(128, classes),
            nn.BatchNorm1d(classes) if norm else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        x = self.stem(x)  # (B, widths[2], H/2, W/2)
        x = self.blocks(x)  # (B, widths[5], H/8, W/8)
        x = self.pool(x).flatten(1)  # (B, widths[5]), by default 1024
        return self.classifier(x)  # (B, classes)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, added to a shortcut, then activated.

    The shortcut is a 1x1 convolution if width or stride changes, otherwise the input itself.

    Shape:
        x: (B, inputs, H, W).
        returns: (B, outputs, H/stride, W/stride), rounded up.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        activation: Literal["relu"] | None,
        norm: bool,
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_convolution(inputs, outputs, stride=stride, activation=activation, norm=norm),
            *_convolution(outputs, outputs, activation=None, norm=norm),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride)
        self.activation = nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum of branch and shortcut."""
        return self.activation(self.branch(x) + self.shortcut(x))


def _convolution(
    inputs: int, outputs: int, *, stride: int = 1, activation: Literal["relu"] | None, norm: bool
) -> list[nn.Module]:
    """Return a 3x3 convolution, with its norm and its activation if it has them."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    if activation:
        layers.append(nn.ReLU())
    return layers
