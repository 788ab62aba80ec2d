"""EfficientNet-Lite0 from ImageNet, fine-tuned on your own photos.

A start for photographs of a few classes to a few hundred, from some hundred images up: a small net
that trains on two cores as well as on a GPU. It needs timm: pip install 'fastcv[timm]'.

Data:
    `--data PHOTOS`: a folder with one subfolder for each class. Unless there is a folder for it, a
    fifth of each class validates, but at most 2,000 images in all. Photos are turned upright as
    their EXIF data says.

Net:
    timm's tf_efficientnet_lite0, 3.4 million parameters beside the head. Its weights, timm's "in1k"
    (Apache-2.0), are fetched from the Hugging Face Hub once. They expect pixels from -1 to 1.

Schedule:
    The head for 20 epochs, on the features of the unchanged images, which are computed once, at the
    rate that the LR finder suggests ("valley"); then the whole net for 6, at a sixteenth of it. It
    ends with an average of its weights over all steps, the starting weights included: few photos,
    and so few steps, change it little, and many change it fully.
    Batch norm keeps the statistics of ImageNet: with few images of each class those of small
    batches spoil more than they adapt. An epoch takes at most 5,000 images, other ones each time,
    so that large sets end soon too; with more time, `--set data.epoch_images=None` takes all.

Readings:
    - The epochs of the head cost next to nothing, and are needed: on birds, 5 images of each class,
      2 of them and then the whole net gave 46.16 %, 20 of them alone 54.43 %, and 20 of them and
      then the whole net 56.21 % (transfer_efficientnet).
    - For a new head, the finder's "valley" lies between 0.0012 (15 images of each of CIFAR-100's
      classes) and 0.0091 (20 of each of CIFAR-10's), and three seeds agree within a factor of four.
      For the whole net after it, all suggestions of one sweep lie from 6e-8 to 0.001, since the
      loss of a trained net hardly falls: no rate to rely on. Hence a part of the head's.
    - A sixteenth of it is 0.0002 on CIFAR-10. Larger rates gained less in a trial (3,600 images, 2
      epochs of 2,500; the head alone 87.6 % of 1,000 others): 0.0002 ended at 93.2 %, 0.0004 at
      91.6 %, and 0.00075 at 89.4 %; the whole training at 0.00075 ended at 91.6 % of the validation
      images. With 0.00075 for the last layers and a
      tenth of it for the first (`lr_mult=10`), the trial ended at 93.5 %, the whole training at
      94.15 % validation and 93.56 % test accuracy.
    - Photos are mirrored at random. Where left and right differ, as in writing, leave that out:
      `--set "data.augment=RandomResizedCrop(size=256, scale=(0.5, 1.0))"`.
    - Another net is a setting, with the statistics of its weights: `--set model.arch=resnet50
      --set model.weights=IMAGENET1K_V2 --set data.normalize=IMAGENET_STATS`.

Measured:
    Two sets as folders of photos, no option given, on one core (AMD EPYC, bf16), seed 0:
    - CIFAR-10 (48,000 train, 2,000 validation and 10,000 test images of 32 pixels): 94.00 % test
      and 95.20 % validation accuracy, in 19 min after 6.0 min for the features. The head alone was
      right on 90.05 % of the validation images. Why these are easier than the test images, as other
      code sees as well, is not explained.
    - MNIST (58,000 train, 2,000 validation and 10,000 test images of 28 pixels): 98.27 % test and
      98.05 % validation accuracy, in 20 min after 9.4 min for the features; the head alone 95.80 %
      of the validation images. Digits do differ from their mirror images: the reading above would
      leave the flips out.
    At first the rates were fixed (0.003 and 0.0002), on 224 pixels: 93.79 % and 98.15 % test.
    transfer_efficientnet trains this net on birds.

Command:
    fastcv recipe finetune --data PHOTOS
"""

from fastcv import HALF_STATS, ImageFolders, Images, Recipe
from fastcv.augment import HorizontalFlip, RandomResizedCrop
from fastcv.learning import EMA, AdamW, CrossEntropy, OneCycle, Pretrained, PreviousLR, with_augment

average = EMA(decay=0.998, warmup=False)  # of the weights since its stage began

recipe = Recipe(
    name="finetune",
    data=Images(
        source=ImageFolders(valid=0.2, valid_most=2_000),
        size=256,
        batch_size=32,
        valid_batch_size=128,
        epoch_images=5_000,
        upright=True,
        normalize=HALF_STATS,
        augment=(RandomResizedCrop(size=256, scale=(0.5, 1.0)), HorizontalFlip()),
    ),
    model=Pretrained(arch="tf_efficientnet_lite0", weights="in1k", dropout=0.2, train_bn="weights"),
    optimizer=AdamW(weight_decay=0.05),
    loss=CrossEntropy(label_smoothing=0.1),
    schedule=(
        with_augment(OneCycle(epochs=20, lr="valley", frozen=True)),
        OneCycle(epochs=6, lr=PreviousLR(divided_by=16), clip=1.0, callbacks=(average,)),
    ),
)
