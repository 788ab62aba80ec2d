"""Data sets as image folders: one folder per class, in train/valid/test folders or in one."""

import os
import sys
from collections import Counter
from pathlib import Path

from fastcv.data.samples import Sample

IMAGE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}


def read_folders(
    root: Path, superclasses: bool = False
) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """List the images below a folder of train/valid/test folders, or of class folders.

    Names are sorted, letter case of suffixes and of the split folders' names does not count, and
    names that begin with a dot are left out (as are macOS's ``__MACOSX`` folders). No file is
    opened: a file counts as an image by its suffix, and those in class folders that do not are told
    on the standard error.

    Args:
        root: the folder that holds the split folders, or the class folders.
        superclasses: whether classes may lie one folder deeper, below their superclass, as in
            fastai's CIFAR-100 (``train/fish/shark/*.png``); their names then leave it out.

    Returns:
        (train, valid, test); the last two are empty for parts that are not there. A folder of
        class folders is all train.

    Raises:
        ValueError: there is no such folder, it holds no images, a class folder holds none or
            holds folders, or two folders claim the same split.
    """
    if not root.is_dir():
        raise ValueError(f"there must be a folder of images at '{root}', but there is no such one")
    splits = split_folders(root) or {"train": root}
    others: Counter[str] = Counter()
    parts = {part: _classes(folder, superclasses, others) for part, folder in splits.items()}
    if others:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common())
        print(f"'{root}': left out, as no images that can be read: {kinds}", file=sys.stderr)
    return parts["train"], parts.get("valid", []), parts.get("test", [])


def split_folders(root: Path) -> dict[str, Path]:
    """Find the folders of train, valid and test; empty where there is no folder for train.

    A folder called train counts only if it holds folders: otherwise it is a class, of trains.

    Raises:
        ValueError: two folders claim the same split, or train holds images but no class folders.
    """
    folders, _ = _entries(root)
    found: dict[str, Path] = {}
    for part, names in SPLIT_FOLDERS.items():
        claims = [name for name in folders if name.lower() in names]
        if len(claims) > 1:
            raise ValueError(
                f"'{root}' must hold one folder for {part}, got '{claims[0]}' and '{claims[1]}': "
                "rename or remove one"
            )
        if claims:
            found[part] = root / claims[0]
    if "train" not in found:
        return {}
    if not _entries(found["train"])[0]:
        if len(found) < len(folders):
            return {}
        raise ValueError(
            f"'{found['train']}' must hold one folder of images per class, but it holds no folder: "
            "sort its images into class folders"
        )
    return found


def _classes(root: Path, superclasses: bool, others: Counter[str]) -> list[Sample]:
    """List the images of every class folder in `root`; count the suffixes of its `others`."""
    folders, files = _entries(root)
    if not folders:
        what = "no class folders, only images" if _images(files) else "no images"
        raise ValueError(
            f"'{root}' must hold one folder of images per class, but there are {what} in it"
        )
    samples: list[Sample] = []
    for name in folders:
        folder = root / name
        inner, files = _entries(folder)
        if inner and superclasses and not _images(files):
            samples += _classes(folder, False, others)
            continue
        if inner:
            raise ValueError(
                f"class folders must hold images and no folders, but '{folder}' holds the folder "
                f"'{inner[0]}': give the folder right above the class folders, or above train"
            )
        images = _images(files)
        if not images:
            raise ValueError(
                f"every class must have images, but there are none in '{folder}' "
                "(.jpg, .png and the like): add some, or remove the folder"
            )
        samples.extend(Sample(folder / image, name) for image in images)
        others.update(_suffix(file) or "without suffix" for file in sorted({*files} - {*images}))
    return samples


def _images(files: list[str]) -> list[str]:
    return [name for name in files if _suffix(name) in IMAGE_SUFFIXES]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _entries(root: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in `root`, sorted, without hidden ones.

    Archives packed on macOS carry a hidden ``._NAME.jpg`` beside each ``NAME.jpg``.
    """
    folders, files = [], []
    # scandir knows a folder from a file without asking the disk again for each entry.
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            (folders if _is_folder(entry) else files).append(entry.name)
    return sorted(folders), sorted(files)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
