"""Data sets as fastai DataLoaders: where they lie, how they are read, augmented and batched."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
