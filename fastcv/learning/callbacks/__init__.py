"""Callbacks of fastai that a training is made of."""
