"""ResNet-50 from ImageNet, fine-tuned on 200 species of birds.

Report:
    001, part 2: 64.13 % test accuracy and 99.37 % train with the whole network in 25 epochs.
    `/fixed_extractor`, only the last layer, 50 epochs: 38.34 % test, 63.73 % train.

Data:
    Caltech-UCSD Birds 200 (2010): 3,000 train (15 of each class) and 3,033 test, read once, at the
    end.

Readings:
    - Batch sizes follow from the printed losses, which are sums of batch means divided by the
      number of images: 128 for the whole network, 8 for the fixed extractor, whose last loss
      `reported` holds times 8.
    - The learning rate of the fixed extractor is not legible: 0.001. Its batch norm stays as it is.
    - The scheduler is that of part 1, with patience 3, on accuracy. It follows the training
      accuracy, because no validation set was kept apart and the log shows no other. The fixed
      extractor has no scheduler.
    - Momentum is 0.9.
    - The report refers to the augmentation of part 1 but not to which one: a horizontal flip.
    - There is no label smoothing: the printed loss lies below the least that part 1's would allow.

Variants:
    fixed_extractor: only the last layer is trained, 50 epochs
    one_cycle: the head for 2 epochs, then the whole net for 6, rates growing to the head

Learning rates:
    `/one_cycle` takes the finder's "valley" for the head, then its "largest" for the whole net,
    which was measured on resnet18_cifar10_pretrained. The first layers train at a hundredth of the
    head's rate, as in fastai's fine_tune.

Measured:
    Not measured yet. `/one_cycle` adds what is known to help nets from ImageNet: crops of at least
    a third of the image, a new head trained before the rest, rates that fall towards the first
    layers, label smoothing.

Command:
    fastcv recipe transfer_resnet50
"""

from torchvision.models import resnet50

from fastcv import IMAGENET_STATS, Images, Recipe, Reported, birds, named, replace
from fastcv.augment import ColorJitter, HorizontalFlip, RandomResizedCrop
from fastcv.learning import SGD, AdamW, Constant, CrossEntropy, OneCycle, Plateau, Pretrained

recipe = Recipe(
    name="transfer_resnet50",
    data=Images(
        source=birds,
        size=224,
        resize=256,
        batch_size=128,
        drop_last=False,
        normalize=IMAGENET_STATS,
        augment=(HorizontalFlip(),),
        test_validates=False,
    ),
    model=Pretrained(arch=resnet50, weights="IMAGENET1K_V1"),
    optimizer=SGD(momentum=0.9),
    loss=CrossEntropy(),
    schedule=(Plateau(epochs=25, lr=0.01, patience=3, monitor="train_accuracy"),),
    reported=Reported(
        source="001, part 2, whole network", train_accuracy=0.9937, test_accuracy=0.6413
    ),
)

variants = named(
    recipe,
    fixed_extractor=replace(
        recipe,
        data=replace(recipe.data, batch_size=8, valid_batch_size=128),
        model=replace(recipe.model, train_bn=False),
        schedule=(Constant(epochs=50, lr=1e-3, frozen=True),),
        reported=Reported(
            source="001, part 2, last layer only",
            train_accuracy=0.6373,
            test_accuracy=0.3834,
            train_loss=1.7576,  # 0.2197 x 8
        ),
    ),
    one_cycle=replace(
        recipe,
        data=replace(
            recipe.data,
            batch_size=32,
            valid_batch_size=128,
            augment=(
                RandomResizedCrop(size=224, scale=(0.35, 1.0)),
                HorizontalFlip(),
                ColorJitter(brightness=0.2, contrast=0.2),
            ),
        ),
        optimizer=AdamW(weight_decay=0.01),
        loss=CrossEntropy(label_smoothing=0.1),
        schedule=(
            OneCycle(epochs=2, lr="valley", frozen=True),
            OneCycle(epochs=6, lr="largest", lr_mult=100),
        ),
        reported=Reported(source="001, part 2, whole network", test_accuracy=0.6413, to_beat=True),
    ),
)
