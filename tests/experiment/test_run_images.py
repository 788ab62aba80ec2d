"""The images of a run are found again, by the names that its predictions bear."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import fastcv
from fastcv import ImageFolders, Images, digits
from fastcv.data import Toy
from fastcv.experiment.images import RunImages


def run_of(recipe):
    return SimpleNamespace(recipe=recipe, started={"smoke": False})


@pytest.fixture
def folders(tmp_path):
    for part, count in (("train", 6), ("test", 3)):
        for name in ("cat", "owl"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (9, 8), (index, 0, 0)).save(folder / f"{index}.png")
    return ImageFolders(path=tmp_path, valid=0.5)


def test_listing_is_in_the_order_of_the_loaders(folders):
    shared = {"batch_size": 4, "size": 8}
    for data in (
        Images(source=folders, **shared),
        Images(source=folders, test_per_class=2, train_per_class=2, **shared),
        Images(source=digits, holdout=0.2, channels=1, **shared),
        Images(source=folders, fold=(2, 3), **shared),
        Images(source=Toy(size=8, channels=3, train=8, test=4), cache="off", **shared),
    ):
        dls = data(device="cpu")
        listing = data.listing()
        names = ["train", "test"] if dls.valid_is_test else ["train", "valid", "test"]
        assert list(listing) == names[: len(dls.loaders)]
        assert [[name for name, _ in part] for part in listing.values()] == dls.names
        for part, loader in zip(listing.values(), dls.loaders, strict=True):
            labels = [sample.label for _, sample in part]
            assert labels == [dls.vocab[label] for _, label in loader.dataset]


def test_a_file_that_is_skipped_is_not_listed(folders):
    bad = folders.path / "train" / "cat" / "2.png"
    bad.write_bytes(bad.read_bytes()[:40])
    data = Images(source=folders, size=8, batch_size=4, skip_bad=True)
    names = [[name for name, _ in part] for part in data.listing().values()]
    assert names == data(device="cpu").names
    assert not any("train/cat/2.png" in part for part in names)


def test_arrays_are_found_by_their_place():
    images = RunImages(run_of(fastcv.get_recipe("digits")))
    levels, _ = load_digits(return_X_y=True)
    expected = np.rint(levels[1600].reshape(8, 8) * (255 / 16))
    # `digits` lists its images in the order of scikit-learn's.
    assert np.array_equal(images["#1600"], expected)


def test_data_that_cannot_list_its_images_is_refused():
    own = fastcv.replace(fastcv.get_recipe("digits"), data=lambda device: None)
    with pytest.raises(ValueError, match=r"has no listing\(\)"):
        _ = RunImages(run_of(own)).listing
