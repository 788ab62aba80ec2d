"""From an image of any kind and size to a square of 8-bit pixels."""

import errno
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# What Pillow's decoders raise on damaged files, apart from OSError (which it raises on most).
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, RuntimeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
# What the header of a file of HEVC images names among its brands; AVIF shares the container.
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
HEIC_EXTRA = 'pip install "fastcv[heic]"'


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Turns an image of any kind and size into a square of pixels.

    The shorter side is resized to `side`, bilinear with antialiasing, and the center square is cut
    out: torchvision's `Resize(side)` and `CenterCrop(side)` on the image.

    Args:
        side: pixels.
        channels: 3 for RGB, 1 for gray.
        upright: whether the orientation in EXIF data is applied.
        via: pixels of a larger square that is made first, from which the last one is resized, so
            that squares of several sizes can be made of one cache; None for none.
    """

    side: int
    channels: int
    upright: bool = False
    via: int | None = None

    def __str__(self) -> str:
        """Name the settings that are not at their defaults, for the key of the cache's file."""
        chosen = [(each.name, getattr(self, each.name), each.default) for each in fields(self)]
        settings = ", ".join(f"{name}={value!r}" for name, value, usual in chosen if value != usual)
        return f"{type(self).__name__}({settings})"

    def __call__(self, image: Path | np.ndarray) -> np.ndarray:
        """Decode one image to (side, side, channels), uint8.

        Raises:
            ValueError: it cannot be read or is too narrow; the sentence names it.
        """
        shape = self.side, self.side, self.channels
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and self.via is None:
            own = image.shape if image.ndim == 3 else (*image.shape, 1)
            if own == shape:  # what Pillow would return, in a tenth of the time
                return image.reshape(shape)
        name = "an image" if isinstance(image, np.ndarray) else f"image '{image}'"
        picture = read_image(image, self.channels, self.upright)
        if self.via is not None:
            picture = square(picture, self.via, name)
        return np.asarray(square(picture, self.side, name)).reshape(shape)


def resized(size: tuple[int, int], side: int, name: str = "an image") -> tuple[int, int]:
    """Return width and height once the shorter side is resized to `side`, all in pixels.

    Raises:
        ValueError: they make more pixels than Pillow opens; the sentence begins with `name`.
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
        ValueError: it is so narrow that it would become huge; the sentence begins with `name`.
    """
    width, height = resized(picture.size, side, name)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    if width == height:
        return picture
    left, top = round((width - side) / 2), round((height - side) / 2)
    return picture.crop((left, top, left + side, top + side))


def read_image(
    image: Path | np.ndarray | Image.Image, channels: int = 3, upright: bool = False
) -> Image.Image:
    """Decode a whole image as 8-bit RGB or 8-bit gray.

    16-bit gray is scaled to 8 bits over its whole range (65,535 becomes 255), never clipped and
    never stretched to the image's own range, so that images stay comparable. Transparent pixels
    are laid on white, as a viewer shows them. Pillow converts palette, bilevel, CMYK, YCbCr and Lab
    images. An animation is read as its first frame. HEIC photos need the extra `heic`; they are
    always upright, because their format, not EXIF data, says how they are turned.

    Args:
        image: a file; a picture of Pillow's, which is not changed; or pixels, (H, W) or (H, W, C),
            uint8 or floats of 0-1.
        channels: 3 for RGB, 1 for gray (ITU-R 601-2 luma).
        upright: whether the orientation in EXIF data is applied, as viewers do and fastai does not;
            EXIF data that cannot be read counts as none.

    Raises:
        ValueError: the file is missing, empty, truncated, not an image, or holds 32-bit pixels (the
            sentence names it); or `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 3 (RGB) or 1 (gray), got {channels}")
    if isinstance(image, np.ndarray):
        return eight_bit(Image.fromarray(_bytes(image)), channels)
    if isinstance(image, Image.Image):
        try:
            return eight_bit(_turned(image.copy(), upright), channels)
        except DECODER_ERRORS as error:
            raise ValueError(
                f"a picture must be readable, but {_reason(error)}: pass another"
            ) from error
    with open_image(image) as opened:
        opened.load()
        return eight_bit(_turned(opened, upright), channels)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open a file as one of Pillow's images; its pixels are not decoded yet.

    A pipe is refused, because opening one waits for somebody to write into it.

    Raises:
        ValueError: it cannot be opened, or be decoded within the block; the sentence names it.
    """
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file")
        with open(path, "rb") as file:
            if _is_heic(file.peek(64)):
                _register_heif()
            yield Image.open(file)
    except DECODER_ERRORS as error:
        raise ValueError(f"image '{path}' cannot be read: {_reason(error, path)}") from error


def _turned(image: Image.Image, upright: bool) -> Image.Image:
    """Apply the orientation in EXIF data, in place, where it is asked for and there is one."""
    if upright:
        with suppress(*DECODER_ERRORS):
            ImageOps.exif_transpose(image, in_place=True)
    return image


def _is_heic(start: bytes) -> bool:
    """Whether a file starts as HEIC photos do, whose names sometimes end in .jpg."""
    end = min(int.from_bytes(start[:4], "big"), len(start))
    brands = {start[place : place + 4] for place in range(8, end, 4)}
    return start[4:8] == b"ftyp" and not HEIC_BRANDS.isdisjoint(brands)


@cache
def _register_heif() -> None:
    """Let Pillow open HEIF files.

    Raises:
        ValueError: the extra is not installed.
    """
    try:
        import pi_heif  # here, because most data has no use for it
    except ImportError as error:
        raise ValueError(f"HEIC photos need the extra heic: {HEIC_EXTRA}") from error
    pi_heif.register_heif_opener()


def _bytes(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.kind == "f" and pixels.size and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = np.rint(pixels * 255).astype(np.uint8)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not 1 <= channels <= 4:
        floats = pixels.dtype.kind == "f" and pixels.size
        span = f" from {pixels.min():g} to {pixels.max():g}" if floats else ""
        raise ValueError(
            "pixels must be uint8, or floats of 0-1, of shape (H, W) or (H, W, C) with 1 to 4 "
            f"channels, got {pixels.dtype}{span} of shape {pixels.shape}: convert or permute them"
        )
    return pixels[..., 0] if pixels.ndim == 3 and channels == 1 else pixels


def eight_bit(image: Image.Image, channels: int) -> Image.Image:
    """Convert a picture to RGB (3 channels) or gray (1), as `read_image` does."""
    target = "RGB" if channels == 3 else "L"
    if image.mode == target and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_sixteen_bits(image)
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, not 8 or 16 bits")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(page, image).convert("RGB")
    if image.mode == "LAB":  # which Pillow converts to RGB alone
        image = image.convert("RGB")
    return image.convert(target)


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)  # (H, W)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("its pixels are 32-bit numbers, not 8 or 16 bits")
    return Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))


def _reason(error: BaseException, path: Path | None = None) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError) and error.strerror:  # the system's words, not Pillow's
        return error.strerror
    if path is not None and os.path.getsize(path) == 0:
        return "it is empty (0 bytes)"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image of a known format"
    return " ".join(str(error).split()) or type(error).__name__
