"""Augmentation of whole batches, on their device, with own parameters for every image.

Each augmentation is a frozen value, called on plain tensors: `value(x) -> x` with x of shape
(B, C, H, W), uint8 or float in 0-1, in any memory format, which is kept. Parameters come from
torch's global generator of the device that x is on, so that `torch.manual_seed` decides them.
`MixUp` and `CutMix` change labels too (`changes_labels` is true): `value(x, y, classes=...)`.

Values that only move pixels (`moves_pixels` is true) take bytes and return bytes, at a quarter of
the memory traffic: give `compose(...)` the uint8 batch. The others turn bytes into floats.

Beside each value stands the function it draws parameters for, one per image (`rotate` beside
`Rotation`).
"""

from fastcv.data.augment.affine import Affine, Rotation, affine, affine_matrix, resample, rotate
from fastcv.data.augment.alternating import AlternatingFlip
from fastcv.data.augment.colour import (
    ColorJitter,
    Gamma,
    Greyscale,
    adjust_brightness,
    adjust_contrast,
    adjust_gamma,
    adjust_saturation,
    greyscale,
    jitter,
)
from fastcv.data.augment.composition import Composition, Resampling, compose
from fastcv.data.augment.crop import CentreCrop, RandomCrop, crop, pad
from fastcv.data.augment.erase import RandomErasing, erase
from fastcv.data.augment.flip import Flip, VerticalFlip, flip_horizontally, flip_vertically
from fastcv.data.augment.hue import adjust_hue
from fastcv.data.augment.mix import CutMix, MixUp, mix_images, mix_targets, paste, soft_targets
from fastcv.data.augment.pixels import Normalise, to_float
from fastcv.data.augment.resize import RandomResizedCrop, Resize, resized_crop
from fastcv.data.augment.sharpness import Sharpness, adjust_sharpness
from fastcv.data.augment.trivial import TrivialAugment, trivial_augment

__all__ = [
    "Affine",
    "AlternatingFlip",
    "CentreCrop",
    "ColorJitter",
    "Composition",
    "CutMix",
    "Flip",
    "Gamma",
    "Greyscale",
    "MixUp",
    "Normalise",
    "RandomCrop",
    "RandomErasing",
    "RandomResizedCrop",
    "Resampling",
    "Resize",
    "Rotation",
    "Sharpness",
    "TrivialAugment",
    "VerticalFlip",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_gamma",
    "adjust_hue",
    "adjust_saturation",
    "adjust_sharpness",
    "affine",
    "affine_matrix",
    "compose",
    "crop",
    "erase",
    "flip_horizontally",
    "flip_vertically",
    "greyscale",
    "jitter",
    "mix_images",
    "mix_targets",
    "pad",
    "paste",
    "resample",
    "resized_crop",
    "rotate",
    "soft_targets",
    "to_float",
    "trivial_augment",
]
