"""Means and standard deviations that belong to pretrained weights or to no data set."""

from fastcv.augment.pixels import Normalize

# What torchvision's ImageNet weights were trained with.
IMAGENET_STATS = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Takes pixels from 0-1 to -1-1.
HALF_STATS = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
