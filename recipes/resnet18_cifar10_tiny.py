"""ResNet-18 from scratch on a tiny part of CIFAR-10, with augmentation and dropout in its blocks.

Report:
    004, 2c: 45 % test accuracy in one place, just over 50 % in another.

Data:
    CIFAR-10: 1,000 train (100 of each class, drawn by a fixed seed), 5,000 validation (500 of each
    class, held out), 10,000 test.

Readings:
    - The size of the training set is not stated: 100 images of each class.
    - The strengths of the augmentations are not stated: affine moves by up to 10 degrees, a tenth
      of the side and a tenth of the size; sharpness doubled in half of the images; colors by up to
      0.2.
    - Epochs and patience are ten times resnet18_cifar10's, because 30 epochs are only 240 steps
      here; the report does not name 300.
    - Everything else is resnet18_cifar10's.
    - `reported` holds 50 % with a tolerance of 5 points, for "45 to just over 50".

Variants:
    one_cycle: one cycle of 100 epochs, images of 64 pixels, batches of 16, more weight decay

Learning rate:
    `/one_cycle` takes the finder's "largest": 0.009 with seed 0. With batches of 16 the curve is
    rough, and seed 1 yields 0.002.

Measured:
    The recipe: 46.65 % test accuracy in 14 min (one core of an AMD EPYC, bf16, seed 0), stopped
    after 216 epochs.
    `/one_cycle`: 57.63 % test accuracy in 30 min (same core, seed 0). It has a third of the
    recipe's epochs, but more steps and about a third more work.

Source:
    Batches and weight decay of `/one_cycle`: Brigato et al. 2021, arXiv:2108.13122, where a tuned
    plain training was hard to beat on few images.

Command:
    fastcv recipe resnet18_cifar10_tiny/one_cycle
"""

from torchvision.models import resnet18

from fastcv import CIFAR10_STATS, Images, Recipe, Reported, cifar10, named, replace
from fastcv.augment import Affine, ColorJitter, HorizontalFlip, RandomCrop, Sharpness
from fastcv.learning import SGD, Cosine, CrossEntropy, EarlyStop, OneCycle, Pretrained

recipe = Recipe(
    name="resnet18_cifar10_tiny",
    data=Images(
        source=cifar10,
        size=32,
        batch_size=128,
        valid_batch_size=500,
        drop_last=False,
        holdout=500,
        train_per_class=100,
        normalize=CIFAR10_STATS,
        augment=(
            Affine(
                degrees=10,
                translate=(0.1, 0.1),
                scale=(0.9, 1.1),
                interpolation="nearest",
            ),
            Sharpness(factor=2),
            ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
            HorizontalFlip(),
        ),
    ),
    model=Pretrained(arch=resnet18, weights=None, block_dropout=0.2),
    optimizer=SGD(momentum=0.9, weight_decay=1e-4),
    loss=CrossEntropy(),
    schedule=(
        Cosine(
            epochs=300,
            lr=0.01,
            clip_value=0.1,
            early_stop=EarlyStop(patience=60, monitor="valid_loss"),
        ),
    ),
    reported=Reported(source="004, 2c", test_accuracy=0.5, tolerance=0.05),
)

variants = named(
    recipe,
    one_cycle=replace(
        recipe,
        reported=replace(recipe.reported, to_beat=True),
        data=replace(
            recipe.data,
            size=64,
            batch_size=16,
            augment=(
                RandomCrop(padding=8, padding_mode="reflect"),
                HorizontalFlip(),
                ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3),
            ),
        ),
        optimizer=SGD(momentum=0.9, weight_decay=5e-3, nesterov=True),
        loss=CrossEntropy(label_smoothing=0.1),
        schedule=(OneCycle(epochs=100, lr="largest", momenta=None),),
    ),
)
