"""Draw the images of an epoch so that rare classes come more often."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class BalancedSampler:
    """Draws an epoch's images with classes in the proportion count ** (1 - balance).

    A class of which more is drawn than it has repeats all its images before any comes once more;
    of one of which less is drawn, each epoch takes other images. So an epoch shows each image of a
    class equally often, plus or minus one.

    Args:
        labels: (N,), int64, the class number of each image.
        balance: 0 draws classes as often as they come, 1 all equally often (class-balanced
            sampling), 0.5 lies between them (square-root sampling).

    Source: Kang et al. 2020, arXiv:1910.09217, where q is 1 - balance.
    """

    labels: Tensor
    balance: float

    def __call__(self, generator: torch.Generator, images: int | None = None) -> Tensor:
        """Draw and shuffle an epoch of so many images, or of as many as there are.

        Returns:
            (images,), int64, places in `labels`.
        """
        counts = self.labels.unique(return_counts=True)[1]
        of_classes = self.labels.argsort(stable=True).split(counts.tolist())
        shares = quotas(counts, self.balance, generator, images)
        drawn = []
        for own, quota in zip(of_classes, shares, strict=True):
            rounds = torch.rand(-(-int(quota) // len(own)), len(own), generator=generator)
            drawn.append(own[rounds.argsort(dim=1).flatten()[:quota]])
        epoch = torch.cat(drawn)
        return epoch[torch.randperm(len(epoch), generator=generator)]


def quotas(
    counts: Tensor, balance: float, generator: torch.Generator, images: int | None = None
) -> Tensor:
    """Share the images of an epoch out among the classes.

    Shares are rounded up or down at random, such that each is right on average and their sum is
    that of the images (systematic sampling).

    Args:
        counts: (classes,), int64, each above 0.
        balance: as in `BalancedSampler`.
        generator: of the random number that decides how shares are rounded.
        images: of the epoch; None for the sum of `counts`.

    Returns:
        (classes,), int64, with the sum of `images`.
    """
    shares = counts.double() ** (1 - balance)
    total = int(counts.sum()) if images is None else images
    ends = (shares.cumsum(0) / shares.sum() * total)[:-1]
    cuts = (ends + torch.rand((), generator=generator, dtype=torch.float64)).long()
    return torch.diff(cuts, prepend=cuts.new_zeros(1), append=cuts.new_tensor([total]))
