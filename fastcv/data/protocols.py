"""What a source of images is, and what a recipe's `data` is."""

from pathlib import Path
from typing import Protocol

import torch
from fastai.data.core import DataLoaders

from fastcv.data.samples import Samples


class Source(Protocol):
    """Lists the images of a data set: the `source` of `Images`, which decodes and batches them.

    A function will do. A frozen dataclass such as `ImageFolders` also has fields, which are saved
    with a run and can be set by `--set data.source.FIELD=...`. Files are named by absolute paths,
    so that a run can be resumed from another folder.

    Example, complete:

        import numpy as np
        from fastcv.data import Images, Sample, Samples

        def stripes(path=None):
            rows = np.zeros((32, 32, 3), np.uint8)
            rows[::4] = 255
            kinds = (("rows", rows), ("columns", rows.swapaxes(0, 1)))
            train = [Sample(pixels, label) for label, pixels in kinds for _ in range(32)]
            return Samples(train, [], [], classes=("columns", "rows"), root=None)

        data = Images(source=stripes, size=32, batch_size=16, holdout=0.25)
    """

    def __call__(self, path: Path | None, /) -> Samples:
        """List the images in `path`, or in the source's default place if it is None.

        Raises:
            ValueError: the images are not there, or not as they should be.
        """
        ...


class Data(Protocol):
    """Builds fastai DataLoaders: the `data` of a recipe, in place of `Images`.

    The loaders are training, validation and, if there is one, test. A frozen dataclass is saved
    with a run, and its fields can be set by `--set data.FIELD=...`; `--data PATH` sets its `path`,
    `--skip-bad` its `skip_bad`, and `--smoke` calls `smoke()`, which returns a small version of the
    value, for a run in seconds.

    The DataLoaders may have these attributes:

    - `image_shape`: (C, H, W) of a net's images. Without it, a batch is read to build the net.
    - `valid_is_test`: whether the test images validate; validation then counts as test.
    - `skipped`: number of images left out because they could not be read. A run without some images
      counts as changed, and is not compared with one that has them all.
    - `names`: for each loader, the names of its images in tables: the path below the data's folder,
      or "#" and the place in the data set for images that come as arrays. Without it, places.
    - `groups`: the group of each image, by its name, where images are grouped.
    - `mixing`: augmentations that change labels. The Learner calls them on whole training batches.

    The loaders of `Images` also gather batches from decoded images, train on other images for a
    stage (`with_augment`), and let a CUDA graph make the batches. Other loaders do without.

    Example, complete:

        from dataclasses import dataclass, replace
        from operator import itemgetter

        from fastai.data.block import CategoryBlock, DataBlock
        from fastai.data.transforms import RandomSplitter
        from fastai.vision.data import ImageBlock
        from fastcv.data import Toy

        @dataclass(frozen=True, kw_only=True)
        class Blocks:
            source: Toy = Toy(train=32)
            batch_size: int = 16

            def __call__(self, device=None):
                block = DataBlock(
                    blocks=(ImageBlock, CategoryBlock),
                    getters=(itemgetter(0), itemgetter(1)),  # of a Sample: image and label
                    splitter=RandomSplitter(seed=0),
                )
                dls = block.dataloaders(self.source().train, bs=self.batch_size, device=device)
                dls.image_shape = (3, self.source.size, self.source.size)
                return dls

            def smoke(self):
                return replace(self, source=Toy(train=8))

        data = Blocks()
    """

    def __call__(self, device: torch.device | str | None = None) -> DataLoaders:
        """Build the DataLoaders, with batches on `device`.

        Raises:
            ValueError: the data is not there, or not as it should be.
        """
        ...
