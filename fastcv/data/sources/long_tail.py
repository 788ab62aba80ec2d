"""Another source's training images, cut to a long tail."""

from dataclasses import dataclass
from pathlib import Path

from fastcv.data.protocols import Source
from fastcv.data.samples import Sample, Samples
from fastcv.data.splits import digest, kept
from fastcv.recipe.bounds import check_number, check_takes, check_whole


@dataclass(frozen=True, kw_only=True)
class LongTail:
    """Cut the training images of a source to a long tail, to study imbalance.

    The class at place i = 0 ... classes - 1 keeps n / ratio ** (i / (classes - 1)) images, rounded,
    at least 1, where n is what the smallest class has. Places and images are chosen by a hash of
    the seed; images kept at one ratio are also kept at any smaller one. Validation and test images
    stay as they are.

    Args:
        source: lists the images.
        ratio: training images of the largest class for one of the smallest (imbalance ratio).
        seed: decides which classes are rare, and which images are kept.

    Raises:
        ValueError: `ratio` is below 1, or what the source raises.

    Source: the exponential profile of Cui et al. 2019, arXiv:1901.05555.
    """

    source: Source
    ratio: float
    seed: int = 0

    def __post_init__(self):
        check_takes("source", self.source, "path")
        check_number("ratio", self.ratio, least=1)
        check_whole("seed", self.seed)

    def __call__(self, path: Path | None = None) -> Samples:
        """List the images that are kept."""
        whole = self.source(path)
        if whole.multi_label:
            raise ValueError(
                "a long tail is cut from images of one class each, but these have several labels: "
                "use another source"
            )
        by_class: dict[str, list[Sample]] = {label: [] for label in whole.classes}
        for sample in whole.train:
            by_class[sample.label].append(sample)
        largest = min(map(len, by_class.values()))
        tail = []
        for place, label in enumerate(sorted(by_class, key=self._rank)):
            share = self.ratio ** (place / (len(by_class) - 1))
            count = max(1, int(largest / share + 0.5))  # half up
            own = by_class[label]
            tail += [own[index] for index in kept([label] * len(own), count, self.seed)]
        order = {id(sample): place for place, sample in enumerate(whole.train)}
        return whole._replace(train=sorted(tail, key=lambda sample: order[id(sample)]))

    def _rank(self, label: str) -> bytes:
        return digest(f"{self.seed}/{label}")
