"""ResNet-18 as torchvision has it, from scratch on CIFAR-10.

Report:
    004, 2a: 77.29 % test accuracy (75 to 78 over several trainings), 96.33 % train; at most 30
    epochs, stopped when the validation loss had not fallen for 6, the best epoch kept.

Data:
    CIFAR-10: 45,000 train, 5,000 validation (500 of each class, held out), 10,000 test.

Readings:
    - The net is torchvision's, with its 7x7 stem of stride 2 and its max-pool, on images of 32
      pixels: 77 % is what that stem allows.
    - "Gradient clip 0.1" limits each element of the gradient. The norm is usually 4 to 19; clipped
      to 0.1 it would train at about a hundredth of the rate, and two epochs of 10,000 images reach
      21 % validation accuracy instead of 46 %.
    - Momentum is not stated: 0.9.
    - Normalization is not stated: by the mean and deviation of the data set.
    - Augmentation is not stated: none, since the report calls this net "raw" beside an augmented
      one. Yet the report seems to have flipped images and kept the epoch of the best accuracy:
      `--set "data.augment=HorizontalFlip()" --set schedule.0.early_stop.monitor=valid_accuracy`
      reaches 77.21 % test accuracy (37 min on one core of an AMD EPYC, bf16, seed 0). It trains all
      30 epochs, keeps epoch 24, and passes the report's 96.33 % train accuracy in epoch 17. With
      flips and the lowest loss, the run keeps epoch 10, 73.4 % test accuracy; without flips, none
      of the recipe's 11 epochs has more than 71.9 % validation accuracy. It takes both.

Variants:
    one_cycle: one cycle of Nesterov SGD in 10 epochs, label smoothing, crops and flips

Learning rate:
    `/one_cycle` takes the finder's "largest": 0.033 with seed 0. At "slide", 0.0025, the same
    training reaches 67.68 % test accuracy; at SGD's usual 0.1 it reaches 82.22 %.

Measured:
    The recipe: 69.96 % test accuracy in 15 min (one core of an AMD EPYC, bf16, seed 0). It stops
    after epoch 11 at 95.9 % train accuracy, near the report's, but keeps epoch 5, which has the
    lowest validation loss.
    `/one_cycle`: 80.02 % test accuracy in 23 min (same core, seed 0).

Command:
    fastcv recipe resnet18_cifar10
"""

from torchvision.models import resnet18

from fastcv import CIFAR10_STATS, Images, Recipe, Reported, cifar10, named, replace
from fastcv.augment import HorizontalFlip, RandomCrop
from fastcv.learning import SGD, Cosine, CrossEntropy, EarlyStop, OneCycle, Pretrained

recipe = Recipe(
    name="resnet18_cifar10",
    data=Images(
        source=cifar10,
        size=32,
        batch_size=128,
        holdout=500,
        normalize=CIFAR10_STATS,
    ),
    model=Pretrained(arch=resnet18, weights=None),
    optimizer=SGD(momentum=0.9, weight_decay=1e-4),
    loss=CrossEntropy(),
    schedule=(
        Cosine(
            epochs=30,
            lr=0.01,
            clip_value=0.1,
            early_stop=EarlyStop(patience=6, monitor="valid_loss"),
        ),
    ),
    reported=Reported(source="004, 2a", train_accuracy=0.9633, test_accuracy=0.7729),
)

variants = named(
    recipe,
    one_cycle=replace(
        recipe,
        reported=replace(recipe.reported, to_beat=True),
        data=replace(
            recipe.data, augment=(RandomCrop(padding=4, padding_mode="reflect"), HorizontalFlip())
        ),
        optimizer=SGD(momentum=0.9, weight_decay=5e-4, nesterov=True),
        loss=CrossEntropy(label_smoothing=0.1),
        schedule=(OneCycle(epochs=10, lr="largest", momenta=None),),
    ),
)
