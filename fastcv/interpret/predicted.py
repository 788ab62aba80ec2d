"""A net's predictions for every image of a data set, as plain arrays."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastcv import ranks
from fastcv.predict.evaluation import Predictions

if TYPE_CHECKING:
    from fastai.learner import Learner


def predictions(learn: "Learner", ds_idx: int = 1) -> Predictions:
    """Predict every image of one of a Learner's data sets in one pass, without augmentation.

    Args:
        learn: a Learner whose net returns logits.
        ds_idx: 0 for the training images (all of them, in order and without augmentation), 1 for
            the validation images, 2 for the test images.

    Raises:
        ValueError: there is no data set `ds_idx`.
    """
    import torch  # heavy; the figures are drawn without it

    loaders = learn.dls.loaders
    if not 0 <= ds_idx < len(loaders):
        raise ValueError(
            f"ds_idx must be below {len(loaders)}, the number of loaders, got {ds_idx}"
        )
    several = getattr(learn.dls, "multi_label", False)
    dataset = loaders[ds_idx].dataset
    loader = loaders[ds_idx].new(shuffle=False, drop_last=False)
    places = own_places(len(dataset), loader.bs or 1)
    if len(places) < len(dataset):
        loader = loader.new(get_idxs=lambda: places)
    found = None
    # fastai switches train-only transforms by the data set's split, not by the net's mode.
    with dataset.set_split_idx(1), ranks.alone():
        if places:
            found = learn.get_preds(
                dl=loader,
                with_loss=True,
                # Not the loss's: one without fastai's `activation` would leave logits.
                act=lambda logits: (
                    logits.float().sigmoid() if several else logits.float().softmax(dim=1)
                ),
            )
    parts = [each for each in ranks.gathered(found) if each is not None]
    probabilities, targets, losses = map(torch.cat, zip(*parts, strict=True))
    names = getattr(learn.dls, "names", None)
    return Predictions(
        paths=tuple(names[ds_idx] if names else map(str, range(len(targets)))),
        probabilities=np.asarray(probabilities, dtype=np.float32),
        targets=np.asarray(targets),
        losses=np.asarray(losses.float()),
        classes=tuple(str(name) for name in learn.dls.vocab),
        image=lambda i: dataset[int(i)][0],
    )


def own_places(images: int, size: int) -> list[int]:
    """Return which of so many images this rank predicts: a run of whole batches of `size`."""
    batches, rank, count = -(-images // size), ranks.rank(), ranks.count()
    first, last = (size * (batches * each // count) for each in (rank, rank + 1))
    return list(range(first, min(last, images)))


def readable(vocab: Sequence[str]) -> tuple[str, ...]:
    """Return class names as a person would write them: `Laysan Albatross`.

    That is `002.Laysan_Albatross`; numbers stay if two names would be the same without them.
    """
    spaced = tuple(" ".join(name.replace("_", " ").split()) for name in vocab)
    unnumbered = tuple(re.sub(r"^\d+\.\s*(?=\D)", "", name) for name in spaced)
    return unnumbered if len(set(unnumbered)) == len(set(vocab)) else spaced


def shortened(name: str, longest: int) -> str:
    """Return a name of at most `longest` characters, its middle replaced by an ellipsis.

    Both ends stay: names of species differ at the start, and have the genus at the end.
    """
    if len(name) <= longest:
        return name
    end = (longest - 1) // 2
    return name[: longest - 1 - end].rstrip() + "…" + name[len(name) - end :].lstrip()
