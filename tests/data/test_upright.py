"""Photos as phones make them: turned by EXIF data, or HEIC."""

import sys

import numpy as np
import pytest
import torch
from photos import HEIC
from PIL import ExifTags, Image, ImageOps

from fastcv.data import ImageFolders, Images, decoding
from fastcv.data.decoding import Decoding, read_image
from fastcv.data.loader import ReadImage
from fastcv.data.sources import folders
from fastcv.predict import resize_for_export

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def turned(path, orientation, pixels=NOISE):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_as_pillow_does(tmp_path, orientation, suffix):
    path = turned(tmp_path / f"photo{suffix}", orientation)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert expected.shape == ((40, 60, 3) if orientation < 5 else (60, 40, 3))
    assert np.array_equal(read_image(path, upright=True), expected)
    with Image.open(path) as opened:
        assert np.array_equal(read_image(opened, upright=True), expected)
        assert np.array_equal(ReadImage(3, upright=True)(path), expected)
    for side in (20, 64):
        decoded = Decoding(side=side, channels=3, upright=True)(path)
        assert np.array_equal(decoded, Decoding(side=side, channels=3)(expected))
        assert np.array_equal(decoded, resize_for_export.pixels(path, side, upright=True))


def test_orientation_is_left_alone_where_it_is_not_asked_for(tmp_path):
    path = turned(tmp_path / "photo.png", 6)
    assert np.array_equal(read_image(path), NOISE)
    picture = Image.open(path)
    read_image(picture, upright=True)
    assert picture.size == (60, 40)
    assert picture.getexif()[ExifTags.Base.Orientation] == 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow warns
def test_exif_data_that_cannot_be_read_count_as_none(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "photo.png", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert np.array_equal(read_image(tmp_path / "photo.png", upright=True), NOISE)


@pytest.fixture
def photos(tmp_path):
    for number in range(8):
        path = tmp_path / "photos" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        turned(path, number + 1, np.roll(NOISE, number, 1))
    return tmp_path / "photos"


def pixels(loader):
    loader.fake_l.num_workers = 0
    return torch.cat([x for x, _ in loader.new(shuffle=False, drop_last=False)])


@pytest.mark.parametrize("settings", [{"upright": True}, {"decode_size": 30}, {}])
def test_loaders_read_alike_with_and_without_a_cache(photos, settings):
    source = ImageFolders(path=photos, valid=2)
    data = Images(source=source, size=16, resize=20, batch_size=2, **settings)
    on, again, off = (
        Images(**{**vars(data), "cache": cache})("cpu") for cache in ("cpu", "cpu", "off")
    )
    plain = Images(source=source, size=16, resize=20, batch_size=2)("cpu")
    for loaders in zip(on.loaders, again.loaders, off.loaders, plain.loaders, strict=True):
        cached, reopened, read, otherwise = map(pixels, loaders)
        assert torch.equal(cached, read)
        assert torch.equal(cached, reopened)
        assert torch.equal(cached, otherwise) == (not settings)
    assert off.valid.dataset.items == on.valid.dataset.items


def test_twice_resized_photos_are_nearly_those_resized_once():
    y, x = np.mgrid[:300, :400]
    smooth = (np.stack([x / 2, y / 2, (x + y) / 4], 2) + NOISE[:1, :1] / 9).astype(np.uint8)
    once = Decoding(side=32, channels=3)(smooth).astype(int)
    twice = Decoding(side=32, channels=3, via=96)(smooth).astype(int)
    assert 0 < np.abs(once - twice).max() <= 2


# HEIC

pytest.importorskip("pi_heif")


@pytest.mark.parametrize("name", ["photo.heic", "photo.HEIF", "photo.jpg"])
@pytest.mark.parametrize("upright", [False, True])
def test_heic_photos_are_read_and_turned_once(tmp_path, name, upright):
    (tmp_path / name).write_bytes(HEIC)
    y, x = np.mgrid[:24, :36]
    expected = np.rot90(np.stack([x * 7, y * 10, np.full_like(x, 60)], 2), 3)  # (36, 24, 3)
    found = np.asarray(read_image(tmp_path / name, upright=upright)).astype(int)
    assert found.shape == (36, 24, 3)
    assert np.abs(found - expected).mean() < 4  # of a lossy format


def test_heic_photos_are_listed_and_their_damage_is_named(tmp_path):
    for number, label in enumerate(("cat", "cat", "dog", "dog")):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{number}.heic").write_bytes(HEIC)
    data = Images(source=ImageFolders(path=tmp_path, valid=1), size=16, batch_size=2)
    names = data("cpu").names
    assert [len(part) for part in names] == [2, 2]
    every = ["cat/0.heic", "cat/1.heic", "dog/2.heic", "dog/3.heic"]
    assert sorted(name for part in names for name in part) == every
    for length in (0, 40, 300, 600, len(HEIC) - 20):
        (tmp_path / "cut.heic").write_bytes(HEIC[:length])
        with pytest.raises(ValueError, match=r"cut\.heic' cannot be read: "):
            read_image(tmp_path / "cut.heic")


def test_missing_extra_is_named(tmp_path, monkeypatch, capsys):
    decoding._register_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "photo.heic").write_bytes(HEIC)
    said = r'HEIC photos need the extra heic: pip install "fastcv\[heic\]"'
    with pytest.raises(ValueError, match=said):
        read_image(tmp_path / "cat" / "photo.heic")
    suffixes = folders.IMAGE_SUFFIXES - folders.HEIC_SUFFIXES
    monkeypatch.setattr(folders, "IMAGE_SUFFIXES", suffixes)
    with pytest.raises(ValueError, match=r'for its HEIC photos pip install "fastcv\[heic\]"'):
        ImageFolders(path=tmp_path)()
