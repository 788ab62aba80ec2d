"""Report 004's net for handwritten digits."""

from torch import Tensor, nn

from fastcv.nets.sizes import require_size


class MnistCNN(nn.Module):
    """Two 3x3 convolutions, a max-pool and two linear layers, with dropout after every block.

    1,199,882 parameters at 10 classes, 1 channel and 28 pixels.

    Reading: the report lists no layers; this is the usual first net for MNIST, with unpadded
    convolutions.

    Args:
        size: height and width of the images, pixels, at least 6.
        dropout: probability of dropping an activation after each of the three hidden layers.
    """

    def __init__(
        self, *, classes: int, channels: int = 3, size: int = 32, dropout: float = 0.0
    ) -> None:
        super().__init__()
        require_size("MnistCNN", size, at_least=6)
        side = (size - 4) // 2  # two unpadded 3x3 take 4 pixels, the pool halves
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(32, 64, 3),
            nn.MaxPool2d(2),  # before the ReLU: the same values, a quarter of its work
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.classifier = nn.Sequential(
            nn.Linear(64 * side * side, 128),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(128, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        x = self.features(x)  # (B, 64, H/2 - 2, W/2 - 2)
        x = x.flatten(1)  # (B, 9216) at 28 pixels
        return self.classifier(x)  # (B, classes)
