"""Augmentation of whole batches on their device, with different parameters for every image.

Each augmentation is a frozen value, called on plain tensors: `value(x) -> x` with x of shape
(B, C, H, W), uint8 or float in 0-1, in any memory format, which is kept. Parameters come from
torch's global generator on the device of x, so that `torch.manual_seed` decides them.
`MixUp` and `CutMix` change labels too (`changes_labels` is true): `value(x, y, classes=...)`.

Values that only move pixels (`moves_pixels` is true) take bytes and return bytes, at a quarter of
the memory traffic, so call `compose(...)` on the uint8 batch. The others turn bytes into floats.
`Augmentation` says what a value of your own may declare.

Each value draws the parameters of a function, one per image: `Rotation` calls `rotate`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
