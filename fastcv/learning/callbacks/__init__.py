"""The fastai callbacks that a training is made of."""
