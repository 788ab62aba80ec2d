"""Predictions on anybody's images with a trained net."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from os import PathLike, cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fastcv.augment.crop import CenterCrop
from fastcv.augment.pixels import Normalize
from fastcv.data.sources.folders import IMAGE_SUFFIXES, is_hidden
from fastcv.predict.device import named_device
from fastcv.predict.multi_label import holds
from fastcv.predict.trained import TrainedModel

BATCH_SIZE = 32
AHEAD = 4  # batches that are being decoded while the net computes one


@dataclass(frozen=True, eq=False)
class Prediction:
    """A net's prediction of one image.

    Attributes:
        probabilities: (classes,), float32, summing to 1; of several labels an image, those of each.
        classes: their names, in that order.
        path: of the image, if it was a file.
        thresholds: of several labels an image, the probability from which each holds.
    """

    probabilities: np.ndarray
    classes: tuple[str, ...]
    path: Path | None = None
    thresholds: tuple[float, ...] | None = None

    @property
    def labels(self) -> list[tuple[str, float]]:
        """The labels that hold, with their probabilities, best first: one class, or any number."""
        if self.thresholds is None:
            return self.top(1)
        held = holds(self.probabilities, self.thresholds)
        kept = {self.classes[index] for index in np.flatnonzero(held)}
        return [pair for pair in self.top(len(self.classes)) if pair[0] in kept]

    @property
    def label(self) -> str:
        """Name of the likeliest class."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """Probability of the likeliest class, 0-1."""
        return float(self.probabilities.max())

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the likeliest classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]

    def __repr__(self) -> str:
        """Name the likeliest classes."""
        said = ", ".join(f"{label} {share:.2%}" for label, share in self.top(3))
        return f"Prediction({said})"


@dataclass(frozen=True)
class Unreadable:
    """A file that is no image, or a damaged one; `reason` is a sentence that names it."""

    path: Path
    reason: str


class Predictor:
    """A trained net with its preprocessing: call it with images, get predictions.

        predictor = fastcv.load("runs/digits/20260101-120000-seed0")
        predictor("bird.jpg").label
        predictor(["a.jpg", "b.jpg"])    # a list gives a list
        predictor("photos/")             # so does a folder

    Attributes:
        net: the plain `torch.nn.Module`, in evaluation mode, on `device`.
        model: what model.json says: classes, sizes, normalization.
        device: where the net computes.
        views: test-time augmentation, called with the net and its input; None for none.
    """

    views: Callable[[nn.Module, Tensor], Tensor] | None = None

    def __init__(self, model: TrainedModel, net: nn.Module, device: torch.device):
        self.model, self.net, self.device = model, net, device
        self._decode = model.decoding
        self._crop = CenterCrop(size=model.size)
        self._normalize = Normalize(mean=model.mean, std=model.std)

    @classmethod
    def of(
        cls, model: TrainedModel, folder: Path, device: str | torch.device | None = None
    ) -> "Predictor":
        """Build the net that a model describes with the weights that lie in a folder.

        Raises:
            ValueError: there is no such device.
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        place = named_device(device)
        return cls(model, model.build(folder).to(place), place)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.model.classes

    def __call__(self, images: Any, *, batch_size: int = BATCH_SIZE) -> Any:
        """Predict one image, or several.

        Args:
            images: a file, a Pillow image, an array (H, W) or (H, W, C), or a tensor (C, H, W),
                bytes or fractions 0-1; or a folder, a sequence of any of these, an array
                (N, H, W, C) or a tensor (N, C, H, W).
            batch_size: images that the net computes at a time.

        Returns:
            A Prediction for one image, a list of them for several.

        Raises:
            ValueError: an image cannot be read.
        """
        several = _several(images)
        found = list(self.stream([images] if several is None else several, batch_size=batch_size))
        for each in found:
            if isinstance(each, Unreadable):
                raise ValueError(each.reason)
        return found if several is not None else found[0]

    def stream(
        self, images: Iterable[Any], *, batch_size: int = BATCH_SIZE
    ) -> Iterator[Prediction | Unreadable]:
        """Predict any number of images, in order, decoding some batches ahead of the net.

        A file that cannot be read gives an `Unreadable`, and the rest goes on.

        Args:
            images: single images, as a call takes them; read as they are needed.
            batch_size: images that the net computes at a time.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        for decoded in _ahead(self._decoded, _batches(images, batch_size)):
            pixels = [each for _, each in decoded if not isinstance(each, Unreadable)]
            rows = iter(self.probabilities(np.stack(pixels)) if pixels else ())
            for path, each in decoded:
                readable = not isinstance(each, Unreadable)
                if readable:
                    each = Prediction(next(rows), self.classes, path, self.model.thresholds)
                yield each

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Predict decoded images.

        Shape:
            pixels: (B, resize, resize, channels), uint8.
            returns: (B, classes), float32.
        """
        return self.classify(self.batch(pixels))

    def batch(self, pixels: np.ndarray) -> Tensor:
        """Turn decoded images into the net's input, exactly as validation does.

        Shape:
            pixels: (B, resize, resize, channels), uint8.
            returns: (B, channels, size, size), float32, channels-last, on the device.
        """
        x = torch.tensor(pixels, device=self.device).permute(0, 3, 1, 2)
        return self._normalize(self._crop(x.contiguous(memory_format=torch.channels_last)))

    def transform(self, image: Any) -> Tensor:
        """Turn one image into the net's input, (channels, size, size), float32.

        Raises:
            ValueError: it cannot be read.
        """
        return self.batch(self._decode(_as_decodable(image))[None])[0]

    def classify(self, x: Tensor) -> np.ndarray:
        """Run the net on its input, and return calibrated probabilities.

        Shape:
            x: (B, channels, size, size).
            returns: (B, classes), float32.
        """
        logits = self.logits(x) / self.model.temperature
        several = self.model.thresholds is not None
        return (logits.sigmoid() if several else logits.softmax(dim=1)).cpu().numpy()

    def logits(self, x: Tensor) -> Tensor:
        """Run the net on its input, in the precision that it was validated in.

        Shape:
            x: (B, channels, size, size).
            returns: (B, classes), float32.
        """
        with torch.inference_mode(), self._autocast():
            return (self.views(self.net, x) if self.views else self.net(x)).float()

    def _autocast(self) -> AbstractContextManager:
        if self.model.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _decoded(self, images: Sequence[Any]) -> list[tuple[Path | None, Any]]:
        found: list[tuple[Path | None, Any]] = []
        for image in images:
            path = Path(image) if isinstance(image, str | PathLike) else None
            try:
                found.append((path, self._decode(_as_decodable(image))))
            except ValueError as error:
                if path is None:
                    raise
                found.append((path, Unreadable(path, str(error))))
        return found

    def __repr__(self) -> str:
        """Name the recipe, the classes and the device."""
        return f"Predictor({self.model.name}, {len(self.classes)} classes, on {self.device})"


def image_files(folder: Path) -> list[Path]:
    """Return the image files below a folder, at any depth, in order of their names.

    Files and folders that training ignores, as hidden ones, are left out.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    shown = (path for path in found if not any(map(is_hidden, path.relative_to(folder).parts)))
    return sorted(path for path in shown if path.is_file())


def _several(images: Any) -> Iterable[Any] | None:
    """Return the single images of what holds several; None of one image."""
    if isinstance(images, str | PathLike):
        folder = Path(images)
        return image_files(folder) if folder.is_dir() else None
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == 4 else None
    if isinstance(images, Image.Image):
        return None
    return list(images)


def _as_decodable(image: Any) -> Path | np.ndarray:
    """Return an image as `Decoding` takes it: a file, or an array (H, W) or (H, W, C)."""
    if isinstance(image, str | PathLike):
        return Path(image)
    if isinstance(image, Tensor):
        if image.ndim != 3:
            raise ValueError(f"a tensor of one image must be (C, H, W), got {tuple(image.shape)}")
        image = image.permute(1, 2, 0).numpy(force=True)
    return image


def _batches(images: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(images)
    while batch := list(islice(rest, size)):
        yield batch


def _ahead(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Map `work` over items in threads, a few items ahead; decoding runs outside Python's lock."""
    with ThreadPoolExecutor(min(AHEAD, cpu_count() or 1)) as threads:
        waiting: list[Future] = []
        try:
            for item in items:
                waiting.append(threads.submit(work, item))
                if len(waiting) > AHEAD:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for each in waiting:
                each.cancel()
