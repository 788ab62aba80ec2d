"""Nets: torch and nothing else.

Every net is called `Net(classes=..., channels=3, size=32, ...)` and returns logits.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
