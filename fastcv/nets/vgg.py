"""VGG with batch norm, and the settings that Report 001's ladder changes."""

from collections.abc import Sequence

from torch import Tensor, nn

from fastcv.nets.init import he_normal
from fastcv.nets.sizes import require_pools, require_size

VGG19 = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
"""Widths of the sixteen convolutions of VGG-19, block by block."""


class VGG(nn.Module):
    """Blocks of 3x3 convolutions with batch norm and ReLU, max-pools between, linear layers.

    With the default widths at 224 pixels and 1000 classes this is torchvision's `vgg19_bn` with
    dropout off: same keys, same weights, same logits. The first linear layer takes all features
    that the last block has at `size`: 512 at 32 pixels.

    Args:
        size: height and width of the images, pixels, at least 2 ** len(max_pools).
        widths: channels of each convolution, one tuple per block; none is empty.
        max_pools: blocks, counted from 1, that end in a 2x2 max-pool.
        average_pool: whether each channel is averaged to one number before the linear layers.
        hidden: features of each linear layer before the last.
        dropout: probability of dropping a feature after each hidden linear layer.
        he_initialization: whether convolutions start as He et al. draw them, not as torch does.

    Source: Simonyan and Zisserman 2015, arXiv:1409.1556, table 1, column E.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int = 3,
        size: int = 32,
        widths: Sequence[Sequence[int]] = VGG19,
        max_pools: Sequence[int] = (1, 2, 3, 4, 5),
        average_pool: bool = False,
        hidden: Sequence[int] = (4096, 4096),
        dropout: float = 0.0,
        he_initialization: bool = False,
    ) -> None:
        super().__init__()
        if not widths or not all(widths):
            raise ValueError(f"widths must hold at least one width in each block, got {widths}")
        require_pools(max_pools, blocks=len(widths), what="blocks")
        require_size("VGG", size, at_least=2 ** len(max_pools))

        features: list[nn.Module] = []
        inputs = channels
        for number, block in enumerate(widths, start=1):
            for width in block:
                features += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width)]
                features += [nn.ReLU()]
                inputs = width
            if number in max_pools:
                features += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1) if average_pool else nn.Identity()

        side = 1 if average_pool else size // 2 ** len(max_pools)
        inputs *= side * side
        classifier: list[nn.Module] = []
        for width in hidden:
            classifier += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
            inputs = width
        self.classifier = nn.Sequential(*classifier, nn.Linear(inputs, classes))
        if he_initialization:
            he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        x = self.features(x)  # (B, 512, H/32, W/32) with all five max-pools
        x = self.pool(x).flatten(1)  # (B, 512) at 32 pixels, or with average_pool
        return self.classifier(x)  # (B, classes)
