"""A fastai loader that gathers whole batches from decoded images."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.core import TfmdDL
from fastai.data.transforms import IntToFloatTensor
from fastai.torch_core import (
    TensorCategory,
    TensorImage,
    TensorImageBW,
    TensorMultiCategory,
    find_bs,
)
from fastai.vision.core import PILBase, PILImage, PILImageBW
from fasttransform import DisplayedTransform, Transform
from PIL import Image
from torch import Tensor

from fastcv import ranks
from fastcv.augment.alternating import at_epoch
from fastcv.augment.crop import CenterCrop
from fastcv.augment.part import Part, drawing, part_of
from fastcv.augment.pixels import Normalize
from fastcv.augment.resize import Resize
from fastcv.data.decoding import read_image, resized, square
from fastcv.data.sampling import BalancedSampler

# Arguments of `DataLoader.new` that replace the way from an item to a batch: decoded images would
# bypass them.
ITEM_STEPS = {
    "after_item", "before_batch", "create_item", "create_batch", "create_batches", "do_batch",
    "do_item", "retain", "sample",
}  # fmt: skip

LIGHT = 2**20  # bytes of a batch


class ReadImage(Transform):
    """Read an image: a file, pixels (floats must lie in 0-1), or a picture of Pillow's.

    Args:
        channels: 3 for RGB, 1 for gray.
        side: pixels that a file's shorter side will be resized to, to refuse one that would become
            too large; None if it will not be resized.
        upright: whether the orientation in EXIF data is applied.
    """

    # What `test_dl` and `predict` accept, whatever the data set's own images are.
    input_types = (Path, str, np.ndarray, Tensor, Image.Image)

    def __init__(self, channels: int, side: int | None = None, upright: bool = False):
        self.channels, self.side, self.upright = channels, side, upright
        self.kind = PILImage if channels == 3 else PILImageBW

    def encodes(self, image):
        """Read one image as 8-bit RGB or gray; raise if it cannot be read or is too narrow."""
        if isinstance(image, Tensor):
            if image.ndim != 3 or image.shape[0] not in (1, 3):
                raise ValueError(
                    f"a tensor must be (C, H, W) with 1 or 3 channels, got {tuple(image.shape)}: "
                    f"permute it, or pass an array (H, W, C)"
                )
            image = image.as_subclass(Tensor).permute(1, 2, 0)
            # numpy has no bfloat16.
            image = (image.float() if image.is_floating_point() else image).numpy(force=True)
            if image.dtype.kind == "i" and image.size and image.min() >= 0 and image.max() <= 255:
                image = image.astype(np.uint8)
        picture = read_image(image, self.channels, self.upright)
        if self.side is not None and isinstance(image, str | Path):
            resized(picture.size, self.side, f"image '{image}'")  # here, where its name is known
        return self.kind(picture)


class CenterSquare(DisplayedTransform):
    """Resize the shorter side to `side` pixels and cut the center square out.

    If there is a `via`, a larger square of so many pixels is made first.
    """

    order = 1

    def __init__(self, side: int, via: int | None = None):
        self.side, self.via = side, via

    def encodes(self, picture: PILBase):
        """Resize and cut one picture."""
        whole = picture if self.via is None else square(picture, self.via)
        return type(picture)(square(whole, self.side))


class AugmentBatch(DisplayedTransform):
    """Augment batches of training images by `plain`, which takes and returns plain tensors."""

    order, split_idx = 20, 0

    def __init__(self, plain: Callable[[Tensor], Tensor]):
        self.plain = plain
        self.moves_pixels = getattr(plain, "moves_pixels", False)

    def encodes(self, x: TensorImage):
        """Augment a batch."""
        return TensorImage(self.plain(x.as_subclass(Tensor)))


class ResizeBatch(DisplayedTransform):
    """Resize finished batches of training images to `size` pixels, smoothing where they shrink."""

    order, split_idx = 100, 0

    def __init__(self, size: int):
        self.size = size
        self.plain = Resize(size=size)

    def encodes(self, x: TensorImage):
        """Resize a batch."""
        return TensorImage(self.plain(x.as_subclass(Tensor)))


class CropAndNormalize(DisplayedTransform):
    """Cut images to their center, `size` pixels, and normalize; None leaves pixels in 0-1."""

    order = 99

    def __init__(self, size: int, normalize: Normalize | None):
        self.size = size
        self.normalize = Normalize(mean=(0.0,), std=(1.0,)) if normalize is None else normalize
        self._crop = CenterCrop(size=size)

    def plain(self, x: Tensor) -> Tensor:
        """Cut and normalize plain images, which must not be smaller than `size`.

        Shape:
            x: (B, C, H, W), uint8 or floats of 0-1.
            returns: (B, C, size, size), floats, channels-last.
        """
        if min(x.shape[-2:]) < self.size:
            raise ValueError(
                f"augmented images must have at least size={self.size} pixels, got "
                f"{x.shape[-2]} x {x.shape[-1]}: crop or resize to {self.size} in augment"
            )
        return self.normalize(self._crop(x.contiguous(memory_format=torch.channels_last)))

    def encodes(self, x: TensorImage):
        """Cut and normalize a batch."""
        return TensorImage(self.plain(x.as_subclass(Tensor)))

    def decodes(self, x: TensorImage):
        """Turn a batch, or one image of it, back into pixels of 0-255."""
        mean, std = (
            torch.tensor(each, device=x.device).view(-1, 1, 1)
            for each in (self.normalize.mean, self.normalize.std)
        )
        pixels = x.as_subclass(Tensor) * std + mean
        return TensorImage((pixels.clamp(0, 1) * 255).round().long())


OURS = (AugmentBatch, CropAndNormalize, ResizeBatch)  # steps that take plain tensors


@dataclass(eq=False)
class Decoded:
    """The decoded images of one loader, with the numbers of their classes."""

    images: Tensor  # (N, H, W, C), uint8, on any device; may hold images of other loaders too
    rows: Tensor  # (n,), int64: the row in `images` of each image of this loader
    labels: Tensor  # (n,), int64; or (n, classes), float32, 1 where an image has a label

    def batch(self, places: Tensor, *, pinned: bool = False) -> tuple[Tensor, Tensor]:
        """Gather images (B, C, H, W), channels-last, and labels (B,) at `places` (B,) of `rows`.

        `pinned` puts them into memory that a GPU reads while this thread goes on. torch keeps such
        memory for the next batches, and does not reuse it before it was read.
        """
        rows, labels, out = self.rows[places], self.labels[places], None
        if pinned:
            shape = (len(rows), *self.images.shape[1:])
            out = torch.empty(shape, dtype=self.images.dtype, pin_memory=True)
            labels = labels.pin_memory()
        images = torch.index_select(self.images, 0, rows, out=out)
        return images.permute(0, 3, 1, 2), labels


def draws_for_part(augmentation: Callable) -> bool:
    """Whether an augmentation draws its random numbers so that ranks can share a batch."""
    values = getattr(augmentation, "values", None)
    if isinstance(values, tuple):
        return all(map(draws_for_part, values))
    kind = getattr(augmentation, "__self__", augmentation)  # of a method
    return type(kind).__module__.startswith("fastcv.")


def shared(loader: Iterable) -> Iterator[Any]:
    """Go through the batches of a loader: a rank gets its own part of each.

    A loader that reads image by image makes whole batches on each rank, which are cut here.
    """
    if ranks.count() == 1 or (isinstance(loader, ImageDL) and loader._gathers):
        yield from loader
        return
    padded = getattr(loader, "split_idx", None) == 0
    for batch in loader:
        part = part_of(find_bs(batch), before=getattr(loader, "before", 0), padded=padded)
        if part is not None:
            loader.part = part
            yield tuple(part.of(each) for each in batch)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads for a while; changing the count costs nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ImageDL(TfmdDL):
    """fastai's loader, which gathers whole batches if its images are decoded.

    Everything else is fastai's: the order of the images, the transforms of batches, `show_batch`,
    `test_dl` and so on. A loader that `new` derives from this one gathers too, provided it has the
    same data set and makes batches of items in the same way; otherwise `decoded` is None, and it
    reads image by image.

    One of several ranks goes through the same batches as one process alone would, but makes only
    its own images of each: see `fastcv.augment.part`.

    Attributes:
        decoded: the decoded images.
        sampler: draws the images of a shuffled epoch; None takes each once.
        epoch_images: largest number of images in a shuffled epoch; None for all.
        part: which images of the batch that was made last it holds; None: all.
        before: images to add before a rank's own, which are mixed with these.
    """

    part: Part | None = None
    before = 0

    def __init__(
        self,
        dataset: Any = None,
        *,
        decoded: Decoded | None = None,
        sampler: BalancedSampler | None = None,
        epoch_images: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(dataset, **kwargs)
        self.decoded, self.sampler, self.epoch_images = decoded, sampler, epoch_images
        self._item_transforms = list(self.after_item.fs)

    def new(self, dataset: Any = None, cls: type | None = None, **kwargs: Any) -> TfmdDL:
        """Make a loader like this one, except for the arguments."""
        same = dataset is None or dataset is self.dataset
        if same and self._gathers and not ITEM_STEPS & kwargs.keys():
            kwargs.setdefault("decoded", self.decoded)
        if same:
            kwargs.setdefault("sampler", self.sampler)
            kwargs.setdefault("epoch_images", self.epoch_images)
        return super().new(dataset, cls, **kwargs)

    def __len__(self) -> int:
        if self.epoch_images is None or None in (self.n, self.bs) or not self.shuffle:
            return super().__len__()
        full, rest = divmod(min(self.n, self.epoch_images), self.bs)
        return full + (rest > 0 and not self.drop_last)

    def before_iter(self) -> None:
        """Switch the training transforms on or off, and convert bytes for transforms of others."""
        super().before_iter()
        ours = (*OURS, IntToFloatTensor)
        foreign = [each for each in self.after_batch.fs if not isinstance(each, ours)]
        converts = any(isinstance(each, IntToFloatTensor) for each in self.after_batch.fs)
        if foreign and not converts:
            # Ours take bytes, fastai's own expect fractions.
            self.after_batch.add(IntToFloatTensor())

    def shuffle_fn(self, idxs: Sequence[int]) -> list[int]:
        """Permute, seeded by the loader's generator, in a tenth of the time of its `sample`.

        A sampler draws as many, some of them several times. Of both come only as many as an epoch
        may have.
        """
        drawn = self._drawn(len(idxs), self.rng)
        return (drawn if self.sampler is not None else torch.as_tensor(idxs)[drawn]).tolist()

    def _drawn(self, count: int, rng: random.Random) -> Tensor:
        """Draw from a permutation of `count` places, or by the sampler: (N,), int64."""
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        most = count if self.epoch_images is None else min(count, self.epoch_images)
        if self.sampler is not None:
            return self.sampler(generator, most)
        return torch.randperm(count, generator=generator)[:most]

    def coming(self, epochs: int) -> Tensor:
        """Return the places (N,), int64, ascending, of the images that the next epochs will show.

        It is known only of epochs that `places` goes through, if nobody else draws from the loader.
        """
        own = self._order_is_ours and self.n is not None and self.indexed
        if self.epoch_images is None or not self.shuffle or not own:
            return torch.arange(len(self.dataset))
        rng, drawn = random.Random(), []
        rng.setstate(self.rng.getstate())
        for _ in range(epochs):
            rng = random.Random(rng.randint(0, 2**32 - 1))  # as fastai's `randomize`
            drawn.append(self._drawn(self.n, rng)[: len(self) * self.bs])
        return torch.cat(drawn).unique()

    def _order(self) -> Iterable[int] | Tensor:
        """Return what `get_idxs` does, but as a tensor: the list of 50,000 places takes 10 ms."""
        if not self._order_is_ours or self.n is None or not self.indexed:
            return self.get_idxs()
        return self._drawn(self.n, self.rng) if self.shuffle else torch.arange(self.n)

    @property
    def _order_is_ours(self) -> bool:
        """Whether nobody has replaced the methods that decide the order of the images."""
        kind, given = type(self), {"get_idxs", "shuffle_fn"} & vars(self).keys()
        ours = (kind.get_idxs, kind.shuffle_fn) == (TfmdDL.get_idxs, ImageDL.shuffle_fn)
        return ours and not given

    def __iter__(self) -> Iterator[tuple]:
        if not self._gathers:
            yield from super().__iter__()
            return
        yield from map(self.batch, self.places())

    def places(self) -> Iterator[Tensor]:
        """Go through an epoch as iteration does, but yield where each batch's images are.

        The places are (B,), int64, on the device of the decoded images: `decoded.batch` gathers a
        batch and `finished` does the rest. Call this only if `makes_plain_batches` is true.
        """
        self.randomize()
        self.before_iter()
        # torch's loader draws a seed for its processes here. Drawing one too keeps the random
        # numbers that follow the same, whether images are decoded ahead or one by one.
        torch.empty((), dtype=torch.int64).random_()
        self.part = None
        batches = self._batches(self._order())
        yield from batches if ranks.count() == 1 else self._of_this_rank(batches)
        self.after_iter()

    def _of_this_rank(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Pass on this rank's part of each batch, or the whole where `_draws_whole`."""
        for batch in batches:
            part = part_of(len(batch), before=self.before, padded=self.split_idx == 0)
            if part is not None:
                self.part = part
                yield batch if self._draws_whole else part.of(batch)

    def finished(self, x: Tensor, epoch: Tensor | None = None) -> Tensor:
        """Normalize gathered bytes (B, C, H, W), after augmenting them if this is training.

        Augmentation that depends on the epoch reads it from `epoch`, int64, if that is given.
        """
        for step in self.after_batch.fs:
            if step.split_idx in (None, self.after_batch.split_idx):
                plain = step.plain
                if epoch is not None and isinstance(step, AugmentBatch):
                    plain = at_epoch(plain, epoch)
                x = plain(x)
        return x

    def gathered(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Gather bytes and labels at `places`, for a GPU in memory that it reads by itself."""
        device = self.decoded.images.device
        pinned = device.type == "cpu" and self.device is not None and self.device.type == "cuda"
        return self.decoded.batch(places, pinned=pinned)

    @property
    def makes_plain_batches(self) -> bool:
        """Whether batches are gathered, and only fastcv's own steps transform them."""
        return self._gathers and self._is_ours

    def batch(self, places: Tensor) -> tuple:
        """Gather a batch at `places` (B,) and apply the transforms of batches."""
        with threads(1 if self._is_light else torch.get_num_threads()):
            return self._batch(places)

    def _batch(self, places: Tensor) -> tuple:
        """Do what `batch` does, with the present number of threads.

        Tensor subclasses cost time at every step, so fastcv's steps take plain tensors, and the
        batch gets fastai's types once, at the end.
        """
        x, y = self.gathered(places)
        if self.device is not None:
            x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
        image_type = TensorImage if x.shape[1] == 3 else TensorImageBW
        if self.part is not None and self._draws_whole:
            with drawing(None):
                x, y = self._made(x, y, image_type)
            return self.part.of(x), self.part.of(y)
        with drawing(self.part):
            return self._made(x, y, image_type)

    def _made(self, x: Tensor, y: Tensor, image_type: type) -> tuple:
        label_type = TensorCategory if y.ndim == 1 else TensorMultiCategory
        if not self._is_ours:
            return self.after_batch((image_type(x), label_type(y)))
        return self.finished(x).as_subclass(image_type), y.as_subclass(label_type)

    @property
    def _draws_whole(self) -> bool:
        """Whether a rank must make whole batches, since others' augmentation draws for them."""
        return not self._is_ours or not all(
            draws_for_part(each.plain) for each in self.after_batch.fs
        )

    @property
    def _is_ours(self) -> bool:
        return all(isinstance(each, OURS) for each in self.after_batch.fs)

    @property
    def _is_light(self) -> bool:
        """Whether one thread makes a batch faster than several that wait for each other.

        It does if few bytes are moved: 128 images of 32 x 32 pixels take 0.3 ms. A second idle core
        gains little; on busy cores, two threads reach a tenth of that speed or less.
        """
        _, height, width, channels = self.decoded.images.shape
        moves = (getattr(each, "moves_pixels", True) for each in self.after_batch.fs)
        return self._is_ours and self.bs * height * width * channels <= LIGHT and all(moves)

    @property
    def _gathers(self) -> bool:
        return (
            self.decoded is not None
            and self.bs is not None
            and list(self.after_item.fs) == self._item_transforms
            and not any(each.name != "noop" for each in self.before_batch.fs)
        )

    def _batches(self, places: Iterable[int]) -> Iterator[Tensor]:
        """Cut the order of the images into batches; `show_batch` passes an endless order."""
        device = self.decoded.images.device
        if hasattr(places, "__len__"):
            known = isinstance(places, list | np.ndarray | Tensor)
            order = torch.as_tensor(places if known else list(places), dtype=torch.int64).to(device)
            for start in range(0, len(order), self.bs):
                batch = order[start : start + self.bs]
                if len(batch) == self.bs or not self.drop_last:
                    yield batch
            return
        endless = iter(places)
        while batch := list(islice(endless, self.bs)):
            if len(batch) == self.bs or not self.drop_last:
                yield torch.tensor(batch, device=device)

    def __getstate__(self) -> dict:
        # A pickled loader must not carry the pixels.
        return {**self.__dict__, "decoded": None}
