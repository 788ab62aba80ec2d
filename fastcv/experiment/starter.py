"""A short recipe of your own for a folder of photos, to edit."""

import json
from pathlib import Path

from fastcv import files
from fastcv.data.sources.folders import ImageFolders

VALID = 0.2  # fraction of each class
_RECIPE = '''\
"""EfficientNet-Lite0 from ImageNet, fine-tuned on {name}."""

from fastcv import HALF_STATS, ImageFolders, Images, Recipe
from fastcv.augment import HorizontalFlip, RandomResizedCrop
from fastcv.learning import EMA, AdamW, CrossEntropy, OneCycle, Pretrained, PreviousLR, with_augment

average = EMA(decay=0.998, warmup=False)  # of the weights since its stage began

recipe = Recipe(
    data=Images(
        source=ImageFolders(path={path}, valid={valid}, valid_most=2_000),
        size=256,
        batch_size=32,
        epoch_images=5_000,  # at most; each epoch draws other ones
        upright=True,
        augment=(RandomResizedCrop(size=256, scale=(0.5, 1.0)), HorizontalFlip()),
        normalize=HALF_STATS,
    ),
    model=Pretrained(arch="tf_efficientnet_lite0", weights="in1k", train_bn="weights"),
    optimizer=AdamW(weight_decay=0.05),
    loss=CrossEntropy(label_smoothing=0.1),
    schedule=(
        with_augment(OneCycle(epochs=20, lr="valley", frozen=True)),  # the head alone
        OneCycle(epochs=6, lr=PreviousLR(divided_by=16), clip=1.0, callbacks=(average,)),
    ),
)
'''


def write_starter(file: Path, photos: Path) -> str:
    """Write a recipe for a folder of photos into a new file.

    Returns:
        What the folder holds, such as "812 images of 3 classes".

    Raises:
        ValueError: `ImageFolders` cannot read the folder, or the file cannot be written.
    """
    photos = photos.expanduser()
    samples = ImageFolders(path=photos, valid=VALID)()
    text = _RECIPE.format(name=_plain(photos.name), path=json.dumps(str(photos)), valid=VALID)
    files.write_text(file, text)
    count = len(samples.train) + len(samples.valid) + len(samples.test)
    return f"{count:,} images of {len(samples.classes):,} classes"


def _plain(name: str) -> str:
    """Return a folder's name as it may stand in a docstring."""
    return json.dumps(name)[1:-1].replace('\\"', "'")
