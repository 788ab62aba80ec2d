"""The second contender: fastai as in its documentation, with its defaults."""

import contextlib
import io
from collections.abc import Callable, Sequence

import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.vision.core import PILImage, PILImageBW
from fastai.vision.data import ImageBlock
from torch import nn

from fastcv.bench.equivalents import fastai_transforms
from fastcv.bench.rounds import Clock, Stopwatch
from fastcv.data.images import Images, image_of, label_of
from fastcv.data.samples import Sample

RATE = 1e-4  # low, so that no contender's loss diverges over many rounds
EPOCHS = 10_000  # far more than a round has
LOOKED_AT = 32  # images, to find out whether they need resizing


def training_only(items: Sequence[Sample]) -> tuple[list[int], list[int]]:
    """Split: all images train; the first also validates, as fastai needs a validation set."""
    return list(range(len(items))), [0]


def stock_loaders(
    samples: Sequence[Sample], classes: Sequence[str], data: Images, device: torch.device
) -> DataLoaders:
    """Build a DataBlock's loaders for the same image files or arrays.

    Images are resized only if they need it. The number of worker processes is fastai's default.
    `classes` are in the order of their numbers.
    """
    kind = PILImage if data.channels == 3 else PILImageBW
    side = data.resize or data.size
    step = max(1, len(samples) // LOOKED_AT)
    sizes = {kind.create(sample.image).size for sample in samples[::step]}
    items, batches = fastai_transforms(data, resized=sizes == {(side, side)})
    block = DataBlock(
        blocks=(ImageBlock(cls=kind), CategoryBlock(vocab=list(classes), sort=False)),
        get_x=image_of,
        get_y=label_of,
        splitter=training_only,
        item_tfms=items,
        batch_tfms=batches,
    )
    bs = min(data.batch_size, len(samples))  # fastai drops the last, smaller batch
    return block.dataloaders(list(samples), bs=bs, device=device)


class StockTraining:
    """fastai's Learner with fastai's optimizer, its default callbacks, its `fit_one_cycle`.

    It runs in fp32 on contiguous tensors, which is a Learner's default.
    """

    def __init__(self, dls: DataLoaders, net: nn.Module, loss: Callable, opt_func: Callable):
        self.learn = Learner(dls, net, loss_func=loss, opt_func=opt_func, metrics=accuracy)

    def __call__(self, clock: Clock) -> None:
        """Train until the round is over."""
        # The bar's work counts, but its output would disturb the table.
        with contextlib.redirect_stdout(io.StringIO()):
            self.learn.fit_one_cycle(EPOCHS, RATE, cbs=Stopwatch(clock))
