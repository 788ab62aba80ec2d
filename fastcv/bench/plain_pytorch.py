"""The first contender: PyTorch and torchvision, used as in their tutorials."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from fastai.torch_core import defaults
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastcv.bench.equivalents import torchvision_transform
from fastcv.bench.rounds import Clock
from fastcv.data.images import Images
from fastcv.data.samples import Sample

HELD = 64  # pixels; up to this size torchvision's data sets (CIFAR, MNIST) hold decoded images


class Pictures(Dataset):
    """A data set like torchvision's `CIFAR10` (small images) or `ImageFolder` (larger ones).

    Small images are decoded in advance and held in memory, which favors this contender; larger
    ones are opened, resized and cropped each time. Transforms are torchvision's, on Pillow images.

    `classes` are in the order of their numbers. `pixels`, (N, side, side, C) uint8, are all images,
    if they are already decoded.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: Sequence[str],
        data: Images,
        pixels: np.ndarray | None = None,
    ):
        number = {name: index for index, name in enumerate(classes)}
        self.labels = [number[sample.label] for sample in samples]
        self.mode = "RGB" if data.channels == 3 else "L"
        side = data.resize or data.size
        self.images = [sample.image for sample in samples]
        self.transform = torchvision_transform(data, resized=side <= HELD)
        if side <= HELD:
            if pixels is None:
                pixels = np.stack([data.decoding(image) for image in self.images])
            self.images = pixels if data.channels == 3 else pixels[..., 0]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image = self.images[place]
        if isinstance(image, np.ndarray):
            picture = Image.fromarray(image)
        else:
            with Image.open(image) as file:
                picture = file.convert(self.mode)
        return self.transform(picture), self.labels[place]


class PlainLoader:
    """torch's DataLoader with persistent workers, which moves batches to the device.

    Shape:
        yields: (B, C, H, W) float32, contiguous, and (B,) int64.
    """

    def __init__(self, pictures: Pictures, batch_size: int, device: torch.device):
        self.device = device
        self.loader = DataLoader(
            pictures,
            batch_size=batch_size,
            shuffle=True,
            drop_last=len(pictures) >= batch_size,
            num_workers=defaults.cpus,  # as fastai: one for each core, and at most 16
            persistent_workers=True,  # starting them each epoch would slow this contender
            pin_memory=device.type == "cuda",
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.loader:
            yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)


class PlainTraining:
    """The usual loop: fp32, channels first, torch's optimizer with its defaults."""

    def __init__(
        self, loader: PlainLoader, net: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer
    ):
        self.loader, self.net, self.loss, self.optimizer = loader, net, loss, optimizer

    def __call__(self, clock: Clock) -> None:
        """Train until the round is over."""
        self.net.train()
        running = torch.zeros((), device=next(self.net.parameters()).device)
        for x, y in clock.batches(self.loader):
            loss = self.loss(self.net(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            running += loss.detach()  # `loss.item()` would wait for the GPU at every batch
