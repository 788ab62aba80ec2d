"""Small synthetic images that a net can learn: for tests, and for trying a recipe in seconds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastcv.data.samples import Sample, Samples
from fastcv.recipe.bounds import WIDEST, check_flags, check_number, check_whole, shown

GRID = 4  # cells along a side of a class's pattern


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A source of random images: a pattern of colored cells for each class, with noise.

    Patterns are symmetric left to right, so that flips do no harm. Equal values make equal images
    on every machine.

    Args:
        classes: their number.
        size: height and width, pixels.
        channels: 3 for RGB, 1 for gray.
        train: training images of each class.
        valid: validation images of each class; 0 for no validation part.
        test: test images of each class; 0 for no test part.
        noise: standard deviation of the noise, a fraction of the full range.
        seed: decides patterns and noise.
        several: whether images have several labels: every second one has the next class's pattern
            in its lower half.
    """

    classes: int = 10
    size: int = 32
    channels: int = 3
    train: int = 16
    valid: int = 0
    test: int = 8
    noise: float = 0.1
    seed: int = 0
    several: bool = False

    def __post_init__(self):
        check_whole("classes", self.classes, least=1)
        check_whole("size", self.size, least=1, most=WIDEST)
        check_whole("channels", self.channels)
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 3 (RGB) or 1 (gray), got {shown(self.channels)}")
        for name in ("train", "valid", "test"):
            check_whole(name, getattr(self, name))
        check_flags(self, "several")
        check_number("noise", self.noise, least=0)
        check_whole("seed", self.seed, most=2**32 - 1)  # what numpy's generator takes

    def __call__(self, path: Path | None = None) -> Samples:
        """Draw the images; `path` is ignored, as toy images lie in no folder."""
        width = len(str(self.classes - 1))
        names = tuple(f"toy{number:0{width}d}" for number in range(self.classes))
        random = np.random.RandomState(self.seed)  # its stream is frozen, newer generators' is not
        half = random.randint(0, 256, (self.classes, GRID, GRID // 2, self.channels))
        cells = np.concatenate([half, half[:, :, ::-1]], axis=2)  # (classes, GRID, GRID, C)
        where = np.arange(self.size) * GRID // self.size
        patterns = cells[:, where][:, :, where]  # (classes, size, size, C)

        def part(per_class: int) -> list[Sample]:
            samples = []
            for place, (name, own) in enumerate(zip(names, patterns, strict=True)):
                for number in range(per_class):
                    pattern, label = own, (name,) if self.several else name
                    if self.several and number % 2:
                        below = (place + 1) % self.classes
                        middle = self.size // 2
                        pattern = np.concatenate([own[:middle], patterns[below, middle:]])
                        label = tuple(sorted({name, names[below]}))
                    noise = random.standard_normal(pattern.shape) * (255 * self.noise)
                    image = np.clip(pattern + noise, 0, 255).astype(np.uint8)
                    samples.append(Sample(image if self.channels == 3 else image[..., 0], label))
            return samples

        return Samples(part(self.train), part(self.valid), part(self.test), names, root=None)
