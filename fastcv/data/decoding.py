"""From an image of any kind and size to a square of pixels."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastcv.data.formats import read_image


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an image of any kind and size becomes a square of pixels.

    The shorter side is resized to `side`, bilinear with antialiasing, and the center square is cut
    out: torchvision's `Resize(side)` and `CenterCrop(side)` on the image.

    Args:
        side: pixels.
        channels: 3 for RGB, 1 for gray.
    """

    side: int
    channels: int

    def __call__(self, image: Path | np.ndarray) -> np.ndarray:
        """Decode one image.

        Returns:
            (side, side, channels), uint8.

        Raises:
            ValueError: it cannot be read or is too narrow; its name is in the sentence.
        """
        shape = self.side, self.side, self.channels
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            own = image.shape if image.ndim == 3 else (*image.shape, 1)
            if own == shape:  # as Pillow would give it back, at a tenth of the time
                return image.reshape(shape)
        name = "an image" if isinstance(image, np.ndarray) else f"image '{image}'"
        return np.asarray(square(read_image(image, self.channels), self.side, name)).reshape(shape)


def resized(size: tuple[int, int], side: int, name: str = "an image") -> tuple[int, int]:
    """Width and height of an image whose shorter side is resized to `side`, all in pixels.

    Raises:
        ValueError: they are more pixels than Pillow opens; `name` is in the sentence.
    """
    width, height = size
    if min(width, height) == side:
        return size
    if width <= height:
        new = side, int(side * height / width)
    else:
        new = int(side * width / height), side
    most = 2 * (Image.MAX_IMAGE_PIXELS or math.inf)
    if new[0] * new[1] > most:
        raise ValueError(
            f"{name} must have at most {most:,} pixels once its shorter side is resized to {side}, "
            f"but its {width} x {height} pixels become {new[0]:,} x {new[1]:,}: remove or cut it"
        )
    return new


def square(picture: Image.Image, side: int, name: str = "an image") -> Image.Image:
    """Resize the shorter side to `side` pixels and cut the center square out.

    Raises:
        ValueError: it is so narrow that it would become huge; `name` is in the sentence.
    """
    width, height = resized(picture.size, side, name)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    if width == height:
        return picture
    left, top = round((width - side) / 2), round((height - side) / 2)
    return picture.crop((left, top, left + side, top + side))
