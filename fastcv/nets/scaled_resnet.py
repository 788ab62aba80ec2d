"""Report 002's net: residual blocks at full resolution, whose branches are scaled by 0.1."""

from collections.abc import Sequence

from torch import Tensor, nn

from fastcv.nets.sizes import require_pools, require_size, require_stages


class ScaledResNet(nn.Module):
    """Stem, stages of residual blocks without strides, two linear layers, batch norm on logits.

    The defaults are the report's final net: 16 blocks at 32x32, one max-pool before the linear
    layers. The steps of its ladder are settings: one convolution a block, no shortcut, a branch
    at full scale, max-pools between stages, batch norm after the first linear layer.
    In training, a batch needs two images or more for the batch norm on logits.

    Readings:
        - The shortcut is a 1x1 convolution without norm if the width changes, otherwise the input
          itself.
        - Convolutions have biases.

    Args:
        size: height and width of the images, pixels, at least 2 ** len(max_pools).
        widths: channels of each stage, in order; the stem has the first.
        depths: blocks of each stage; as long as `widths`.
        convs: repetitions of convolution, batch norm and ReLU in a block.
        shortcut: whether a block adds its input to its branch.
        scale: factor of a block's branch.
        max_pools: stages, counted from 1, that end in a 2x2 max-pool.
        hidden_norm: whether batch norm stands between the first linear layer and its ReLU.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int = 3,
        size: int = 32,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        convs: int = 2,
        shortcut: bool = True,
        scale: float = 0.1,
        max_pools: Sequence[int] = (4,),
        hidden_norm: bool = False,
    ) -> None:
        super().__init__()
        require_stages(widths=widths, depths=depths)
        if convs < 1:
            raise ValueError(f"convs must be at least 1, got {convs}")
        require_pools(max_pools, blocks=len(widths), what="stages")
        require_size("ScaledResNet", size, at_least=2 ** len(max_pools))
        side = size // 2 ** len(max_pools)
        self.stem = nn.Sequential(*_convolution(channels, widths[0]))
        stages: list[nn.Module] = []
        inputs = widths[0]
        for number, (outputs, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            blocks: list[nn.Module] = [
                ScaledBlock(width, outputs, convs=convs, shortcut=shortcut, scale=scale)
                for width in [inputs] + [outputs] * (depth - 1)
            ]
            inputs = outputs
            if number in max_pools:
                blocks.append(nn.MaxPool2d(2))
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Sequential(
            nn.Linear(widths[-1] * side * side, 50),
            nn.BatchNorm1d(50) if hidden_norm else nn.Identity(),
            nn.ReLU(),
            nn.Linear(50, classes),
            nn.BatchNorm1d(classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        x = self.stem(x)  # (B, widths[0], H, W)
        x = self.stages(x)  # (B, widths[-1], H/2, W/2) with the default max-pool
        x = x.flatten(1)  # (B, 512 * 16 * 16) by default
        return self.classifier(x)  # (B, classes)


class ScaledBlock(nn.Module):
    """Convolution, batch norm and ReLU, repeated and scaled, plus the input.

    Nothing follows the addition: the branch ends in a ReLU, as in the report's table.

    Shape:
        x: (B, inputs, H, W).
        returns: (B, outputs, H, W).
    """

    def __init__(
        self, inputs: int, outputs: int, *, convs: int, shortcut: bool, scale: float
    ) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * convs
        self.branch = nn.Sequential(
            *(layer for i in range(convs) for layer in _convolution(widths[i], widths[i + 1]))
        )
        self.scale = scale
        self.shortcut: nn.Module | None = None
        if shortcut:
            same = inputs == outputs
            self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled branch, plus the shortcut if there is one."""
        branch = self.scale * self.branch(x)
        return branch if self.shortcut is None else branch + self.shortcut(x)


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    """Return a 3x3 convolution, its batch norm and its ReLU."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
