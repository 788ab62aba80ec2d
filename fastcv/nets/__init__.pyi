# Read by lazy_loader: each name is imported when it is first used.
from .basenet import BaseNet as BaseNet
from .light_resnet import LightResNet as LightResNet
from .mnist_cnn import MnistCNN as MnistCNN
from .residual_basenet import ResidualBaseNet as ResidualBaseNet
from .scaled_resnet import ScaledResNet as ScaledResNet
from .speedrun import SpeedrunNet as SpeedrunNet
from .vgg import VGG as VGG
