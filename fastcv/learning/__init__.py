"""Training with fastai: models, optimizers, losses, stages of a schedule, callbacks, metrics."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
