"""Nets: plain torch modules, built by `Net(classes=..., channels=3, size=32, ...)`.

They take images (B, channels, size, size) and return logits (B, classes).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
