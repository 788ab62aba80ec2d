"""From an image of any kind and size to a square of pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastcv.data.formats import read_image


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an image of any kind and size becomes a square of pixels.

    The shorter side is resized to `side`, bilinear with antialiasing, and the centre square is cut
    out: torchvision's `Resize(side)` and `CenterCrop(side)` on the image.

    Args:
        side: pixels.
        channels: 3 for RGB, 1 for grey.
    """

    side: int
    channels: int

    def __call__(self, image: Path | np.ndarray) -> np.ndarray:
        """Decode one image.

        Returns:
            (side, side, channels), uint8.

        Raises:
            ValueError: it cannot be read; its name is in the sentence.
        """
        shape = self.side, self.side, self.channels
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            own = image.shape if image.ndim == 3 else (*image.shape, 1)
            if own == shape:  # as Pillow would give it back, at a tenth of the time
                return image.reshape(shape)
        return np.asarray(square(read_image(image, self.channels), self.side)).reshape(shape)


def square(picture: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side to `side` pixels and cut the centre square out."""
    width, height = picture.size
    if min(width, height) != side:
        if width <= height:
            width, height = side, int(side * height / width)
        else:
            width, height = int(side * width / height), side
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    if width == height:
        return picture
    left, top = round((width - side) / 2), round((height - side) / 2)
    return picture.crop((left, top, left + side, top + side))
