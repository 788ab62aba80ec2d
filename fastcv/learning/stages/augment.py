"""Rounds of a training, each with an augmentation of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from fastai.learner import Learner
from fastcore.foundation import L

from fastcv.augment import compose
from fastcv.data.loader import AugmentBatch, ImageDL
from fastcv.learning.callbacks.mixing import Mixing


@dataclass(frozen=True, kw_only=True)
class WithAugment:
    """A stage that trains as another one does, on images augmented in a way of its own.

    For its duration `augment` takes the place of the data's own augmentation; however the stage
    ends, that is put back. Validation and test are never augmented.

    Args:
        stage: what trains.
        augment: of training batches, in order; those that change labels (MixUp, CutMix) last; ()
            leaves the images as they are.

    Raises:
        ValueError: one that changes labels comes before one that does not.
    """

    stage: Callable[[Learner], None]
    augment: tuple[Callable, ...] = ()

    def __post_init__(self):
        moving, mixing = _split(self.augment)
        if self.augment != moving + mixing:
            raise ValueError(
                f"augmentations that change labels must come last in augment, got {mixing[0]} "
                f"before {self.augment[-1]}"
            )

    @property
    def epochs(self) -> int:
        """Passes over the training images."""
        return self.stage.epochs

    def __call__(self, learn: Learner) -> None:
        """Train `learn` for this stage."""
        with augmented(learn, self.augment):
            self.stage(learn)

    def smoke(self) -> "WithAugment":
        """The same for one epoch."""
        return replace(self, stage=self.stage.smoke())


def with_augment(stage: Callable[[Learner], None], *augment: Callable) -> WithAugment:
    """Train a stage on images augmented in its own way: `with_augment(stage, HorizontalFlip())`."""
    return WithAugment(stage=stage, augment=augment)


@contextmanager
def augmented(learn: Learner, augment: tuple[Callable, ...]) -> Iterator[None]:
    """Augment the training batches of `learn` by `augment`, and by nothing else, for a while.

    Raises:
        ValueError: its training loader is not one that `Images` makes.
    """
    loader = learn.dls.train
    if not isinstance(loader, ImageDL):
        raise ValueError(
            "a stage with an augmentation of its own must train on the loaders of Images, got a "
            f"{type(loader).__name__}"
        )
    moving, mixing = _split(augment)
    pipeline = loader.after_batch
    before = pipeline.fs  # replaced, not changed: the loader for validation may hold the same list
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
    """What is done to the images alone, and what changes their labels as well."""
    mixing = tuple(each for each in augment if getattr(each, "changes_labels", False))
    return tuple(each for each in augment if each not in mixing), mixing
