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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
