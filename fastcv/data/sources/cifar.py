"""CIFAR-10 and CIFAR-100: 32 x 32 pixels, RGB."""

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fastcv.augment.pixels import Normalize
from fastcv.data.samples import Parts, Sample, Samples
from fastcv.data.sources.named import NamedSet, unpack

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10 as CIFAR10Files

# Over the pixels of all training images.
CIFAR10_STATS = Normalize(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
CIFAR100_STATS = Normalize(mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))


def cifar10(path: Path | None = None) -> Samples:
    """Load CIFAR-10: 50,000 training and 10,000 test images, 32 x 32 pixels, RGB, 10 classes.

    Reads ``cifar-10-batches-py``, whose checksums are compared, or ``{train,test}/CLASS/*.png``.
    """
    return CIFAR10.samples(path)


def cifar100(path: Path | None = None) -> Samples:
    """Load CIFAR-100: 50,000 training and 10,000 test images, 32 x 32 pixels, RGB, 100 classes.

    Reads ``cifar-100-python`` (fine labels), whose checksums are compared, or
    ``{train,test}/CLASS/*.png``, also with fastai's folders of superclasses in between.

    The published set holds 26 groups of pixel-identical images; 10 of them span training and test,
    and 17 have different labels. So the parts share no file, but they do share a few pictures.
    """
    return CIFAR100.samples(path)


def read_cifar(root: Path, name: Literal["CIFAR10", "CIFAR100"]) -> Parts | None:
    """Read CIFAR's original pickled files through torchvision, which compares their MD5 sums first.

    They lie in `root`, or in its folder ``cifar-10-batches-py`` or ``cifar-100-python``.

    Raises:
        ValueError: a file is missing or its MD5 sum is not torchvision's.
    """
    # Here, because torchvision takes seconds to import, and image folders do without.
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    dataset = getattr(datasets, name)
    first = dataset.train_list[0][0]
    places = (root, root / dataset.base_folder)
    folder = next((each for each in places if (each / first).is_file()), None)
    if folder is None:
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


def _arrays(dataset: "CIFAR10Files") -> list[Sample]:
    images = np.ascontiguousarray(dataset.data)  # (N, 32, 32, 3)
    labels = [dataset.classes[target] for target in dataset.targets]
    return [Sample(image, label) for image, label in zip(images, labels, strict=True)]


def _download(folder: Path, name: Literal["CIFAR10", "CIFAR100"]) -> None:
    # Here, as in `read_cifar`.
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    dataset = getattr(datasets, name)
    download_url(dataset.url, folder, dataset.filename, dataset.tgz_md5)
    unpack(folder / dataset.filename)


CIFAR10 = NamedSet(
    name="cifar10",
    folders=("cifar10", "CIFAR10", "cifar-10", "CIFAR-10", "cifar-10-batches-py"),
    published=(50_000, 10_000),
    read=partial(read_cifar, name="CIFAR10"),
    download=partial(_download, name="CIFAR10"),
    by_hand="'cifar-10-batches-py', or folders 'train' and 'test' of class folders,",
)
CIFAR100 = NamedSet(
    name="cifar100",
    folders=("cifar100", "CIFAR100", "cifar-100", "CIFAR-100", "cifar-100-python"),
    published=(50_000, 10_000),
    read=partial(read_cifar, name="CIFAR100"),
    download=partial(_download, name="CIFAR100"),
    by_hand="'cifar-100-python', or folders 'train' and 'test' of class folders,",
    superclasses=True,
)
