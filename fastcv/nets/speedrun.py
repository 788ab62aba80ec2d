"""A net that learns CIFAR-10 in a few epochs: its first layer is whitened, not trained."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcv.nets.sizes import require_size, require_stages


class SpeedrunNet(nn.Module):
    """Plain convolutional net for short trainings: whitened patches, three stages, linear head.

    The first layer's filters are fixed: a cosine transform, until `whiten` computes them from
    training images. Every other convolution starts as the identity in as many outputs as it has
    inputs, its batch norm shifts but does not scale, and the logits are divided by the number of
    features, so that one learning rate of the head serves all widths.

    The defaults have 1,971,352 parameters at 10 classes.

    Args:
        size: height and width of the images, pixels; each stage halves it.
        widths: channels of each stage, in order.
        depth: convolutions of each stage, at least 2; each after the second adds a shortcut.
        patch: height and width in pixels of the patches to whiten.
        memory: fraction of the running statistics that survives a training batch; short trainings
            must forget faster than torch's 0.9.

    Source: Jordan 2024, arXiv:2404.00498.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int = 3,
        size: int = 32,
        widths: Sequence[int] = (64, 256, 256),
        depth: int = 2,
        patch: int = 2,
        memory: float = 0.6,
    ) -> None:
        super().__init__()
        require_stages(widths=widths)
        if depth < 2:
            raise ValueError(f"depth must be at least 2 convolutions a stage, got {depth}")
        require_size("SpeedrunNet", size, at_least=2 ** len(widths) + patch - 1)
        self.whitening = Whitening(channels, patch)
        inputs = [self.whitening.outputs, *widths[:-1]]
        self.stages = nn.Sequential(
            *(Stage(*shape, depth, memory) for shape in zip(inputs, widths, strict=True))
        )
        self.classifier = nn.Linear(widths[-1], classes, bias=False)
        nn.init.normal_(self.classifier.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        x = F.gelu(self.whitening(x))  # (B, 2 * channels * patch ** 2, H - patch + 1, W - ...)
        x = self.stages(x)  # (B, widths[-1], 3, 3) with 32 pixels and the other defaults
        x = x.amax((2, 3))  # (B, widths[-1])
        return self.classifier(x) / x.shape[1]  # (B, classes)

    def whiten(self, images: Tensor) -> None:
        """Set the first layer's filters from training images; see `Whitening.fit`."""
        self.whitening.fit(images)


class Whitening(nn.Module):
    """Fixed filters that decorrelate the values of small patches, each filter with its negative.

    Only the bias is trained. After the activation, the next layer sees the positive and the
    negative part of every whitened value.

    Shape:
        x: (B, channels, H, W).
        returns: (B, 2 * channels * patch ** 2, H - patch + 1, W - patch + 1).
    """

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.values = channels * patch**2  # of a patch
        self.outputs = 2 * self.values
        self.register_buffer("filters", torch.empty(self.outputs, channels, patch, patch))
        self.bias = nn.Parameter(torch.zeros(self.outputs))
        # Before `fit`: close to what whitening learns from any natural images.
        self._set(torch.kron(_cosines(channels), torch.kron(_cosines(patch), _cosines(patch))))

    def forward(self, x: Tensor) -> Tensor:
        """Whiten every patch."""
        return F.conv2d(x, self.filters, self.bias)

    @torch.no_grad()
    def fit(self, images: Tensor, epsilon: float = 5e-4) -> None:
        """Set the filters so that patches of the images are uncorrelated, with mean square 1.

        Args:
            images: (N, channels, H, W), float, normalized as in training, on any device; a few
                thousand are enough.
            epsilon: added to the mean square along each direction, so as not to amplify noise.
        """
        x = images.to(torch.float32)
        height, width = self.filters.shape[2:]
        rows, columns = x.shape[2] - height + 1, x.shape[3] - width + 1
        # A row for each value of a patch, a column for each patch, without copying each patch.
        shifted = torch.stack(
            [
                x[:, :, top : top + rows, left : left + columns].transpose(0, 1).flatten(1)
                for top in range(height)
                for left in range(width)
            ],
            dim=1,
        ).flatten(0, 1)  # (channels * patch ** 2, N * rows * columns)
        moments = (shifted @ shifted.T / shifted.shape[1]).double()
        # On the CPU: a GPU's solver takes a second to start, for a matrix of a few numbers.
        # Ascending; directions are columns.
        squares, directions = torch.linalg.eigh(moments.cpu())
        self._set((directions / (squares + epsilon).sqrt()).T.flip(0))

    @torch.no_grad()
    def _set(self, rows: Tensor) -> None:
        filters = rows.view(self.values, *self.filters.shape[1:])
        self.filters.copy_(torch.cat((filters, -filters)))


class Stage(nn.Module):
    """3x3 convolutions with batch norm and GELU, halving height and width after the first."""

    def __init__(self, inputs: int, outputs: int, depth: int, memory: float) -> None:
        super().__init__()
        widths = [inputs, *[outputs] * (depth - 1)]
        self.convolutions = nn.ModuleList(_convolution(width, outputs) for width in widths)
        self.norms = nn.ModuleList(Shift(outputs, memory) for _ in widths)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, halve, and convolve again."""
        convolutions, norms = list(self.convolutions), list(self.norms)
        shortcut = F.gelu(norms[0](F.max_pool2d(convolutions[0](x), 2)))  # (B, outputs, H/2, W/2)
        x = F.gelu(norms[1](convolutions[1](shortcut)))
        for convolution, norm in zip(convolutions[2:], norms[2:], strict=True):
            x = F.gelu(norm(convolution(x)) + shortcut)
        return x


class Shift(nn.BatchNorm2d):
    """Batch norm with a trained bias and no scale; `memory` is as in `SpeedrunNet`."""

    def __init__(self, width: int, memory: float) -> None:
        super().__init__(width, momentum=1 - memory)
        del self.weight
        # Ones, not None: cuDNN's batch norm needs weight and bias.
        self.register_buffer("weight", torch.ones(width), persistent=False)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution that starts by copying its inputs to its first outputs."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight[:inputs].detach())
    return convolution


def _cosines(n: int) -> Tensor:
    """Return the orthonormal cosine transform (DCT-II) (n, n), with a row for each frequency."""
    places, frequencies = torch.arange(n) + 0.5, torch.arange(n).view(-1, 1)
    rows = torch.cos(math.pi / n * frequencies * places) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows
