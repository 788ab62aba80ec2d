"""Folders of images that would hang, or fail only after the training, are refused before it."""

import os
import shutil
from collections import namedtuple

import pytest
from photos import make_photos

from fastcv.data import ImageFolders, Images
from fastcv.data import images as module
from fastcv.data.decoding import read_image
from fastcv.learning import memory
from fastcv.recipe.flat import flat
from fastcv.recipes.digits import recipe as digits
from fastcv.report.read import DEEPEST, read_runs

Usage = namedtuple("Usage", "total used free")


def listed(root, **settings):
    made = Images(source=ImageFolders(path=root), size=8, batch_size=2, **settings)
    return made(device="cpu")


def refusal(root, **settings):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the caller looks at the sentence)
        listed(root, **settings)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("cache", ["auto", "off"])
def test_a_pipe_among_the_images_is_no_image_and_nobody_waits_for_it(tmp_path, cache):
    make_photos(tmp_path)
    os.mkfifo(tmp_path / "cat" / "x.jpg")
    with pytest.raises(ValueError, match=r"x\.jpg' cannot be read: it is a pipe, a socket or a "):
        read_image(tmp_path / "cat" / "x.jpg")
    assert "x.jpg' is a pipe, a socket or a device: remove it" in refusal(tmp_path, cache=cache)


@pytest.mark.parametrize("part", ["class", "image"])
def test_a_name_that_is_not_utf_8_is_refused_before_training(tmp_path, part):
    make_photos(tmp_path)
    if part == "class":
        (tmp_path / "cat").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    else:
        image = tmp_path / "cat" / "0.png"
        image.rename(image.with_name(os.fsdecode(b"caf\xe9.png")))
    sentence = refusal(tmp_path)
    assert "must be text in UTF-8, got '" in sentence
    assert r"caf\xe9" in sentence


def test_text_that_is_not_utf_8_is_no_part_of_a_recipe():
    with pytest.raises(ValueError, match=r"text in a recipe must be UTF-8, got .* at 'data.path'"):
        flat(module.replace(digits, data=module.replace(digits.data, path="caf\udce9")))


def test_a_class_folder_without_permission_is_named(tmp_path, monkeypatch):
    make_photos(tmp_path)
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("dog"):  # root would be allowed to
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert refusal(tmp_path).endswith("dog' is not: Permission denied")
    with pytest.raises(ValueError, match="dog' is not: Permission denied"):
        Images(source=ImageFolders(path=tmp_path), size=8, batch_size=2).listing()


def test_a_path_that_is_too_long_is_shortened_in_the_sentence(tmp_path):
    sentence = refusal(tmp_path / "/".join(["deep"] * 1000))
    assert "images must lie in a folder, but '" in sentence
    assert "..." in sentence


@pytest.mark.parametrize(("free", "expected"), [(10**12, 4), (30_000, 2), (10, 0)])
def test_processes_are_as_many_as_shared_memory_has_room_for(
    tmp_path, monkeypatch, capsys, free, expected
):
    monkeypatch.setattr(module.fastai_defaults, "cpus", 4)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))
    images = Images(source=ImageFolders(path=tmp_path), size=32, batch_size=1, cache="off")
    assert images._workers() == expected  # each keeps two batches of 32 * 32 * 3 bytes, and spare
    noted = f"/dev/shm has {free / 1e6:,.1f} MB free: {expected} of 4 processes decode images\n"
    assert capsys.readouterr().err == (noted if expected < 4 else "")


def test_shared_memory_that_runs_full_in_training_is_one_sentence():
    error = "unable to write to file </torch_12_34>: No space left on device (28)"
    words = r"/dev/shm is full: .* --shm-size"
    with pytest.raises(ValueError, match=words), memory.memory_in_words(None):
        raise RuntimeError(error)


def test_a_tree_of_a_thousand_folders_is_reported_as_far_as_it_is_looked_into(tmp_path):
    place, here = tmp_path / "runs", os.getcwd()
    place.mkdir()
    try:
        os.chdir(place)
        for _ in range(1000):
            os.mkdir("deep")
            os.chdir("deep")
        warned = []
        assert read_runs(place, warned.append) == []
        assert warned == [f"{str(place)!r}: runs below {DEEPEST} folders are not looked for"]
    finally:  # what pytest could not remove
        for _ in range(1000):
            os.chdir("..")
            os.rmdir("deep")
        os.chdir(here)
