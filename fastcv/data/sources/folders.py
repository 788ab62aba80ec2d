"""Image folders: one folder per class, in train/valid/test folders or all in one."""

import os
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fastcv.data.decoding import HEIC_EXTRA
from fastcv.data.samples import Parts, Sample, Samples, labeled
from fastcv.data.splits import check_holdout, hold_out
from fastcv.recipe.bounds import check_whole, shown, unless_none

HEIC_SUFFIXES = frozenset({".heic", ".heif"})
# HEIC photos count only where they can be read.
IMAGE_SUFFIXES = (HEIC_SUFFIXES if find_spec("pi_heif") else frozenset()) | frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, kw_only=True)
class ImageFolders:
    """Your own images: one folder per class, in train/valid/test folders or all in one.

    Train may also be called training; valid, val or validation; test, testing. Without a validation
    folder, validation images are held out of the training ones, stratified and seeded.

    Args:
        path: the folder; the path of a call comes first.
        valid: what to hold out if there is no validation folder: a float is a fraction (0-1) of
            each class, an integer a number of images of each class; 0 holds out none.
        seed: decides which images are held out.
        valid_most: largest number of images to hold out in all, in the classes' proportion, though
            at least one of each class; the others train. None for no limit.
    """

    path: str | Path | None = None
    valid: int | float = 0.2
    seed: int = 42
    valid_most: int | None = None

    def __post_init__(self):
        if not isinstance(self.path, str | Path | None):
            raise ValueError(f"path must be text, a Path or None, got {shown(self.path)}")
        check_holdout("valid", self.valid)
        check_whole("seed", self.seed)
        unless_none(check_whole, "valid_most", self.valid_most, least=1)

    def __call__(self, path: Path | None = None) -> Samples:
        """List the images in `path`, or in this value's own if it is None.

        Raises:
            ValueError: there is no path, or what `read_folders` and `stratified` raise.
        """
        chosen = self.path if path is None else path
        if chosen is None:
            raise ValueError(
                "ImageFolders must have a folder, got path=None: pass --data PATH, or use "
                "ImageFolders(path=...)"
            )
        root = Path(chosen).expanduser()
        samples = labeled(read_folders(root), root)
        return hold_out(samples, self.valid, self.seed, self.valid_most)


def read_folders(root: Path, superclasses: bool = False) -> Parts:
    """List images as `list_folders` does, and count other files on standard error.

    Raises:
        ValueError: what `list_folders` raises.
    """
    parts, others = list_folders(root, superclasses)
    if others:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common())
        heic = f"; HEIC photos need {HEIC_EXTRA}" if HEIC_SUFFIXES & others.keys() else ""
        said = f"'{root}': skipped files that are not images fastcv reads: {kinds}{heic}"
        print(said, file=sys.stderr)
    return parts


def list_folders(root: Path, superclasses: bool = False) -> tuple[Parts, Counter[str]]:
    """List the images below a folder of train/valid/test folders, or of class folders.

    Names are sorted, upper and lower case of suffixes and of the split folders' names are the same,
    and names that begin with a dot are ignored (as are macOS's ``__MACOSX`` folders). No file is
    opened: its suffix makes a file an image. Without split folders, all images are training images.

    Args:
        root: the folder.
        superclasses: whether class folders may lie one level deeper, below their superclass, as in
            fastai's CIFAR-100 (``train/fish/shark/*.png``); class names then leave it out.

    Returns:
        the images, and how many other files there are in class folders, by suffix.

    Raises:
        ValueError: there is no such folder, it holds no images, a class folder holds none or
            holds folders, or two folders claim the same split.
    """
    check_folder(root)
    splits = split_folders(root) or {"train": root}
    others: Counter[str] = Counter()
    parts = {part: _classes(folder, superclasses, others) for part, folder in splits.items()}
    return (parts["train"], parts.get("valid", []), parts.get("test", [])), others


def check_folder(root: Path) -> None:
    """Refuse what is no folder.

    Raises:
        ValueError: there is no such folder.
    """
    if not os.path.isdir(root):  # of a path that is too long, `Path.is_dir` raises an error
        what = "is a file" if os.path.exists(root) else "does not exist"
        place = shown(str(root))
        raise ValueError(f"images must lie in a folder, but {place} {what}: pass another path")


def split_folders(root: Path) -> dict[str, Path]:
    """Find the folders of train, valid and test; return none if there is no folder for train.

    A folder called train counts only if it holds folders; otherwise it is a class of trains.

    Raises:
        ValueError: two folders claim the same split, or train holds images but no class folders.
    """
    folders, _ = entries(root)
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
    if not entries(found["train"])[0]:
        if len(found) < len(folders):
            return {}
        raise ValueError(
            f"'{found['train']}' must hold one folder of images per class, but it holds no folder: "
            "sort its images into class folders"
        )
    return found


def _classes(root: Path, superclasses: bool, others: Counter[str]) -> list[Sample]:
    """List the images of every class folder in `root`; count the other files in `others`."""
    folders, files = entries(root)
    if not folders:
        what = "no class folders, only images" if images_among(files) else "no images"
        raise ValueError(
            f"'{root}' must hold one folder of images per class, but there are {what} in it: "
            "sort images into class folders, or pass another folder"
        )
    samples: list[Sample] = []
    for name in folders:
        folder = root / name
        inner, files = entries(folder, files_alone=True)
        if inner and superclasses and not images_among(files):
            samples += _classes(folder, False, others)
            continue
        if inner:
            raise ValueError(
                f"class folders must hold images and no folders, but '{folder}' holds the folder "
                f"'{inner[0]}': pass the folder right above the class folders, or above train"
            )
        images = images_among(files)
        if not images:
            heic = any(suffix_of(file) in HEIC_SUFFIXES for file in files)
            remedy = f"for its HEIC photos {HEIC_EXTRA}" if heic else "add some"
            raise ValueError(
                f"every class must have images (.jpg, .png, ...), but there are none in "
                f"'{folder}': {remedy}, or remove the folder"
            )
        samples.extend(Sample(folder / image, name) for image in images)
        others.update(suffix_of(file) or "without suffix" for file in sorted({*files} - {*images}))
    return samples


def images_among(files: list[str]) -> list[str]:
    """Return the names that end as those of images do."""
    return [name for name in files if suffix_of(name) in IMAGE_SUFFIXES]


def suffix_of(name: str) -> str:
    """Return a name's suffix in lower case."""
    return os.path.splitext(name)[1].lower()


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is left out, as hidden ones and macOS's copies are."""
    return name.startswith(".") or name == "__MACOSX"


def entries(root: Path, *, files_alone: bool = False) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in `root`, sorted, without hidden ones.

    Archives packed on macOS carry a hidden ``._NAME.jpg`` beside each ``NAME.jpg``.

    Args:
        root: the folder.
        files_alone: whether to refuse a pipe that is named like an image, which nobody may write.

    Raises:
        ValueError: there is such a pipe.
    """
    folders, files = [], []
    # scandir knows a folder from a file without asking the disk again for each entry.
    with os.scandir(root) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            try:
                is_folder = entry.is_dir()
                special = not is_folder and not entry.is_file() and not entry.is_symlink()
            except OSError:  # a link to itself
                is_folder = special = False
            if special and files_alone and suffix_of(entry.name) in IMAGE_SUFFIXES:
                raise ValueError(
                    f"images must be files, but '{entry.path}' is a pipe, a socket or a device: "
                    "remove it"
                )
            (folders if is_folder else files).append(entry.name)
    return sorted(folders), sorted(files)
