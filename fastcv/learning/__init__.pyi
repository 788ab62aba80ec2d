# Read by lazy_loader: each name is imported when it is first used.
from .callbacks.freeze_first import FreezeFirst as FreezeFirst
from .losses import CrossEntropy as CrossEntropy
from .models import FromScratch as FromScratch
from .models import Pretrained as Pretrained
from .muon import Muon as Muon
from .optimizers import SGD as SGD
from .optimizers import Adam as Adam
from .optimizers import AdamW as AdamW
from .resnets import torchvision_resnet as torchvision_resnet
from .stages.augment import WithAugment as WithAugment
from .stages.augment import with_augment as with_augment
from .stages.schedules import (
    Constant as Constant,
)
from .stages.schedules import (
    Cosine as Cosine,
)
from .stages.schedules import (
    Linear as Linear,
)
from .stages.schedules import (
    OneCycle as OneCycle,
)
from .stages.schedules import (
    Plateau as Plateau,
)
from .stages.stage import EarlyStop as EarlyStop
from .stages.stage import Stage as Stage
from .stages.stage import StageLike as StageLike
from .tta import TTA as TTA
from .whitened import Whitened as Whitened
