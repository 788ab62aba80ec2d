"""Turn an image into the pixels that the exported net takes; needs only NumPy and Pillow."""

import numpy as np
from PIL import Image, ImageOps


def pixels(image, side, channels=3, upright=False, decode_size=None):
    """Resize the shorter side, bilinear with antialiasing, and cut out the center square.

    Args:
        image: a file, or an image of Pillow's.
        side: "resize" in the net's model.json, pixels.
        channels: "channels" in model.json: 3 for RGB, 1 for gray.
        upright: "upright" in model.json: whether the orientation in EXIF data is applied.
        decode_size: "decode_size" in model.json: a larger square that is made first, if any.

    Returns:
        (side, side, channels), uint8; stack several of them to a batch.
    """
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return pixels(opened, side, channels, upright, decode_size)
    picture = ImageOps.exif_transpose(image) if upright else image.copy()
    if picture.mode == "I" or picture.mode.startswith("I;16"):  # 16-bit gray
        levels = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray(((levels * 255 + 32_767) // 65_535).astype(np.uint8))
    if picture.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
    picture = picture.convert("RGB") if picture.mode == "LAB" else picture
    picture = picture.convert("RGB" if channels == 3 else "L")
    for edge in (decode_size, side) if decode_size else (side,):
        width, height = picture.size
        if width <= height:
            size = (edge, int(edge * height / width))
        else:
            size = (int(edge * width / height), edge)
        if min(picture.size) != edge:
            picture = picture.resize(size, Image.Resampling.BILINEAR)
        left, top = round((picture.width - edge) / 2), round((picture.height - edge) / 2)
        picture = picture.crop((left, top, left + edge, top + edge))
    return np.asarray(picture).reshape(side, side, channels)
