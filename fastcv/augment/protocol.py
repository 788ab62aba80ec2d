"""What an augmentation is, and what it may declare about itself."""

from typing import Protocol

from torch import Tensor


class Augmentation(Protocol):
    """Changes a batch of training images: an element of `augment`, of `Images` or `with_augment`.

    A function will do. A frozen dataclass also prints and compares, and its fields are saved with a
    run and can be set by `--set`. It takes bytes and floats, as the first in `augment` gets bytes
    (`to_float` converts them), and keeps the memory format. Its parameters come from torch's
    global generator on the device of `x`, so that the recipe's seed decides them.

    It may declare, as attributes:

    - `moves_pixels = True`: it only moves pixels, and bytes stay bytes. While all before it declare
      it too, images stay bytes, a quarter of the memory traffic; if all in `augment` do, one thread
      makes small batches, which is faster on busy cores.
    - `changes_labels = True`: it comes last in `augment`, and is called on normalized batches as
      `value(x, y, classes=...)`, `y` (B,) class numbers or (B, classes) probabilities. It returns
      images and probabilities, which become the loss's targets.
    - `matrix(x)`: draws an affine map for each image as a call would, (B, 3, 3), from output to
      input pixels, measured from the center. Neighbors that have it are merged into one resampling,
      which is faster and blurs less than several. It reads by their `interpolation`, "bilinear"
      (the default) or "nearest". With `moves_pixels`, the value stays an exact move unless such a
      neighbor resamples. `mergeable = False` keeps it out.
    - `at_epoch(epoch)`: returns the value for an epoch, counted from 0 over all stages of the
      recipe. It is called before each epoch; a CUDA graph then captures no augmentation, unless
      the value has its `epoch` as an attribute, and `reading(epoch)`, which returns a function of
      `x` that reads the epoch from a tensor.
    - `size`: pixels of the result, a number or (height, width). In a dataclass, `--smoke` lowers it
      to the size of the toy images.

    Example, complete:

        from dataclasses import dataclass

        import torch
        from fastcv.augment import HorizontalFlip, to_float
        from fastcv.data import Images, Toy

        @dataclass(frozen=True, kw_only=True)
        class Darken:
            most: float = 0.5  # fraction of the light

            def __call__(self, x):
                light = 1 - self.most * torch.rand(len(x), 1, 1, 1, device=x.device)
                return to_float(x) * light

        augment = (HorizontalFlip(), Darken(most=0.3))
        data = Images(source=Toy(), size=32, batch_size=16, augment=augment)
    """

    def __call__(self, x: Tensor, /) -> Tensor:
        """Return images (B, C, H, W), uint8 or float in 0-1, augmented; leave `x` as it is."""
        ...
