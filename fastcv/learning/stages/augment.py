"""Stages that replace the data's augmentation."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from fastai.learner import Learner
from fastcore.foundation import L

from fastcv.augment import compose
from fastcv.data.loader import AugmentBatch, ImageDL
from fastcv.learning.callbacks.mixing import Mixing
from fastcv.learning.stages.stage import StageLike, Wrapper
from fastcv.recipe.bounds import check_each, check_takes


@dataclass(frozen=True, kw_only=True)
class WithAugment(Wrapper):
    """A stage that trains with its own augmentation instead of the data's.

    The data's augmentation is restored when the stage ends, also by an exception. Validation and
    test images are never augmented.

    Args:
        stage: the stage that trains.
        augment: what to apply to training batches, in order; those that change labels (MixUp,
            CutMix) come last. () leaves the images as they are.

    Raises:
        ValueError: one that changes labels comes before one that does not.
    """

    stage: StageLike
    augment: tuple[Callable, ...] = ()

    def __post_init__(self):
        check_takes("stage", self.stage, "learn")
        check_each("augment", self.augment, "fastcv.augment")
        moving, mixing = _split(self.augment)
        if self.augment != moving + mixing:
            raise ValueError(
                f"augmentations that change labels must come last in augment, got {mixing[0]} "
                f"before {self.augment[-1]}"
            )

    def around(self, learn: Learner) -> AbstractContextManager[None]:
        """Augment training batches by the stage's own augmentation alone."""
        return augmented(learn, self.augment)

    def smoke(self) -> "WithAugment":
        """Return the same for one epoch."""
        return replace(self, stage=self.stage.smoke())


def with_augment(stage: StageLike, *augment: Callable) -> WithAugment:
    """Train a stage with its own augmentation: `with_augment(stage, HorizontalFlip())`."""
    return WithAugment(stage=stage, augment=augment)


@contextmanager
def augmented(learn: Learner, augment: tuple[Callable, ...]) -> Iterator[None]:
    """Augment the training batches of `learn` by `augment` alone within the block.

    Raises:
        ValueError: the training loader is not one that `Images` makes.
    """
    loader = learn.dls.train
    if not isinstance(loader, ImageDL):
        raise ValueError(
            "a stage with its own augmentation must train on the loaders of Images, got a "
            f"{type(loader).__name__}"
        )
    moving, mixing = _split(augment)
    pipeline = loader.after_batch
    before = pipeline.fs  # replace the list: the validation loader may hold the same one
    own = [AugmentBatch(compose(moving))] if moving else []
    others = [each for each in before if not isinstance(each, AugmentBatch)]
    mixers = [Mixing(mixing, len(learn.dls.vocab))] if mixing else []
    pipeline.fs = L(own + others).sorted(key="order")
    try:
        with learn.removed_cbs(list(learn._grab_cbs(Mixing))), learn.added_cbs(mixers):
            yield
    finally:
        pipeline.fs = before


def _split(augment: tuple[Callable, ...]) -> tuple[tuple[Callable, ...], tuple[Callable, ...]]:
    """Return the augmentations that keep labels, and those that change them."""
    mixing = tuple(each for each in augment if getattr(each, "changes_labels", False))
    return tuple(each for each in augment if each not in mixing), mixing
