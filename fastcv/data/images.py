"""Images as a recipe's `data`: their source, decoding, augmentation and batches in one value."""

import dataclasses
import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from fastai.data.block import CategoryBlock, DataBlock, MultiCategoryBlock, TransformBlock
from fastai.data.core import DataLoaders
from fastai.torch_core import default_device
from fastai.torch_core import defaults as fastai_defaults

from fastcv.augment.composition import compose
from fastcv.augment.pixels import Normalize
from fastcv.augment.protocol import Augmentation
from fastcv.data.cache import Pixels, cached
from fastcv.data.check import readable, without
from fastcv.data.decoding import Decoding
from fastcv.data.loader import (
    AugmentBatch,
    CenterSquare,
    CropAndNormalize,
    Decoded,
    ImageDL,
    ReadImage,
)
from fastcv.data.protocols import Source
from fastcv.data.samples import Sample, Samples, multi_hot
from fastcv.data.sampling import BalancedSampler
from fastcv.data.sources.toy import Toy
from fastcv.data.splits import check_holdout, folds, kept, others, stratified
from fastcv.recipe.bounds import (
    LARGEST,
    WIDEST,
    check_each,
    check_flags,
    check_number,
    check_takes,
    check_whole,
    shown,
)

PLACES = ("auto", "cpu", "cuda", "off")
SMOKE_SIZE = 32  # pixels
SHARED_MEMORY = "/dev/shm"
SIDES = ("size", "resize", "decode_size")
VALID_TIMES, VALID_MOST = 8, 2048  # training batches in one of validation, and its images, on a GPU
COUNTS = (
    "size", "batch_size", "valid_batch_size", "train_per_class", "test_per_class", "resize",
    "decode_size", "epoch_images",
)  # fmt: skip


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's garbage collector, which more than doubles the time to list 60,000 images.

    All list entries stay alive, so there is nothing to collect; yet every time the number of
    objects has grown by a quarter, it walks everything that torch and fastai have imported.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def image_of(sample: Sample | Path) -> Path | np.ndarray:
    """Return the image of a sample or path: the `get_x` of the DataBlock."""
    return sample[0] if isinstance(sample, tuple) else sample


def label_of(sample: Sample | Path) -> str | list:  # fastai looks at this type
    """Return the label of a sample, or the folder's name of a path: the `get_y` of the DataBlock.

    So `dls.test_dl(..., with_labels=True)` takes paths as well as `Sample`s.
    """
    label = sample[1] if isinstance(sample, tuple) else Path(sample).parent.name
    return list(label) if isinstance(label, tuple) else label


@dataclass(frozen=True, kw_only=True)
class Images:
    """Labeled images as fastai DataLoaders: training, validation and, if there are any, test.

    Each image is decoded once: its shorter side is resized to `resize` pixels, and the center
    square is cut out. On the device, training batches are then augmented, and all batches are cut
    to `size` pixels and normalized.

    Args:
        source: lists the images: `cifar10`, `ImageFolders(...)` or any other `Source`.
        size: height and width of the net's images, pixels.
        batch_size: of training.
        valid_batch_size: of validation and test. If None, `batch_size`; on a GPU with decoded
            images eight times as many, at most 2,048, as small batches leave it idle.
        drop_last: whether training drops an epoch's last batch if it is not full, as fastai does;
            every epoch drops other images.
        balance: how often training draws images of rare classes: classes come in the proportion
            count ** (1 - balance). 0 takes each image once an epoch, 1 draws all classes equally
            often, 0.5 lies between them (square-root sampling). An epoch stays as long as it is.
        augment: `Augmentation`s of training batches, in order; those that change labels (MixUp,
            CutMix) last.
        normalize: `Normalize(mean, std)`, one number of each per channel; None leaves pixels in
            0-1.
        holdout: validation images to take from the training images, stratified: an integer is a
            number of images of each class, a float a fraction of each class; 0 takes none, and uses
            the source's own validation part.
        test_validates: whether the test part validates every epoch if there is no validation part;
            if False, nothing validates, and the test part is read once, at the end.
        split_seed: decides which images are held out, and which ones `train_per_class` and
            `test_per_class` keep.
        train_per_class: training images of each class; None for all.
        test_per_class: test images of each class, for a quick look; None for all, as any number
            that is to be compared needs.
        channels: 3 for RGB, 1 for gray.
        resize: pixels of the shorter side, and of the square cut out; `size` if None.
        path: where the source finds its images; None for where it looks by itself.
        skip_bad: whether to go on without files that cannot be read; `dls.skipped` counts them.
        cache: where the decoded images are kept: "cpu" maps them from a file, "cuda" copies them to
            the GPU, "auto" does so if they fill at most half of its free memory, and "off" decodes
            an image at every use.
        fold: (k, K) cuts the training images, and the validation images of the source, into K
            stratified folds by `split_seed`, of which the k-th (1-K) validates and the others
            train, in place of `holdout` and of the source's own validation part; None for none.
        upright: whether the orientation in a photo's EXIF data is applied, as viewers do. Photos of
            cameras and phones need it; the data sets of the reports have none.
        decode_size: pixels of a larger square that each image is decoded to first, and from which
            `resize` is made. Then the photos themselves are decoded once for all smaller sizes, but
            resized twice, which makes them a little softer; None resizes them once.
        epoch_images: largest number of images in an epoch of training, at least `batch_size`: each
            epoch draws other ones, none of them twice (unless `balance` repeats a class). So an
            epoch of a large set stays short. None for all images.
    """

    source: Source
    size: int
    batch_size: int
    valid_batch_size: int | None = None
    drop_last: bool = True
    balance: float = 0.0
    augment: tuple[Augmentation, ...] = ()
    normalize: Normalize | None = None
    holdout: int | float = 0
    test_validates: bool = True
    split_seed: int = 42
    train_per_class: int | None = None
    test_per_class: int | None = None
    channels: int = 3
    resize: int | None = None
    path: str | Path | None = None
    skip_bad: bool = False
    cache: str = "auto"
    fold: tuple[int, int] | None = None
    upright: bool = False
    decode_size: int | None = None
    epoch_images: int | None = None

    def __post_init__(self):
        check_takes("source", self.source, "path")
        for name in COUNTS:
            most = WIDEST if name in SIDES else LARGEST
            value = getattr(self, name)
            if value is not None or name in ("size", "batch_size"):
                check_whole(name, value, least=1, most=most)
        check_holdout("holdout", self.holdout)
        check_whole("split_seed", self.split_seed)
        check_each("augment", self.augment, "fastcv.augment", example="HorizontalFlip()")
        check_flags(self, "drop_last", "test_validates", "skip_bad", "upright")
        check_number("balance", self.balance, least=0, most=1)
        if self.fold is not None:
            check_fold(self.fold)
        if not isinstance(self.normalize, Normalize | None):
            raise ValueError(f"normalize must be a Normalize(...), got {shown(self.normalize)}")
        check_whole("channels", self.channels)
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 3 (RGB) or 1 (gray), got {shown(self.channels)}")
        if not isinstance(self.path, str | Path | None):
            raise ValueError(f"path must be text, a Path or None, got {shown(self.path)}")
        if self.cache not in PLACES:
            raise ValueError(f"cache must be one of {', '.join(PLACES)}, got {shown(self.cache)}")

    @property
    def decoding(self) -> Decoding:
        """How an image becomes the square that batches are cut from."""
        side = self.resize or self.size
        via = None if self.decode_size in (None, side) else self.decode_size
        return Decoding(side=side, channels=self.channels, upright=self.upright, via=via)

    def __call__(self, device: torch.device | str | None = None) -> DataLoaders:
        """Build the DataLoaders, decoding the images if they are not in the cache.

        The validation loader is empty if nothing validates. Batches go to fastai's default device
        (a GPU if there is one) if `device` is None.

        Raises:
            ValueError: the settings contradict each other or the images, or an image is bad.
        """
        self._check()
        with _collector_paused():
            return self._built(device)

    def _built(self, device: torch.device | str | None) -> DataLoaders:
        device = default_device() if device is None else torch.device(device)
        samples = self._listed(None if self.path is None else Path(self.path))
        self._check_labels(samples)
        images = [sample.image for sample in chain(*samples[:3])]
        # Which images the parts use may depend on those that are skipped; then all are decoded.
        chosen = None if self.skip_bad else self._parts(samples)
        used = chosen and chain(*chosen[0])
        pixels = None
        if self.cache != "off":
            pixels = cached(images, self.decoding, samples.root, used=used, skip_bad=self.skip_bad)
        if pixels is not None:
            samples = without(samples, [images[place] for place in pixels.bad])
        elif self.skip_bad:
            samples = readable(samples, self.decoding.side)
        parts, valid_is_test = chosen or self._parts(samples)
        items = list(chain(*samples[:3]))
        dls = self._loaders(items, samples.classes, parts, device, gathered=pixels is not None)
        if pixels is not None:
            self._attach(dls, items, samples.classes, parts, pixels, device)
        if self.balance:
            number = {label: index for index, label in enumerate(samples.classes)}
            labels = torch.tensor([number[items[place].label] for place in parts[0]])
            dls.train.sampler = BalancedSampler(labels, self.balance)
        dls.multi_label = samples.multi_label
        dls.train.epoch_images = self.epoch_images
        dls.image_shape = (self.channels, self.size, self.size)
        dls.valid_is_test = valid_is_test
        dls.skipped = samples.skipped
        dls.names = [[_name(items[place], place, samples.root) for place in part] for part in parts]
        groups = samples.groups_of(items)
        dls.groups = {
            name: groups[place]
            for part, names in zip(parts, dls.names, strict=True)
            for place, name in zip(part, names, strict=True)
            if groups[place] is not None
        }
        _, dls.mixing = self._augmentations()
        return dls

    def listing(self) -> dict[str, list[tuple[str, Sample]]]:
        """List the images of each loader with their names, as `dls.names` has them, undecoded.

        Returns:
            "train", "valid" and, where there is a loader for it, "test": pairs of name and sample.
            Where the test images validate, they are "test", and "valid" is missing.
        """
        self._check()
        samples = self._listed(None if self.path is None else Path(self.path))
        if self.skip_bad:
            samples = readable(samples, self.decoding.side)
        parts, valid_is_test = self._parts(samples)
        named = [
            (_name(sample, place, samples.root), sample)
            for place, sample in enumerate(chain(*samples[:3]))
        ]
        # The last may be missing.
        names = ("train", "test") if valid_is_test else ("train", "valid", "test")
        return {
            name: [named[place] for place in part] for name, part in zip(names, parts, strict=False)
        }

    def smoke(self) -> "Images":
        """Return the same on a few small synthetic images, for a run in seconds."""
        size = min(self.size, SMOKE_SIZE)
        resize = self.resize and round(self.resize * size / self.size)
        fold = self.fold and (1 + (self.fold[0] - 1) % 2, 2)  # toy images are few
        return replace(
            self,
            source=Toy(
                size=resize or size,
                channels=self.channels,
                train=8,
                test=4,
                several=bool(getattr(self.source, "sep", None)),
            ),
            size=size,
            resize=resize,
            batch_size=min(self.batch_size, 8),
            valid_batch_size=self.valid_batch_size and min(self.valid_batch_size, 8),
            augment=tuple(_resized(each, size) for each in self.augment),
            holdout=min(self.holdout, 2) if isinstance(self.holdout, int) else self.holdout,
            train_per_class=self.train_per_class and min(self.train_per_class, 4),
            test_per_class=self.test_per_class and min(self.test_per_class, 4),
            path=None,
            cache="auto" if self.cache == "cuda" else self.cache,
            fold=fold,
            decode_size=None,
        )

    def _augmentations(self) -> tuple[tuple[Callable, ...], tuple[Callable, ...]]:
        """Split `augment` into what changes images alone, and what changes labels too."""
        mixing = tuple(each for each in self.augment if getattr(each, "changes_labels", False))
        if mixing and self.augment[-len(mixing) :] != mixing:
            raise ValueError(
                f"augmentations that change labels must come last in augment, got {mixing[0]} "
                f"before {self.augment[-1]}: swap them"
            )
        return self.augment[: len(self.augment) - len(mixing)], mixing

    def _check(self) -> None:
        if self.resize is not None and self.resize < self.size:
            raise ValueError(
                f"resize must be at least size, got {self.resize} and {self.size}: raise it, as "
                "images are resized first and then cut to size"
            )
        if self.decode_size is not None and self.decode_size < self.decoding.side:
            raise ValueError(
                f"decode_size must be at least resize, got {self.decode_size} and "
                f"{self.decoding.side}: raise it, or leave it out"
            )
        if self.epoch_images is not None and self.epoch_images < self.batch_size:
            raise ValueError(
                f"epoch_images must be at least batch_size, got {self.epoch_images} and "
                f"{self.batch_size}: raise it, or take smaller batches"
            )
        if self.normalize is not None and len(self.normalize.mean) != self.channels:
            raise ValueError(
                f"normalize must have a mean and a std for each of {self.channels} channels, got "
                f"{len(self.normalize.mean)} of each: use statistics of such images, or change "
                "channels"
            )

    def _check_labels(self, samples: Samples) -> None:
        """Refuse settings that suppose one label an image, where there are several."""
        for name in ("train_per_class", "test_per_class", "balance") if samples.multi_label else ():
            if getattr(self, name):
                raise ValueError(
                    f"{name} supposes one label an image, but these have several: leave it out"
                )

    def _listed(self, path: Path | None) -> Samples:
        """List the images.

        Raises:
            ValueError: the system refuses to, or what the source raises.
        """
        try:
            return self.source(path)
        except OSError as error:
            place = shown(str(error.filename or path or self.source))
            raise ValueError(
                f"the folder of the data must be readable, {place} is not: "
                f"{error.strerror or error}"
            ) from error

    def _parts(self, samples: Samples) -> tuple[list[list[int]], bool]:
        """Return each loader's places in train + valid + test, and `valid_is_test`."""
        ends = np.cumsum([len(part) for part in samples[:3]]).tolist()
        train, valid, test = (
            list(range(end - len(part), end)) for end, part in zip(ends, samples[:3], strict=True)
        )
        pool = samples.train if self.fold is None else [*samples.train, *samples.valid]
        labels, groups = samples.strata(pool), samples.groups_of(pool)
        if self.fold is not None:
            number, count = self.fold
            valid = folds(labels, count, self.split_seed, groups)[number - 1]
            train = others(valid, len(pool))
        elif self.holdout:
            if valid:
                raise ValueError(
                    f"holdout must be 0 if the data has its own validation part, got "
                    f"{self.holdout} beside {len(valid)} validation images: leave it out, "
                    "or use ImageFolders(valid=0), which holds none out itself"
                )
            valid, train = stratified(labels, self.holdout, self.split_seed, groups)
        train = self._kept(train, [labels[place] for place in train], self.train_per_class)
        test = self._kept(test, samples.strata(samples.test), self.test_per_class)
        if len(train) < 2:
            raise ValueError(f"training needs at least 2 images, got {len(train)}: add more")
        if valid:
            return [train, valid, test] if test else [train, valid], False
        if test:
            return ([train, test], True) if self.test_validates else ([train, [], test], False)
        raise ValueError(
            "there must be images to validate on, but the data has only a training part: "
            "hold some out, for example with holdout=0.2"
        )

    def _kept(self, places: list[int], labels: list[str], per_class: int | None) -> list[int]:
        if per_class is None:
            return places
        return [places[each] for each in kept(labels, per_class, self.split_seed)]

    def _loaders(
        self,
        items: list[Sample],
        classes: tuple[str, ...],
        parts: list[list[int]],
        device: torch.device,
        *,
        gathered: bool,
    ) -> DataLoaders:
        side, via = self.decoding.side, self.decoding.via
        batch_transforms = [CropAndNormalize(self.size, self.normalize)]
        moving, _ = self._augmentations()
        if moving:
            batch_transforms.append(AugmentBatch(compose(moving)))
        block = DataBlock(
            blocks=(
                TransformBlock(type_tfms=ReadImage(self.channels, side, self.upright)),
                MultiCategoryBlock(vocab=list(classes))
                if isinstance(items[0].label, tuple)
                else CategoryBlock(vocab=list(classes), sort=False),
            ),
            # Not passed as the source: fastai writes its source into a message, every pixel of it.
            get_items=lambda _: items,
            get_x=image_of,
            get_y=label_of,
            splitter=lambda _: parts,
            item_tfms=CenterSquare(side, via),
            batch_tfms=batch_transforms,
            dl_type=ImageDL,
        )
        return block.dataloaders(
            None,
            bs=self.batch_size,
            val_bs=self._valid_batch_size(device),
            # Unless the smaller batch is the only one.
            drop_last=self.drop_last and len(parts[0]) >= self.batch_size,
            # With decoded images, processes would only cost time; `test_dl` takes num_workers.
            num_workers=0 if gathered else self._workers(),
            device=device,
        )

    def _workers(self) -> int:
        """Return how many processes may decode: they pass batches on through shared memory."""
        ahead = (
            2 * self.batch_size * self.channels * self.decoding.side**2
        )  # bytes: each makes two batches
        free = free_shared_memory()
        most = fastai_defaults.cpus
        fitting = most if free is None else min(most, free // (2 * ahead))
        if fitting < most:
            print(
                f"{SHARED_MEMORY} has {free / 1e6:,.1f} MB free: {fitting} of {most} processes "
                "decode images",
                file=sys.stderr,
            )
        return int(fitting)

    def _valid_batch_size(self, device: torch.device) -> int:
        """Return the batch size of validation and test."""
        if self.valid_batch_size is not None:
            return self.valid_batch_size
        if device.type != "cuda" or self.cache == "off":
            return self.batch_size
        # Without a backward pass, so many need no more memory than a training batch.
        return max(self.batch_size, min(VALID_TIMES * self.batch_size, VALID_MOST))

    def _attach(
        self,
        dls: DataLoaders,
        items: list[Sample],
        classes: tuple[str, ...],
        parts: list[list[int]],
        pixels: Pixels,
        device: torch.device,
    ) -> None:
        rows = torch.from_numpy(np.delete(pixels.rows, list(pixels.bad)))
        if isinstance(items[0].label, tuple):
            labels = torch.from_numpy(multi_hot(items, classes))
        else:
            number = {label: index for index, label in enumerate(classes)}
            labels = torch.tensor([number[sample.label] for sample in items])
        images = self._placed(torch.from_numpy(pixels.images), device)
        for dl, part in zip(dls, parts, strict=True):
            places = torch.tensor(part, dtype=torch.int64)  # the type counts if there are none
            here = (each[places].to(images.device) for each in (rows, labels))
            dl.decoded = Decoded(images, *here)

    def _placed(self, images: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Copy the decoded images to the GPU if `cache` says so and they fit."""
        if self.cache == "cpu" or (self.cache == "auto" and device.type != "cuda"):
            return images
        if device.type != "cuda":
            raise ValueError(
                f"cache='cuda' needs a CUDA device, got {device}: use cache='auto' or 'cpu'"
            )
        free, _ = torch.cuda.mem_get_info(device)
        if self.cache == "auto" and images.numel() > free // 2:
            return images
        if images.numel() > free:
            raise ValueError(
                f"cache='cuda' needs {images.numel() / 1e9:.1f} GB on {device}, but "
                f"{free / 1e9:.1f} GB are free: use cache='auto' or 'cpu'"
            )
        return images.to(device)


def free_shared_memory() -> int | None:
    """Return the bytes that are free for passing batches between processes; None: any number."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # another system than Linux
        return None


def check_fold(fold: tuple[int, int]) -> None:
    """Raise a ValueError if a fold is not (k, K) with 1 <= k <= K and at least two folds."""
    whole = isinstance(fold, tuple) and [type(each) for each in fold] == [int, int]
    if not whole or fold[1] < 2 or not 1 <= fold[0] <= fold[1]:
        raise ValueError(
            f"fold must be (k, K), the k-th of K folds with K at least 2, got {fold!r}: pass, for "
            "example, (1, 5)"
        )


def _name(sample: Sample, place: int, root: Path | None) -> str:
    """The name of an image in tables: its path below the data's folder, or its place."""
    if not isinstance(sample.image, Path):
        return f"#{place}"
    below = root is not None and sample.image.is_relative_to(root)
    return (sample.image.relative_to(root) if below else sample.image).as_posix()


def _resized(augmentation: Callable, size: int) -> Callable:
    """Return the augmentation with its `size`, if it has one, at most `size` pixels."""
    own = getattr(augmentation, "size", None)
    if own is None or not dataclasses.is_dataclass(augmentation):
        return augmentation
    if isinstance(own, int):
        return replace(augmentation, size=min(own, size))
    return replace(augmentation, size=tuple(min(each, size) for each in own))
