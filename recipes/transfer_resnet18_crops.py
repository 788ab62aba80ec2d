"""ResNet-18 from ImageNet, fine-tuned on random crops of 200 species of birds.

Report:
    002, part 2: 56.31 % test accuracy and 94.57 % train with the whole network in 30 epochs.
    `/fixed_extractor`, only the last layer, 30 epochs: 36.04 % test, 68.67 % train. `/starter`,
    before any change: about 15.5 % train.

Data:
    Caltech-UCSD Birds 200 (2010): 3,000 train (15 of each class) and 3,033 test, read once, at the
    end.

Readings:
    - The backbone is the course starter's ResNet-18; SGD has the starter's momentum of 0.9.
    - In training the random crop takes the place of the center crop, with torchvision's scale and
      ratio. It is taken from the square that decoding leaves of the photograph.
    - The statistics of the data set were computed on crops around the birds.
    - The batch norm of the fixed extractor stays as it is.
    - The head has one output for each of the 200 species; the report says 100.
    - The printed losses are sums of batch means divided by 3,000 images. Multiplied by the batch
      size, 32, they are the means that `reported` holds.
    - The starter's other values are not stated: only the last layer, batches of 8 at a rate of
      0.0001, center crops, pixels in 0-1.

Variants:
    starter: the course starter: only the last layer, 10 epochs, center crops
    fixed_extractor: only the last layer is trained, 30 epochs
    one_cycle: the head for 2 epochs, then the whole net for 8, rates growing towards the head

Learning rates:
    `/one_cycle` takes the finder's "valley" for the head, then its "largest" for the whole net,
    which was measured on resnet18_cifar10_pretrained. The first layers train at a hundredth of the
    head's rate, as in fastai's fine_tune.

Measured:
    Not measured yet. `/one_cycle` adds what is known to help nets from ImageNet: ImageNet's own
    statistics, crops of at least a third of the image, a new head trained before the rest, rates
    that fall towards the first layers, label smoothing.

Command:
    fastcv recipe transfer_resnet18_crops
"""

from torchvision.models import resnet18

from fastcv import BIRDS_STATS, IMAGENET_STATS, Images, Recipe, Reported, birds, named, replace
from fastcv.augment import ColorJitter, HorizontalFlip, RandomResizedCrop
from fastcv.learning import SGD, AdamW, Constant, CrossEntropy, OneCycle, Pretrained

recipe = Recipe(
    name="transfer_resnet18_crops",
    data=Images(
        source=birds,
        size=224,
        resize=256,
        batch_size=32,
        drop_last=False,
        augment=(RandomResizedCrop(size=224), HorizontalFlip()),
        normalize=BIRDS_STATS,
        test_validates=False,
    ),
    model=Pretrained(arch=resnet18, weights="IMAGENET1K_V1"),
    optimizer=SGD(momentum=0.9),
    loss=CrossEntropy(),
    schedule=(Constant(epochs=30, lr=5e-4),),
    reported=Reported(
        source="002, part 2, whole network",
        train_accuracy=0.9457,
        test_accuracy=0.5631,
        train_loss=0.8416,  # 0.0263 x 32
        test_loss=1.9296,  # 0.0603 x 32
    ),
)

fixed_extractor = replace(
    recipe,
    model=replace(recipe.model, train_bn=False),
    schedule=(replace(recipe.schedule[0], frozen=True),),
    reported=Reported(
        source="002, part 2, last layer only",
        train_accuracy=0.6867,
        test_accuracy=0.3604,
        train_loss=2.6368,  # 0.0824 x 32
        test_loss=3.2704,  # 0.1022 x 32
    ),
)

starter = replace(
    fixed_extractor,
    data=replace(recipe.data, batch_size=8, augment=(), normalize=None),
    schedule=(replace(fixed_extractor.schedule[0], epochs=10, lr=1e-4),),
    reported=Reported(source="002, part 2, the starter unchanged", train_accuracy=0.155),
)

variants = named(
    recipe,
    starter=starter,
    fixed_extractor=fixed_extractor,
    one_cycle=replace(
        recipe,
        data=replace(
            recipe.data,
            valid_batch_size=128,
            augment=(
                RandomResizedCrop(size=224, scale=(0.35, 1.0)),
                HorizontalFlip(),
                ColorJitter(brightness=0.2, contrast=0.2),
            ),
            normalize=IMAGENET_STATS,
        ),
        optimizer=AdamW(weight_decay=0.01),
        loss=CrossEntropy(label_smoothing=0.1),
        schedule=(
            OneCycle(epochs=2, lr="valley", frozen=True),
            OneCycle(epochs=8, lr="largest", lr_mult=100),
        ),
        reported=Reported(source="002, part 2, whole network", test_accuracy=0.5631, to_beat=True),
    ),
)
