"""Reading images of any kind as 8-bit gray or RGB, and data sets in their original files."""

import gzip
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from fastcv.data.folders import IMAGE_SUFFIXES
from fastcv.data.samples import Sample

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

Parts = tuple[list[Sample], list[Sample], list[Sample]]

# What Pillow's decoders raise on damaged files, apart from OSError (which it raises on most).
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(image: Path | np.ndarray | Image.Image, channels: int = 3) -> Image.Image:
    """Decode an image wholly, as 8-bit RGB or 8-bit gray.

    16-bit gray is scaled to 8 bits over its whole range (65,535 becomes 255), never clipped and
    never stretched to the image's own range, so that images stay comparable. Transparent pixels
    are laid on white, as a viewer shows them. Palette, bilevel, CMYK, YCbCr and Lab images are
    converted by Pillow. Of an animation the first frame counts. EXIF orientation is not applied,
    as in fastai.

    Args:
        image: a file, a picture of Pillow's, which stays as it is, or pixels: (H, W) or
            (H, W, C), uint8 or floats of 0-1.
        channels: 3 for RGB, 1 for gray (ITU-R 601-2 luma).

    Raises:
        ValueError: the file is missing, empty, truncated, no image, or holds 32-bit pixels (its
            name is in the sentence); or `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 3 (RGB) or 1 (gray), got {channels}")
    if isinstance(image, np.ndarray):
        return _eight_bit(Image.fromarray(_bytes(image)), channels)
    if isinstance(image, Image.Image):
        try:
            return _eight_bit(image.copy(), channels)
        except DECODER_ERRORS as error:
            raise ValueError(f"a picture cannot be read: {_reason(error)}") from error
    try:
        with open(image, "rb") as file:
            opened = Image.open(file)
            opened.load()
            return _eight_bit(opened, channels)
    except DECODER_ERRORS as error:
        raise ValueError(f"image '{image}' cannot be read: {_reason(error, image)}") from error


def _bytes(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.kind == "f" and pixels.size and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = np.rint(pixels * 255).astype(np.uint8)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not 1 <= channels <= 4:
        floats = pixels.dtype.kind == "f" and pixels.size
        span = f" from {pixels.min():g} to {pixels.max():g}" if floats else ""
        raise ValueError(
            "pixels must be uint8, or floats of 0-1, of shape (H, W) or (H, W, C) with 1 to 4 "
            f"channels, got {pixels.dtype}{span} of shape {pixels.shape}: convert or permute them"
        )
    return pixels[..., 0] if pixels.ndim == 3 and channels == 1 else pixels


def _eight_bit(image: Image.Image, channels: int) -> Image.Image:
    target = "RGB" if channels == 3 else "L"
    if image.mode == target and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_sixteen_bits(image)
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, not 8 or 16 bits")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(page, image).convert("RGB")
    if image.mode == "LAB":  # which Pillow makes nothing but RGB of
        image = image.convert("RGB")
    return image.convert(target)


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)  # (H, W)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("its pixels are 32-bit numbers, not 8 or 16 bits")
    return Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))


def _reason(error: BaseException, path: Path | None = None) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError) and error.strerror:  # the system's words, not Pillow's
        return error.strerror
    if path is not None and os.path.getsize(path) == 0:
        return "it is empty (0 bytes)"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no image of a known format"
    return " ".join(str(error).split()) or type(error).__name__


def read_cifar(root: Path, name: Literal["CIFAR10", "CIFAR100"]) -> Parts | None:
    """Read CIFAR's original pickled files through torchvision, which compares their MD5 sums first.

    Args:
        root: the folder of the files (``cifar-10-batches-py``) or the one above it.
        name: of torchvision's data set.

    Returns:
        (train, valid, test) with images (32, 32, 3), no valid; None where the files are not.

    Raises:
        ValueError: a file is missing or its MD5 sum is not torchvision's.
    """
    # Here, because torchvision is heavy, and image folders do without.
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    dataset = getattr(datasets, name)
    first = dataset.train_list[0][0]
    for folder in (root, root / dataset.base_folder):
        if (folder / first).is_file():
            break
    else:
        return None
    here = type(name, (dataset,), {"base_folder": ""})
    try:
        with warnings.catch_warnings():
            # The files were pickled by a numpy whose dtypes newer ones read with this complaint.
            warnings.filterwarnings("ignore", message=r".*align should be passed as.*")
            train, test = here(folder, train=True), here(folder, train=False)
    except RuntimeError as error:
        meta = (dataset.meta["filename"], dataset.meta["md5"])
        for file, md5 in (*dataset.train_list, *dataset.test_list, meta):
            if not check_integrity(folder / file, md5):
                there = (folder / file).exists()
                what = "does not have its published checksum" if there else "is missing"
                raise ValueError(
                    f"the files in '{folder}' must be the original ones, but '{file}' {what}: "
                    "remove the folder and fetch it again"
                ) from error
        raise
    return _arrays(train), [], _arrays(test)


def _arrays(dataset: "CIFAR10") -> list[Sample]:
    images = np.ascontiguousarray(dataset.data)  # (N, 32, 32, 3)
    names = dataset.classes
    return [
        Sample(image, names[target]) for image, target in zip(images, dataset.targets, strict=True)
    ]


def read_mnist(root: Path) -> Parts | None:
    """Read MNIST's original idx files, plain or compressed (``.gz``).

    Args:
        root: the folder of the files, or the one above ``raw`` or ``MNIST/raw``, where
            torchvision puts them.

    Returns:
        (train, valid, test) with images (28, 28), no valid; None where the files are not.

    Raises:
        ValueError: a file is missing, truncated or no idx file, or images and labels differ in
            number.
    """
    for folder in (root, root / "raw", root / "MNIST" / "raw"):
        if _idx_file(folder, "train-images", 3) is not None:
            return _idx_pair(folder, "train"), [], _idx_pair(folder, "t10k")
    return None


def _idx_file(folder: Path, kind: str, dimensions: int) -> Path | None:
    # The files have been handed on both as train-images-idx3-ubyte and train-images.idx3-ubyte.
    for joint in "-.":
        for suffix in ("", ".gz"):
            path = folder / f"{kind}{joint}idx{dimensions}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def _idx_pair(folder: Path, part: str) -> list[Sample]:
    arrays = []
    for kind, dimensions in ((f"{part}-images", 3), (f"{part}-labels", 1)):
        path = _idx_file(folder, kind, dimensions)
        if path is None:
            raise ValueError(
                f"MNIST is four files, but '{folder}' lacks '{kind}-idx{dimensions}-ubyte': "
                "add it, plain or as .gz"
            )
        arrays.append(_read_idx(path, dimensions))
    images, labels = arrays  # (N, 28, 28), (N,)
    if len(images) != len(labels):
        raise ValueError(
            f"MNIST must have a label for each image, but in '{folder}' '{part}' has {len(images)} "
            f"images and {len(labels)} labels: remove the files and fetch them again"
        )
    return [Sample(image, str(label)) for image, label in zip(images, labels.tolist(), strict=True)]


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of unsigned bytes: two zeros, the type 8, the rank, big-endian sizes."""
    damaged = f"'{path}' must be a whole idx file of unsigned bytes, but it is damaged or truncated"
    try:
        # A .gz file carries its own checksum, which reading to the end compares.
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{damaged}: remove it and fetch it again") from error
    header = 4 + 4 * dimensions
    if len(content) >= header and content[:4] == bytes((0, 0, 8, dimensions)):
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        if len(content) == header + int(np.prod(shape, dtype=np.int64)):
            return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    raise ValueError(f"{damaged}: remove it and fetch it again")


def read_cub(root: Path) -> Parts | None:
    """Read Caltech-UCSD Birds: a folder ``images`` and the lists that split it.

    Splits are ``lists/train.txt`` and ``lists/test.txt`` (2010), or ``images.txt`` and
    ``train_test_split.txt`` (2011). Classes are the folders' names, or those which
    ``image_class_labels.txt`` and ``classes.txt`` give beside the latter.

    Returns:
        (train, valid, test), no valid; None where there is no folder ``images``.

    Raises:
        ValueError: the lists are missing, name an image that is not there, or name one twice.
    """
    images = root / "images"
    if not images.is_dir():
        return None
    if (root / "lists" / "train.txt").is_file() and (root / "lists" / "test.txt").is_file():
        listed = [
            (name, name.split("/")[0], part)
            for part in ("train", "test")
            for (name,) in _rows(root / "lists" / f"{part}.txt", columns=1)
        ]
    elif (root / "images.txt").is_file() and (root / "train_test_split.txt").is_file():
        listed = _numbered_lists(root)
    else:
        raise ValueError(
            f"the images in '{images}' must come with lists that split them, but '{root}' has "
            "neither 'lists/train.txt' and 'lists/test.txt' nor 'images.txt' and "
            "'train_test_split.txt': add them"
        )
    parts: dict[str, list[Sample]] = {"train": [], "test": []}
    folders: dict[str, set[str]] = {}
    seen: set[str] = set()
    for name, label, part in listed:
        if name in seen:
            raise ValueError(f"an image must be listed once, but '{root}' lists '{name}' twice")
        seen.add(name)
        path = images / name
        folder, file = os.path.split(name)
        if folder not in folders:
            inside = images / folder
            folders[folder] = set(os.listdir(inside)) if inside.is_dir() else set()
        if file not in folders[folder]:
            raise ValueError(f"the lists of '{root}' name '{path}', but there is no such file")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            parts[part].append(Sample(path, label))
    return sorted(parts["train"]), [], sorted(parts["test"])


def _numbered_lists(root: Path) -> list[tuple[str, str, str]]:
    """(name below images/, class, part) of each image in the lists of the 2011 set."""
    names = dict(_rows(root / "images.txt", columns=2))
    in_train = dict(_rows(root / "train_test_split.txt", columns=2))
    labels = {number: name.split("/")[0] for number, name in names.items()}
    if (root / "image_class_labels.txt").is_file() and (root / "classes.txt").is_file():
        classes = dict(_rows(root / "classes.txt", columns=2))
        numbers = dict(_rows(root / "image_class_labels.txt", columns=2))
        labels = {image: classes.get(number, number) for image, number in numbers.items()}
    for number in names:
        if in_train.get(number) not in ("0", "1") or number not in labels:
            raise ValueError(
                f"the lists in '{root}' must give each image of 'images.txt' a class and a 0 or 1 "
                f"in 'train_test_split.txt', but image {number} lacks one"
            )
    return [
        (name, labels[number], "train" if in_train[number] == "1" else "test")
        for number, name in names.items()
    ]


def _rows(path: Path, columns: int) -> list[list[str]]:
    rows = []
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        row = line.split(maxsplit=columns - 1) if columns > 1 else [line.strip()]
        if line.strip():
            if len(row) != columns:
                raise ValueError(f"'{path}' must have {columns} columns, but a line is '{line}'")
            rows.append(row)
    return rows
