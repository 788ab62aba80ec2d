"""Image-classification experiments as values, on fastai."""

__version__ = "0.1.0"
