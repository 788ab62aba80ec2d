# Read by lazy_loader: each name is imported when it is first used.
from .affine import (
    Affine as Affine,
)
from .affine import (
    Rotation as Rotation,
)
from .affine import (
    affine as affine,
)
from .affine import (
    affine_matrix as affine_matrix,
)
from .affine import (
    resample as resample,
)
from .affine import (
    rotate as rotate,
)
from .alternating import AlternatingFlip as AlternatingFlip
from .color import (
    ColorJitter as ColorJitter,
)
from .color import (
    Gamma as Gamma,
)
from .color import (
    Grayscale as Grayscale,
)
from .color import (
    adjust_brightness as adjust_brightness,
)
from .color import (
    adjust_contrast as adjust_contrast,
)
from .color import (
    adjust_gamma as adjust_gamma,
)
from .color import (
    adjust_saturation as adjust_saturation,
)
from .color import (
    grayscale as grayscale,
)
from .color import (
    jitter as jitter,
)
from .composition import Composition as Composition
from .composition import Resampling as Resampling
from .composition import compose as compose
from .crop import CenterCrop as CenterCrop
from .crop import RandomCrop as RandomCrop
from .crop import crop as crop
from .crop import pad as pad
from .erase import RandomErasing as RandomErasing
from .erase import erase as erase
from .flip import (
    HorizontalFlip as HorizontalFlip,
)
from .flip import (
    VerticalFlip as VerticalFlip,
)
from .flip import (
    flip_horizontally as flip_horizontally,
)
from .flip import (
    flip_vertically as flip_vertically,
)
from .hue import adjust_hue as adjust_hue
from .mix import (
    CutMix as CutMix,
)
from .mix import (
    MixUp as MixUp,
)
from .mix import (
    mix_images as mix_images,
)
from .mix import (
    mix_targets as mix_targets,
)
from .mix import (
    paste as paste,
)
from .mix import (
    soft_targets as soft_targets,
)
from .pixels import Normalize as Normalize
from .pixels import to_float as to_float
from .resize import (
    RandomResizedCrop as RandomResizedCrop,
)
from .resize import (
    Resize as Resize,
)
from .resize import (
    resized_crop as resized_crop,
)
from .sharpness import Sharpness as Sharpness
from .sharpness import adjust_sharpness as adjust_sharpness
from .trivial import TrivialAugment as TrivialAugment
from .trivial import trivial_augment as trivial_augment
