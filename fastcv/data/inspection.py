"""What is in a folder of images before one trains: counts, sizes, faults, and copies.

One pass decodes every image once, in threads. Exact copies have equal pixels, whatever their files
hold; similar pictures are found by perceptual hashes (`fastcv.data.duplicates`).

CleanVision was tried: it decodes in two passes (531 seconds of processor time for the 60,000 images
of CIFAR-100, against 29 here), calls only pictures with equal hashes near duplicates (38 groups of
77 images), and knows neither classes nor splits, so it can name neither leaks nor label errors.
"""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fastcv.data.decoding import eight_bit, open_image
from fastcv.data.duplicates import SIDE, SMALL, groups, packed, perceptual_hashes, similar
from fastcv.data.samples import Samples, labeled
from fastcv.data.sources.folders import (
    check_folder,
    entries,
    images_among,
    list_folders,
    split_folders,
    suffix_of,
)
from fastcv.terminal import with_bar

CHUNK = 64  # images
ORIENTATION = 0x0112  # EXIF tag
LONG = 3.0  # sides' ratio from which the center square is less than a third of the image
TINY = 0.25  # of the median shorter side
FLAT = 4  # levels of 255 that the channels of an image of one color may span
PLAIN = 1.0  # standard deviation, in levels, below which a gray square is not compared
MODES = {
    "1": "black and white",
    "L": "gray",
    "LA": "gray with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "F": "floating point",
    "I": "32-bit gray",
}
# What turns a stored picture upright, by EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspected:
    """One image file, as it was found.

    Args:
        path: below the inspected folder, with slashes.
        split: "train", "valid" or "test"; "" where there are no such folders.
        label: its class; "" outside of class folders.
        size: bytes.
        fault: why it cannot be read; None if it can. Then the rest is known.
        format: as Pillow calls it.
        mode: of its pixels, in words.
        width: pixels, as stored.
        height: likewise.
        orientation: of EXIF; 1 is upright.
        one_color: whether all pixels are about the same.
    """

    path: str
    split: str
    label: str
    size: int = 0
    fault: str | None = None
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    one_color: bool = False


@dataclass(frozen=True)
class Copies:
    """Images that are copies of each other.

    Args:
        files: two or more, in the order of the inspection.
    """

    files: tuple[Inspected, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits they lie in, in order; more than one is a leak."""
        return tuple(dict.fromkeys(file.split for file in self.files))

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes they lie in, in order; more than one is a label error."""
        return tuple(dict.fromkeys(file.label for file in self.files))


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is in a folder of images.

    Args:
        root: the folder.
        files: every image file, readable or not.
        equal: groups of images with equal pixels.
        alike: groups of images that look alike (re-encoded, resized, brightened, cropped a little)
            and are not all equal.
        alike_complete: whether all of `alike` were looked for; where pictures are alike by nature,
            only the most alike are.
        others: number of files in class folders that are not images, by suffix.
        obstacles: sentences about folders that were not read, images outside of class folders, and
            why `ImageFolders` would refuse the folder.
    """

    root: Path
    files: tuple[Inspected, ...]
    equal: tuple[Copies, ...]
    alike: tuple[Copies, ...]
    alike_complete: bool
    others: dict[str, int]
    obstacles: tuple[str, ...]

    @cached_property
    def readable(self) -> tuple[Inspected, ...]:
        """The images that can be read."""
        return tuple(file for file in self.files if file.fault is None)

    @property
    def unreadable(self) -> tuple[Inspected, ...]:
        """The files that cannot be read."""
        return tuple(file for file in self.files if file.fault is not None)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits there are: train, valid, test, or "" alone."""
        found = {file.split for file in self.files}
        return tuple(split for split in ("train", "valid", "test", "") if split in found)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(sorted({file.label for file in self.files}))

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Number of files of each class in each split: {class: {split: number}}."""
        found = {label: dict.fromkeys(self.splits, 0) for label in self.classes}
        for file in self.files:
            found[file.label][file.split] += 1
        return found

    def imbalance(self, split: str) -> float:
        """Return how many times as many images the largest class of a split has as its smallest.

        Classes without an image in the split do not count.
        """
        numbers = [each[split] for each in self.counts.values() if each[split]]
        return max(numbers) / min(numbers)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def formats(self) -> dict[str, int]:
        """Number of readable images of each format, the most frequent first."""
        return dict(Counter(file.format for file in self.readable).most_common())

    @property
    def modes(self) -> dict[str, int]:
        """Number of readable images of each mode, the most frequent first."""
        return dict(Counter(file.mode for file in self.readable).most_common())

    @property
    def turned(self) -> tuple[Inspected, ...]:
        """Images whose EXIF orientation says that they must be turned."""
        return tuple(file for file in self.readable if file.orientation != 1)

    @property
    def long(self) -> tuple[Inspected, ...]:
        """Images at least three times as long as wide: a center square shows little of them."""
        sides = ((file, sorted((file.width, file.height))) for file in self.readable)
        return tuple(file for file, (short, long) in sides if long >= LONG * short)

    @property
    def tiny(self) -> tuple[Inspected, ...]:
        """Images whose shorter side is below a quarter of the usual (the median)."""
        if not self.readable:
            return ()
        usual = median(min(file.width, file.height) for file in self.readable)
        return tuple(file for file in self.readable if min(file.width, file.height) < TINY * usual)

    @property
    def one_color(self) -> tuple[Inspected, ...]:
        """Images whose pixels are all about the same."""
        return tuple(file for file in self.readable if file.one_color)

    def as_json(self) -> dict[str, Any]:
        """Return everything as values that JSON has; files are named by their paths."""
        return {
            "root": str(self.root),
            "images": len(self.files),
            "bytes": self.size,
            "counts": self.counts,
            "imbalance": {split: self.imbalance(split) for split in self.splits},
            "formats": self.formats,
            "modes": self.modes,
            "unreadable": {file.path: file.fault for file in self.unreadable},
            **{
                name: [file.path for file in getattr(self, name)]
                for name in ("turned", "long", "tiny", "one_color")
            },
            **{
                name: [[file.path for file in copies.files] for copies in getattr(self, name)]
                for name in ("equal", "alike")
            },
            "alike_complete": self.alike_complete,
            "others": self.others,
            "obstacles": list(self.obstacles),
            "files": [asdict(file) for file in self.files],
        }


class _Listed(NamedTuple):
    split: str
    label: str
    path: Path


class _Look(NamedTuple):
    """What one pass over an image keeps of it; the arrays are None if it cannot be compared."""

    file: Inspected
    digest: bytes
    words: np.ndarray | None  # (4,), its packed perceptual hash
    small: np.ndarray | None  # (16, 16), gray


def inspect(data: str | Path | Samples) -> Inspection:
    """Look at every image of a folder, or of a listed data set, before training on it.

    Folders are read as `ImageFolders` reads them, and what it would refuse is reported. Class
    folders may also lie one level deeper, and images without any class folder are inspected too.
    The lists of Caltech-UCSD Birds are followed. A bar on standard error shows how far it is.

    Args:
        data: a folder, or what a source such as `fastcv.ImageFolders` returns, whose images must be
            files of one class each.

    Raises:
        ValueError: there is no such folder, it cannot be read, two folders claim the same split, or
            there is no image.
    """
    others: Counter[str] = Counter()
    obstacles: list[str] = []
    if isinstance(data, Samples):
        root, listed = _of_samples(data)
    else:
        root = Path(data).expanduser()
        check_folder(root)
        try:
            listed = _listed(root, others, obstacles)
        except OSError as error:
            raise ValueError(
                f"a folder of images must be readable, '{error.filename}' is not: {error.strerror}"
            ) from error
    if not listed:
        because = f" ({'; '.join(obstacles)})" if obstacles else ""
        raise ValueError(
            f"there must be images to inspect, '{root}' holds none{because}: pass another folder"
        )
    looks = _look_at_all(root, listed)
    equal, alike, complete = _copies(looks)
    return Inspection(
        root=root,
        files=tuple(look.file for look in looks),
        equal=equal,
        alike=alike,
        alike_complete=complete,
        others=dict(others.most_common()),
        obstacles=tuple(obstacles),
    )


def _of_samples(samples: Samples) -> tuple[Path, list[_Listed]]:
    if samples.multi_label:
        raise ValueError(
            "images to inspect must have one class each, these have several labels: inspect their "
            "folder"
        )
    listed = [
        _Listed(split, sample.label, sample.image)
        for split, part in zip(("train", "valid", "test"), samples[:3], strict=True)
        for sample in part
        if isinstance(sample.image, Path)
    ]
    if len(listed) < sum(map(len, samples[:3])):
        raise ValueError(
            "images to inspect must be files, these are arrays: inspect a folder of image files"
        )
    return samples.root or Path(), listed


def _listed(root: Path, others: Counter[str], obstacles: list[str]) -> list[_Listed]:
    """List the images below `root`, and add to `others` and `obstacles` what is beside them."""
    if (root / "images").is_dir() and (root / "lists" / "train.txt").is_file():
        # Here, because it imports torch, and other folders do without.
        from fastcv.data.sources.birds import read_cub

        return _of_samples(labeled(read_cub(root), root))[1]
    splits = split_folders(root)
    try:
        labeled(list_folders(root)[0], root)
    except (ValueError, OSError) as error:
        obstacles.append(f"ImageFolders refuses this folder: {error}")
    listed = []
    for split, folder in (splits or {"": root}).items():
        listed += _in_split(split, folder, others, obstacles)
    return listed


def _in_split(
    split: str, root: Path, others: Counter[str], obstacles: list[str]
) -> Iterator[_Listed]:
    folders, files = entries(root)
    loose = images_among(files)
    if loose:
        count = f"{len(loose):,} image{'s' * (len(loose) > 1)}"
        lie = "lie" if len(loose) > 1 else "lies"
        obstacles.append(f"{count} in '{root}' {lie} outside of any class folder")
        yield from (_Listed(split, "", root / name) for name in loose)
    for label in folders:
        folder = root / label
        try:
            inner, files = entries(folder)
        except OSError as error:
            obstacles.append(f"'{folder}' cannot be read: {error.strerror}")
            continue
        images = images_among(files)
        others.update(suffix_of(name) or "without suffix" for name in {*files} - {*images})
        yield from (_Listed(split, label, folder / name) for name in images)
        if not inner and not images:
            obstacles.append(f"'{folder}' holds no image")
        if inner and images:
            obstacles.append(f"'{folder}' holds folders beside its images, which were left out")
            continue
        for name in inner:  # below a superclass
            try:
                _, files = entries(folder / name)
            except OSError as error:
                obstacles.append(f"'{folder / name}' cannot be read: {error.strerror}")
                continue
            yield from (_Listed(split, name, folder / name / each) for each in images_among(files))


def _look_at_all(root: Path, listed: Sequence[_Listed]) -> list[_Look]:
    chunks = [listed[start : start + CHUNK] for start in range(0, len(listed), CHUNK)]
    threads = ThreadPoolExecutor(os.cpu_count() or 1)
    with warnings.catch_warnings():
        # Pillow's, about images it reads all the same; they would break the bar.
        warnings.filterwarnings("ignore", module="PIL")
        try:
            looks = threads.map(lambda chunk: _look_at(root, chunk), chunks)
            named = f"looking at '{printable(root.name or str(root))}'"
            return [look for each in with_bar(looks, CHUNK, len(listed), named) for look in each]
        finally:
            threads.shutdown(cancel_futures=True)


def _look_at(root: Path, chunk: Iterable[_Listed]) -> list[_Look]:
    """Decode some images, and hash the gray squares of all together."""
    seen = [_decoded(root, each) for each in chunk]
    squares = np.stack([square for _, _, square in seen])  # (N, SIDE, SIDE)
    step = SIDE // SMALL
    small = squares.reshape(-1, SMALL, step, SMALL, step).mean(axis=(2, 4))
    varied = small.std(axis=(1, 2)) >= PLAIN
    words, small = packed(perceptual_hashes(squares)), np.rint(small).astype(np.uint8)
    return [
        _Look(file, digest, *((words[place], small[place]) if varied[place] else (None, None)))
        for place, (file, digest, _) in enumerate(seen)
    ]


def _decoded(root: Path, listed: _Listed) -> tuple[Inspected, bytes, np.ndarray]:
    """Return an image's facts, the hash of its pixels, and a gray square, black of a bad file."""
    split, label, path = listed
    below = str(path).removeprefix(f"{root}{os.sep}").replace(os.sep, "/")
    known = {
        "path": below,
        "split": split,
        "label": label,
    }
    try:
        with open_image(path) as opened:
            known["size"] = os.path.getsize(path)
            width, height = opened.size
            mode = _mode(opened)
            opened.load()
            orientation = opened.getexif().get(ORIENTATION, 1)
            picture = eight_bit(opened, 3)
            pixels = picture.tobytes()
            spans = [high - low for low, high in picture.getextrema()]
            gray = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            if orientation in TURNS:
                gray = gray.transpose(TURNS[orientation])
    except ValueError as error:
        reason = str(error).removeprefix(f"image '{path}' cannot be read: ")
        return Inspected(**known, fault=reason), b"", np.zeros((SIDE, SIDE), np.uint8)
    file = Inspected(
        **known,
        format=opened.format or "",
        mode=mode,
        width=width,
        height=height,
        orientation=orientation if orientation in TURNS else 1,
        one_color=max(spans) <= FLAT,
    )
    digest = hashlib.blake2b(pixels, digest_size=16, salt=f"{width}x{height}".encode()[:16])
    return file, digest.digest(), np.asarray(gray)


def _mode(opened: Image.Image) -> str:
    """Name the mode of an image whose pixels are not decoded yet: Pillow hides 16-bit colors."""
    if opened.mode.startswith("I;16"):
        return "16-bit gray"
    tiles = getattr(opened, "tile", None) or ()
    if opened.mode.startswith("RGB") and any("16" in str(tile[3]) for tile in tiles):
        return f"16-bit {opened.mode}"
    return MODES.get(opened.mode, opened.mode)


def _copies(looks: Sequence[_Look]) -> tuple[tuple[Copies, ...], tuple[Copies, ...], bool]:
    """Group the images with equal pixels, and those that look alike."""
    same: dict[bytes, list[int]] = {}
    for index, look in enumerate(looks):
        if look.file.fault is None:
            same.setdefault(look.digest, []).append(index)
    distinct = [indices for indices in same.values() if looks[indices[0]].words is not None]
    equal = [indices for indices in same.values() if len(indices) > 1]
    alike, complete = [], True
    if len(distinct) > 1:
        words, small = (
            np.stack([getattr(looks[indices[0]], name) for indices in distinct])
            for name in ("words", "small")
        )
        pairs, complete = similar(words, small)
        alike = [
            sorted(index for place in group for index in distinct[place]) for group in groups(pairs)
        ]

    def as_copies(found: list[list[int]]) -> tuple[Copies, ...]:
        copies = [Copies(tuple(looks[index].file for index in indices)) for indices in found]
        worst = sorted(copies, key=lambda each: (len(each.labels) == 1) + (len(each.splits) == 1))
        return tuple(worst)

    return as_copies(equal), as_copies(alike), complete


def printable(text: str) -> str:
    """Write what a terminal or a page cannot show, as bytes that are no text, in escapes."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in text
    )
