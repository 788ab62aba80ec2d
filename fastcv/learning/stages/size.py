"""Stages that train on smaller images."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import torch
from fastai.learner import Learner
from fastcore.foundation import L

from fastcv.data.images import SMOKE_SIZE
from fastcv.data.loader import ImageDL, ResizeBatch
from fastcv.learning.stages.stage import StageLike, Wrapper
from fastcv.recipe.bounds import WIDEST, check_takes, check_whole


@dataclass(frozen=True, kw_only=True)
class WithSize(Wrapper):
    """A stage that trains on smaller images than the data's: progressive resizing.

    Each batch is augmented as always and then resized on its device, smoothed; the LR finder trains
    on these images too. Validation and test images keep the data's size, so that numbers of all
    epochs can be compared. With `step.compile`, a new size compiles the net once more, and a CUDA
    graph is captured for each stage anyway.

    Args:
        stage: the stage that trains.
        size: height and width of the training images, pixels; at most the data's.

    Raises:
        ValueError: `size` is below 1 or, when the stage starts, larger than the data's or not one
            that the net takes.

    Source: Howard et al. 2018, fastai's entry to DAWNBench; Tan and Le 2021, arXiv:2104.00298.
    """

    stage: StageLike
    size: int

    def __post_init__(self):
        check_takes("stage", self.stage, "learn")
        check_whole("size", self.size, least=1, most=WIDEST)

    def around(self, learn: Learner) -> AbstractContextManager[None]:
        """Resize training batches."""
        return resized(learn, self.size)

    def smoke(self) -> "WithSize":
        """Return the same for one epoch; the toy images are not resized."""
        return replace(self, stage=self.stage.smoke(), size=min(self.size, SMOKE_SIZE))


@contextmanager
def resized(learn: Learner, size: int) -> Iterator[None]:
    """Resize the training batches of `learn` to `size` pixels within the block.

    Raises:
        ValueError: the training loader is not one that `Images` makes, or the size does not fit.
    """
    loader = learn.dls.train
    if not isinstance(loader, ImageDL):
        raise ValueError(
            "a stage with its own size must train on the loaders of Images, got a "
            f"{type(loader).__name__}"
        )
    full = learn.dls.image_shape[-1]
    if size > full:
        raise ValueError(
            f"a stage's size must be at most the data's {full} pixels, got {size}: raise the "
            "data's size"
        )
    if size < full:
        _check_net(learn, size)
    pipeline = loader.after_batch
    before = pipeline.fs  # replace the list: the validation loader may hold the same one
    pipeline.fs = L([*before, ResizeBatch(size)]).sorted(key="order")
    try:
        yield
    finally:
        pipeline.fs = before


def _check_net(learn: Learner, size: int) -> None:
    """Raise a ValueError if the net cannot compute images of this size."""
    net, channels = learn.model, learn.dls.image_shape[0]
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            net(torch.zeros(1, channels, size, size, device=learn.dls.device))
    except (RuntimeError, AssertionError, ValueError) as error:
        problem = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"a stage's size must be one that the net takes, got {size} ({problem}): use a net "
            "that pools images of any size, or leave WithSize out"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
