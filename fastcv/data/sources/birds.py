"""Caltech-UCSD Birds 200: photographs of many sizes."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from fastcv.augment.pixels import Normalize
from fastcv.data.samples import Parts, Sample, Samples
from fastcv.data.sources.folders import IMAGE_SUFFIXES
from fastcv.data.sources.named import NamedSet, unpack

# Over square crops around the birds in 3,000 images of 2010, 15 of each class, without the black
# padding; whole photographs, which have more background, may differ a little.
BIRDS_STATS = Normalize(mean=(0.4715, 0.4788, 0.4130), std=(0.2345, 0.2312, 0.2627))


class Archive(NamedTuple):
    """A packed file to fetch, and the SHA-256 sum it must have."""

    file: str
    url: str
    sha256: str


# Where the authors' page links to since Caltech stopped serving it. `confirm=t` stands for the
# click that Google asks for above 100 MB. Sums: TensorFlow Datasets' caltech_birds2010, version
# 0.1.1, and the same in torchvision's prototype of CUB-200.
ARCHIVES = (
    Archive(
        "lists.tgz",
        "https://drive.usercontent.google.com/download"
        "?id=1vZuZPqha0JjmwkdaS_XtYryE3Jf5Q1AC&export=download&confirm=t",
        "aeacbd5e3539ae84ea726e8a266a9a119c18f055cd80f3836d5eb4500b005428",
    ),
    Archive(
        "images.tgz",
        "https://drive.usercontent.google.com/download"
        "?id=1GDr1OkoXdhaXWGA8S3MAq3a522Tak-nx&export=download&confirm=t",
        "2a6d2246bbb9778ca03aa94e2e683ccb4f8821a36b7f235c0822e659d60a803e",
    ),
)


def birds(path: Path | None = None) -> Samples:
    """Load Caltech-UCSD Birds 200 (2010): 3,000 training and 3,033 test photographs, 200 classes.

    Reads ``images`` with ``lists/{train,test}.txt``, or with ``images.txt`` and
    ``train_test_split.txt``. The latter is the layout of the larger 2011 set, which is read from a
    path or ``$FASTCV_DATA``, but neither taken from fastai's data folder nor fetched: no report is
    about it. fastai's `untar_data` knows only that one, so the 2010 archives are fetched from where
    their authors put them, and their SHA-256 sums compared.
    """
    return BIRDS.samples(path)


def read_cub(root: Path) -> Parts | None:
    """Read Caltech-UCSD Birds: a folder ``images``, if there is one, and the lists that split it.

    Classes are named by their folders, or by ``image_class_labels.txt`` and ``classes.txt`` if the
    2011 lists come with these.

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
    seen: set[str] = set()
    for name, label, part in listed:
        if name in seen:
            raise ValueError(
                f"an image must be listed once, but '{root}' lists '{name}' twice: "
                "remove one of the two lines"
            )
        seen.add(name)
        path = images / name
        if not path.is_file():
            raise ValueError(
                f"listed images must be there, but the lists in '{root}' name '{path}', and there "
                "is no such file: add it, or unpack the archive again"
            )
        if path.suffix.lower() in IMAGE_SUFFIXES:
            parts[part].append(Sample(path, label))
    return sorted(parts["train"]), [], sorted(parts["test"])


def _numbered_lists(root: Path) -> list[tuple[str, str, str]]:
    """Return (name below images/, class, part) of each image in the lists of the 2011 set."""
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
                f"each image in '{root / 'images.txt'}' must have a class and a 0 or 1 in "
                f"'train_test_split.txt', but image {number} lacks one: add it"
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
                raise ValueError(
                    f"each line of '{path}' must have {columns} columns, got '{line}': mend it"
                )
            rows.append(row)
    return rows


def _download(folder: Path) -> None:
    # Here, because torchvision takes seconds to import, and data that is there does without.
    from torchvision.datasets.utils import download_url

    for archive in ARCHIVES:
        packed = folder / archive.file
        download_url(archive.url, folder, archive.file)
        with packed.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != archive.sha256:
                raise RuntimeError(f"'{archive.file}' is corrupted")
        unpack(packed)


_OF_2010 = ("birds", "CUB_200_2010", "CUB-200-2010", "CUB_200", "CUB-200")
_OF_2011 = ("CUB_200_2011", "CUB-200-2011")
BIRDS = NamedSet(
    name="birds",
    folders=_OF_2010 + _OF_2011,
    not_from_fastai=_OF_2011,
    published=(3_000, 3_033),
    read=read_cub,
    download=_download,
    by_hand="the 2010 set's folders 'images' and 'lists'",
)
