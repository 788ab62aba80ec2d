"""The course's starter net, from which Reports 000, 001 and 002 set out."""

from torch import Tensor, nn

from fastcv.nets.sizes import require_size


class BaseNet(nn.Module):
    """Two 5x5 convolutions and two linear layers: 28,022 parameters at 100 classes and 32 pixels.

    Args:
        size: height and width of the images, pixels, at least 16.
        norm: whether batch norm stands between each convolution and its ReLU (Report 002, step 1).
    """

    def __init__(
        self, *, classes: int, channels: int = 3, size: int = 32, norm: bool = False
    ) -> None:
        super().__init__()
        require_size("BaseNet", size, at_least=16)
        side = ((size - 4) // 2 - 4) // 2  # an unpadded 5x5 takes 4 pixels, a pool halves
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5),
            nn.BatchNorm2d(6) if norm else nn.Identity(),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.BatchNorm2d(16) if norm else nn.Identity(),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * side * side, 50),
            nn.ReLU(),
            nn.Linear(50, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        x = self.features(x)  # (B, 16, H/4 - 3, W/4 - 3)
        x = x.flatten(1)  # (B, 400) at 32 pixels
        return self.classifier(x)  # (B, classes)
