"""Nets: plain torch modules, built by `Net(classes=..., channels=3, size=32, ...)`.

They take normalized float images (B, channels, size, size), with `size` in pixels, and return
logits (B, classes), not probabilities. Counts below 1, lists that do not belong together and images
that are too small raise a ValueError.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
