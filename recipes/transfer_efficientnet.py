"""EfficientNet-Lite0 from ImageNet, fine-tuned on 200 species of birds.

No report has this net. The number to beat is that of Report 001's ResNet-50, which has five times
as many parameters.

Data:
    Caltech-UCSD Birds 200 (2010): 3,000 train (15 of each class) and 3,033 test, read once, at the
    end.

Net:
    timm's efficientnet_lite0, 3.6 million parameters with a head for 200 classes: no squeeze and
    excitation, ReLU6 instead of SiLU.

Weights:
    timm's "ra_in1k", Apache-2.0, from the Hugging Face Hub. Others come from a file with timm's
    names and have their own statistics; weights converted from TensorFlow take pixels from -1 to 1:
    `--set model.weights=FILE --set "data.normalize=Normalize(mean=(0.498, 0.498, 0.498),
    std=(0.502, 0.502, 0.502))"`. A recipe whose statistics are not those of its weights is refused.

Variants:
    fixed_extractor: only the last layer is trained, on the middle of every image
    one_cycle: the head for 1 epoch, then the whole net for 5
    from_scratch: the same schedule as the recipe's from random weights, with one rate for all
        layers: what transfer brings

Learning rates:
    Not searched for. The first layers train at a tenth of the head's rate.

Measured:
    Not measured yet.

Command:
    fastcv recipe transfer_efficientnet
"""

from fastcv import IMAGENET_STATS, Images, Recipe, Reported, birds, named, replace
from fastcv.augment import ColorJitter, HorizontalFlip, RandomResizedCrop
from fastcv.learning import AdamW, CrossEntropy, OneCycle, Pretrained

recipe = Recipe(
    name="transfer_efficientnet",
    data=Images(
        source=birds,
        size=224,
        resize=256,
        batch_size=32,
        valid_batch_size=128,
        normalize=IMAGENET_STATS,
        augment=(
            RandomResizedCrop(size=224, scale=(0.35, 1.0)),
            HorizontalFlip(),
            ColorJitter(brightness=0.2, contrast=0.2),
        ),
        test_validates=False,
    ),
    model=Pretrained(arch="efficientnet_lite0", weights="ra_in1k", dropout=0.2),
    optimizer=AdamW(weight_decay=0.01),
    loss=CrossEntropy(label_smoothing=0.1),
    schedule=(
        OneCycle(epochs=4, lr=4e-3, frozen=True),
        OneCycle(epochs=16, lr=2e-3, lr_mult=10),
    ),
    reported=Reported(source="001, part 2, whole network", test_accuracy=0.6413, to_beat=True),
)

variants = named(
    recipe,
    fixed_extractor=replace(
        recipe,
        data=replace(recipe.data, augment=()),
        model=replace(recipe.model, dropout=0.0, train_bn=False),
        loss=CrossEntropy(),
        schedule=(OneCycle(epochs=20, lr=4e-3, frozen=True),),
    ),
    one_cycle=replace(
        recipe,
        schedule=(
            OneCycle(epochs=1, lr=4e-3, frozen=True),
            OneCycle(epochs=5, lr=2e-3, lr_mult=10),
        ),
    ),
    from_scratch=replace(
        recipe,
        model=replace(recipe.model, weights=None),
        schedule=(OneCycle(epochs=20, lr=2e-3),),
    ),
)
