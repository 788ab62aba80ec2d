"""The stages of a training, as values."""
