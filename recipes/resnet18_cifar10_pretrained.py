"""ResNet-18 from ImageNet, its last layers fine-tuned on CIFAR-10.

Report:
    004, 2b: 88.27 % test accuracy and 97.23 % train with the last 5 layers and Adam, stopped early
    at epoch 18 of 30. `/last4` reaches 78.29 % test, `/last6` 79.57 %, `/last5_sgd` 81.6 %.

Data:
    CIFAR-10: 45,000 train, 5,000 validation (500 of each class, held out), 10,000 test.

Readings:
    - "Layers" are torchvision's ten children (conv1, bn1, relu, maxpool, layer1 to layer4, avgpool,
      fc): the last 5 are layer2 to fc.
    - Images keep their 32 pixels.
    - "Gradient clip 0.1" limits each element of the gradient, as in resnet18_cifar10.
    - The validation loss decides when to stop.
    - Momentum is not stated: 0.9.
    - Augmentation is not stated: none.
    - Normalization is not stated: by ImageNet's mean and deviation, as the weights expect.
    - Frozen BatchNorm layers keep their weights; their running statistics follow the batches, as in
      PyTorch.

Variants:
    last4: layer3, layer4 and fc are trained
    last6: layer1 to layer4 and fc are trained
    last5_sgd: SGD at 0.01 along a cosine in place of Adam
    one_cycle: images enlarged to 64, the head for 1 epoch, then the whole net for 5

Learning rates:
    `/one_cycle` takes the finder's "valley" for the head, then its "largest" for the whole net; the
    first layers train at a twentieth of the head's rate.

Measured:
    Not measured yet from ImageNet's weights. From those of the same net after 6 epochs of CIFAR-100
    (53.53 % test), `/one_cycle` reaches 84.05 % test accuracy in 14 min (AMD EPYC, bf16, seed 0,
    revision 77b164a), its second rate 0.0017; with "valley", 0.0002, for the whole net it reaches
    80.57 %.

Command:
    fastcv recipe resnet18_cifar10_pretrained
"""

from torchvision.models import resnet18

from fastcv import IMAGENET_STATS, Images, Recipe, Reported, cifar10, named, replace
from fastcv.augment import HorizontalFlip, RandomCrop
from fastcv.learning import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    CrossEntropy,
    EarlyStop,
    OneCycle,
    Pretrained,
)

recipe = Recipe(
    name="resnet18_cifar10_pretrained",
    data=Images(
        source=cifar10,
        size=32,
        batch_size=128,
        holdout=500,
        normalize=IMAGENET_STATS,
    ),
    model=Pretrained(arch=resnet18, weights="IMAGENET1K_V1", train_bn="statistics"),
    optimizer=Adam(weight_decay=1e-4),
    loss=CrossEntropy(),
    schedule=(
        Constant(
            epochs=30,
            lr=1e-3,
            frozen=5,
            clip_value=0.1,
            early_stop=EarlyStop(patience=5, monitor="valid_loss"),
        ),
    ),
    reported=Reported(
        source="004, 2b, last 5 layers, Adam", train_accuracy=0.9723, test_accuracy=0.8827
    ),
)

variants = named(
    recipe,
    last4=replace(
        recipe,
        schedule=(replace(recipe.schedule[0], frozen=4),),
        reported=Reported(
            source="004, 2b, last 4 layers", train_accuracy=0.9433, test_accuracy=0.7829
        ),
    ),
    last6=replace(
        recipe,
        schedule=(replace(recipe.schedule[0], frozen=6),),
        reported=Reported(
            source="004, 2b, last 6 layers", train_accuracy=0.9667, test_accuracy=0.7957
        ),
    ),
    last5_sgd=replace(
        recipe,
        optimizer=SGD(momentum=0.9, weight_decay=1e-4),
        schedule=(
            Cosine(
                epochs=30,
                lr=0.01,
                frozen=5,
                clip_value=0.1,
                early_stop=EarlyStop(patience=5, monitor="valid_loss"),
            ),
        ),
        reported=Reported(
            source="004, 2b, last 5 layers, SGD", train_accuracy=0.9757, test_accuracy=0.816
        ),
    ),
    one_cycle=replace(
        recipe,
        reported=replace(recipe.reported, to_beat=True),
        data=replace(
            recipe.data,
            size=64,
            augment=(RandomCrop(padding=8, padding_mode="reflect"), HorizontalFlip()),
        ),
        optimizer=AdamW(weight_decay=0.01),
        loss=CrossEntropy(label_smoothing=0.1),
        schedule=(
            OneCycle(epochs=1, lr="valley", frozen=True),
            OneCycle(epochs=5, lr="largest", lr_mult=20),
        ),
    ),
)
