"""Nets: torch and nothing else.

Every net is called `Net(classes=..., channels=3, size=32, ...)` and returns logits.
"""

from fastcv.nets.basenet import BaseNet
from fastcv.nets.light_resnet import LightResNet
from fastcv.nets.mnist_cnn import MnistCNN
from fastcv.nets.residual_basenet import ResidualBaseNet
from fastcv.nets.scaled_resnet import ScaledResNet
from fastcv.nets.speedrun import SpeedrunNet
from fastcv.nets.vgg import VGG

__all__ = [
    "VGG",
    "BaseNet",
    "LightResNet",
    "MnistCNN",
    "ResidualBaseNet",
    "ScaledResNet",
    "SpeedrunNet",
]
