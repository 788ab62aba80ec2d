"""Data sets as fastai DataLoaders: where they lie, how they are read, augmented and batched."""
