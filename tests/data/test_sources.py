"""Sources on the layouts they must read, built small."""

import gzip
import hashlib
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from fastcv.data import ImageFolders, birds, cifar10, cifar100, digits, mnist
from fastcv.data.decoding import read_image
from fastcv.data.sources import cifar
from fastcv.data.sources import folders as folders_module
from fastcv.data.sources.folders import HEIC_SUFFIXES, IMAGE_SUFFIXES

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _no_data_anywhere(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTCV_DATA", raising=False)


def folders(root: Path, *classes: str, images: int = 3, suffix: str = ".png") -> Path:
    for label in classes:
        (root / label).mkdir(parents=True)
        for number in range(images):
            path = root / label / f"{number}{suffix}"
            Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return root


def names(samples) -> list[str]:
    return [f"{sample.label}/{sample.image.name}" for sample in samples]


# digits


def test_digits_are_scikit_learns_spread_over_eight_bits():
    samples = digits()
    assert (len(samples.train), samples.valid, samples.test) == (1797, [], [])
    assert samples.classes == tuple("0123456789")
    assert samples.root is None
    levels, targets = load_digits(return_X_y=True)
    got = np.stack([sample.image for sample in samples.train])
    assert got.dtype == np.uint8
    assert got.shape == (1797, 8, 8)
    assert (got.min(), got.max()) == (0, 255)
    assert np.abs(got.reshape(1797, 64) / 255 - levels / 16).max() < 0.002
    assert [int(sample.label) for sample in samples.train] == targets.tolist()


def test_digits_refuse_a_path(tmp_path):
    with pytest.raises(ValueError, match="scikit-learn"):
        digits(tmp_path)


# Image folders


@pytest.mark.parametrize("train", ["train", "training", "Train"])
@pytest.mark.parametrize("valid", ["valid", "val", "validation"])
@pytest.mark.parametrize("test", ["test", "testing"])
def test_split_folders_go_by_their_usual_names(tmp_path, train, valid, test):
    folders(tmp_path / train, "dog", "cat", images=3)
    folders(tmp_path / valid, "dog", "cat", images=2)
    folders(tmp_path / test, "cat", images=1)
    samples = ImageFolders(path=tmp_path)()
    assert samples.classes == ("cat", "dog")
    assert samples.root == tmp_path
    assert names(samples.train) == [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)]
    assert names(samples.valid) == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert names(samples.test) == ["cat/0.png"]
    assert all(isinstance(sample.image, Path) for sample in samples.train)


def test_one_folder_is_split_seeded_and_stratified(tmp_path):
    folders(tmp_path, "cat", "dog", images=10)
    samples = ImageFolders(path=tmp_path, valid=0.3)()
    assert [sum(s.label == label for s in samples.valid) for label in ("cat", "dog")] == [3, 3]
    assert len(samples.train) == 14
    assert not {s.image for s in samples.train} & {s.image for s in samples.valid}
    assert samples == ImageFolders(path=str(tmp_path), valid=0.3)()
    assert samples.valid != ImageFolders(path=tmp_path, valid=0.3, seed=43)().valid
    assert len(ImageFolders(path=tmp_path, valid=4)().valid) == 8
    assert ImageFolders(path=tmp_path, valid=0)().valid == []
    bounded = ImageFolders(path=tmp_path, valid=0.3, valid_most=4)()
    assert [sum(s.label == label for s in bounded.valid) for label in ("cat", "dog")] == [2, 2]
    assert len(bounded.train) == 16


def test_validation_is_held_out_where_only_its_folder_is_missing(tmp_path):
    folders(tmp_path / "train", "cat", "dog", images=10)
    folders(tmp_path / "test", "cat", "dog")
    samples = ImageFolders(path=tmp_path)()
    assert [len(part) for part in samples[:3]] == [16, 4, 6]
    assert [len(part) for part in cifar10(tmp_path)[:3]] == [20, 0, 6]


def test_path_of_the_call_comes_first(tmp_path):
    folders(tmp_path / "a", "cat", "dog")
    folders(tmp_path / "b", "oak", "elm")
    source = ImageFolders(path=tmp_path / "a")
    assert source().classes == ("cat", "dog")
    assert source(tmp_path / "b").classes == ("elm", "oak")
    assert source == ImageFolders(path=tmp_path / "a")
    assert "seed=42" in repr(source)


def test_hidden_and_foreign_files_are_left_out(tmp_path, capsys):
    folders(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "._0.png").write_bytes(b"macOS")
    (tmp_path / "cat" / "labels.csv").touch()
    (tmp_path / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").touch()
    assert names(ImageFolders(path=tmp_path, valid=0)().train) == [
        f"{label}/{number}.png" for label in ("cat", "dog") for number in range(3)
    ]
    assert "images fastcv reads: 1 .csv\n" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["", "train"])
def test_photographs_in_a_format_that_is_not_read_are_reported(
    tmp_path, capsys, monkeypatch, split
):
    monkeypatch.setattr(folders_module, "IMAGE_SUFFIXES", IMAGE_SUFFIXES - HEIC_SUFFIXES)
    folders(tmp_path / split, "cat", "dog")
    ImageFolders(path=tmp_path)()
    assert capsys.readouterr().err == ""
    for name in ("dog/IMG_1.HEIC", "dog/IMG_2.heic", "cat/IMG_3.heic", "cat/notes"):
        (tmp_path / split / name).touch()
    assert len(ImageFolders(path=tmp_path, valid=0)().train) == 6
    assert capsys.readouterr().err == (
        f"'{tmp_path}': skipped files that are not images fastcv reads: 3 .heic, 1 without suffix; "
        'HEIC photos need pip install "fastcv[heic]"\n'
    )


@pytest.mark.parametrize(
    "suffix", [".JPG", ".Jpeg", ".PNG", ".bmp", ".gif", ".TIFF", ".webp", ".jfif"]
)
def test_suffixes_count_in_any_case(tmp_path, suffix):
    folders(tmp_path, "cat", "dog", suffix=suffix)
    samples = ImageFolders(path=tmp_path, valid=0)()
    assert len(samples.train) == 6
    assert read_image(samples.train[0].image).size == (4, 4)


def test_linked_folders_and_files_are_followed(tmp_path):
    folders(tmp_path / "real", "cat", "dog")
    (tmp_path / "links").mkdir()
    for label in ("cat", "dog"):
        (tmp_path / "links" / label).symlink_to(tmp_path / "real" / label)
    assert len(ImageFolders(path=tmp_path / "links", valid=0)().train) == 6


def test_a_class_may_be_called_train(tmp_path):
    folders(tmp_path, "car", "plane", "train")
    assert ImageFolders(path=tmp_path)().classes == ("car", "plane", "train")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folders(tmp_path / "pets", "cat", "dog")
    assert ImageFolders(path="~/pets")().root == tmp_path / "pets"


# CIFAR


def pickled(content: dict) -> bytes:
    """Pickle as numpy did when the files were made: its dtype's flags were integers."""
    now = pickle.dumps(content, protocol=2)
    flags = b"\x89\x88\x87"  # False, True, a tuple of three
    assert now.count(flags) == 1
    return now.replace(flags, b"K\x00\x88\x87")  # 0, True, a tuple of three


def cifar_folder(root: Path, monkeypatch, name: str = "CIFAR10") -> dict[str, np.ndarray]:
    """Write a small CIFAR in its original layout, with checksums to match; give its pixels."""
    dataset = getattr(datasets, name)
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    labels = "labels" if name == "CIFAR10" else "fine_labels"
    written = {}
    sums = {}

    def write(file: str, content: bytes) -> None:
        (folder / file).write_bytes(content)
        sums[file] = hashlib.md5(content, usedforsecurity=False).hexdigest()

    for file, _ in (*dataset.train_list, *dataset.test_list):
        written[file] = RANDOM.integers(0, 256, (4, 3 * 32 * 32), dtype=np.uint8)
        write(file, pickled({"data": written[file], labels: [0, 1, 2, 1]}))
    meta = dataset.meta
    write(meta["filename"], pickle.dumps({meta["key"]: ["frog", "apple", "ship"]}, protocol=2))
    for part in ("train_list", "test_list"):
        listed = [[file, sums[file]] for file, _ in getattr(dataset, part)]
        monkeypatch.setattr(dataset, part, listed)
    monkeypatch.setattr(dataset, "meta", {**meta, "md5": sums[meta["filename"]]})
    return written


@pytest.mark.parametrize(
    ("source", "name", "train"), [(cifar10, "CIFAR10", 20), (cifar100, "CIFAR100", 4)]
)
def test_cifar_reads_original_files(tmp_path, monkeypatch, source, name, train):
    written = cifar_folder(tmp_path, monkeypatch, name)
    folder = tmp_path / getattr(datasets, name).base_folder
    for path in (tmp_path, folder):
        samples = source(path)
        assert [len(part) for part in samples[:3]] == [train, 0, 4]
        assert samples.classes == ("apple", "frog", "ship")
        assert [label for _, label in samples.test] == ["frog", "apple", "ship", "apple"]
        first = written[getattr(datasets, name).train_list[0][0]][0].reshape(3, 32, 32)
        assert (samples.train[0].image == first.transpose(1, 2, 0)).all()
        assert samples.train[0].image.flags.c_contiguous
        assert (np.asarray(read_image(samples.train[0].image)) == first.transpose(1, 2, 0)).all()


@pytest.mark.parametrize(
    ("change", "said"), [("alter", "published checksum"), ("remove", "is missing")]
)
@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_cifar_names_the_original_file_that_is_wrong(tmp_path, monkeypatch, file, change, said):
    cifar_folder(tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / file
    if change == "alter":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    else:
        path.unlink()
    with pytest.raises(ValueError, match=f"'{file}'.* {said}"):
        cifar10(tmp_path)


def test_cifar_never_unpickles_what_has_another_checksum(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for file, _ in (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list):
        (folder / file).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="published checksum"):
        cifar10(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_cifar_reads_folders_from_itself_and_from_above(tmp_path):
    for part in ("train", "test"):
        folders(tmp_path / "cifar10" / part, "frog", "ship")
    assert cifar10(tmp_path) == cifar10(tmp_path / "cifar10")
    assert cifar10(tmp_path).root == tmp_path / "cifar10"


def test_part_of_a_named_set_is_said_to_be_one(tmp_path, capsys, monkeypatch):
    folders(tmp_path / "train", "cat", "dog", images=3)
    folders(tmp_path / "test", "cat", "dog", images=1)
    cifar10(tmp_path)
    said = "is not as published: it has 6 training and 2 test images, not 50,000 and 10,000"
    assert said in capsys.readouterr().err
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, published=(6, 2)))
    cifar10(tmp_path)
    assert capsys.readouterr().err == ""


def test_cifar100_reads_fastais_folders_of_superclasses(tmp_path):
    for part in ("train", "test"):
        folders(tmp_path / part / "fish", "ray", "shark")
        folders(tmp_path / part / "people", "baby")
    samples = cifar100(tmp_path)
    assert samples.classes == ("baby", "ray", "shark")
    assert [len(part) for part in samples[:3]] == [9, 0, 9]
    with pytest.raises(ValueError, match="holds the folder"):
        cifar10(tmp_path)


# MNIST


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_folder(folder: Path, suffix: str = "", joint: str = "-") -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = RANDOM.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    labels = np.array([7, 2, 1, 0, 4], np.uint8)
    pack = gzip.compress if suffix else bytes
    for part in ("train", "t10k"):
        (folder / f"{part}-images{joint}idx3-ubyte{suffix}").write_bytes(pack(idx(images)))
        (folder / f"{part}-labels{joint}idx1-ubyte{suffix}").write_bytes(pack(idx(labels)))
    return images


@pytest.mark.parametrize("inside", ["", "raw", "MNIST/raw", "mnist/MNIST/raw"])
@pytest.mark.parametrize(("suffix", "joint"), [("", "-"), (".gz", "-"), ("", ".")])
def test_mnist_reads_idx_files(tmp_path, inside, suffix, joint):
    images = mnist_folder(tmp_path / inside, suffix, joint)
    samples = mnist(tmp_path)
    assert [len(part) for part in samples[:3]] == [5, 0, 5]
    assert [label for _, label in samples.test] == ["7", "2", "1", "0", "4"]
    assert (np.stack([image for image, _ in samples.train]) == images).all()


def test_mnist_reads_what_torchvision_reads(tmp_path):
    mnist_folder(tmp_path / "MNIST" / "raw")
    oracle = datasets.MNIST(tmp_path, train=False)
    samples = mnist(tmp_path)
    assert (np.stack([image for image, _ in samples.test]) == oracle.data.numpy()).all()
    assert [int(label) for _, label in samples.test] == oracle.targets.tolist()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", ["train-images-idx3", "t10k-labels-idx1"])
@pytest.mark.parametrize("share", [0, 0.1, 0.6, 0.99])
def test_mnist_names_a_truncated_file(tmp_path, suffix, kind, share):
    mnist_folder(tmp_path, suffix)
    path = tmp_path / f"{kind}-ubyte{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=f"{kind}.*damaged or truncated"):
        mnist(tmp_path)


def test_mnist_names_a_missing_file_and_unequal_numbers(tmp_path):
    mnist_folder(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros(4, np.uint8)))
    with pytest.raises(ValueError, match="5 images and 4 labels"):
        mnist(tmp_path)
    labels.unlink()
    with pytest.raises(ValueError, match="lacks 'train-labels-idx1-ubyte'"):
        mnist(tmp_path)


def test_mnist_reads_image_folders(tmp_path):
    for part in ("training", "testing"):
        folders(tmp_path / "mnist_png" / part, *"0123456789", images=1)
    samples = mnist(tmp_path)
    assert [len(part) for part in samples[:3]] == [10, 0, 10]
    assert samples.classes == tuple("0123456789")


# Birds


def birds_folder(root: Path) -> Path:
    folders(root / "images", "001.Albatross", "002.Auklet", images=4)
    return root


def list_2010(root: Path) -> None:
    (root / "lists").mkdir()
    for part, numbers in (("train", (0, 2)), ("test", (1, 3))):
        lines = [f"{label}/{n}.png" for label in ("002.Auklet", "001.Albatross") for n in numbers]
        (root / "lists" / f"{part}.txt").write_text("\n".join(lines) + "\n\n")


def list_2011(root: Path, classes: bool) -> None:
    images = [f"{label}/{n}.png" for label in ("001.Albatross", "002.Auklet") for n in range(4)]
    numbered = [f"{number} {name}" for number, name in enumerate(images, 1)]
    (root / "images.txt").write_text("\n".join(numbered))
    split = [f"{number} {number % 2}" for number in range(1, 9)]
    (root / "train_test_split.txt").write_text("\n".join(split))
    if classes:
        (root / "classes.txt").write_text("1 Albatross\n2 Least Auklet\n")
        labels = [f"{number} {1 + number // 5}" for number in range(1, 9)]
        (root / "image_class_labels.txt").write_text("\n".join(labels))


@pytest.mark.parametrize("inside", ["", "CUB_200_2010", "birds"])
@pytest.mark.parametrize("layout", ["2010", "2011", "2011 with classes"])
def test_birds_read_their_lists(tmp_path, inside, layout):
    root = birds_folder(tmp_path / inside)
    if layout == "2010":
        list_2010(root)
    else:
        list_2011(root, classes="with" in layout)
    samples = birds(tmp_path)
    assert samples.root == root
    first, second = samples.classes
    if layout == "2011 with classes":
        assert (first, second) == ("Albatross", "Least Auklet")
    else:
        assert (first, second) == ("001.Albatross", "002.Auklet")
    for part, numbers in ((samples.train, (0, 2)), (samples.test, (1, 3))):
        expected = [f"{label}/{n}.png" for label in (first, second) for n in numbers]
        assert names(part) == expected
    assert samples.valid == []


def test_birds_without_lists_say_which(tmp_path):
    birds_folder(tmp_path)
    with pytest.raises(ValueError, match=r"lists/train.txt.*train_test_split.txt"):
        birds(tmp_path)


def test_birds_listed_but_missing_are_named(tmp_path):
    list_2010(birds_folder(tmp_path))
    (tmp_path / "images" / "002.Auklet" / "3.png").unlink()
    with pytest.raises(ValueError, match=r"002.Auklet/3.png', and there is no such file"):
        birds(tmp_path)


def test_birds_listed_for_both_parts_are_named(tmp_path):
    list_2010(birds_folder(tmp_path))
    with (tmp_path / "lists" / "test.txt").open("a") as file:
        file.write("001.Albatross/0.png\n")
    with pytest.raises(ValueError, match=r"'001.Albatross/0.png' twice"):
        birds(tmp_path)


def test_birds_with_a_gap_in_their_numbers_are_named(tmp_path):
    list_2011(birds_folder(tmp_path), classes=False)
    (tmp_path / "train_test_split.txt").write_text("1 1\n2 0\n")
    with pytest.raises(ValueError, match="image 3 lacks one"):
        birds(tmp_path)
    (tmp_path / "train_test_split.txt").write_text("1 1\n2\n")
    with pytest.raises(ValueError, match="2 columns"):
        birds(tmp_path)
