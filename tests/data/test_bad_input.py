"""What a user can get wrong: one sentence that names the place, or put right without a word."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcv.data import ImageFolders, Sample, cifar10, mnist
from fastcv.data.check import check_images, readable, without
from fastcv.data.decoding import Decoding, read_image

NOISE = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray = NOISE, **settings: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **settings)
    return path


def folders(root: Path, *classes: str, images: int = 3) -> Path:
    for label in classes:
        for number in range(images):
            save(root / label / f"{number}.png")
    return root


def truncated(path: Path, share: float = 0.5) -> Path:
    content = save(path, np.tile(NOISE, (8, 8, 1))).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def sentence(source, *args, **settings) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (its callers look at the sentence)
        source(*args, **settings)
    said = str(caught.value)
    assert "\n" not in said
    return said


# Folders


def test_missing_folder_is_named(tmp_path):
    missing = tmp_path / "nowhere"
    for source in (ImageFolders(), cifar10, mnist):
        assert f"'{missing}'" in sentence(source, missing)


def test_file_in_place_of_a_folder_is_named(tmp_path):
    path = save(tmp_path / "image.png")
    assert f"'{path}'" in sentence(ImageFolders(), path)
    assert f"'{path}' is a file" in sentence(cifar10, path)


def test_no_path_at_all_says_how_to_give_one():
    assert "--data PATH" in sentence(ImageFolders())


def test_folder_without_anything_holds_no_images(tmp_path):
    assert "no images" in sentence(ImageFolders(), tmp_path)


def test_folder_of_loose_images_asks_for_class_folders(tmp_path):
    save(tmp_path / "a.png")
    assert "no class folders, only images" in sentence(ImageFolders(), tmp_path)


def test_class_folders_without_images_are_named(tmp_path):
    folders(tmp_path, "cat", "dog")
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "notes.txt").write_text("none yet")
    assert f"none in '{tmp_path / 'owl'}'" in sentence(ImageFolders(), tmp_path)


def test_empty_class_in_a_split_is_named(tmp_path):
    folders(tmp_path / "train", "cat", "dog")
    folders(tmp_path / "valid", "cat")
    (tmp_path / "valid" / "dog").mkdir()
    assert f"none in '{tmp_path / 'valid' / 'dog'}'" in sentence(ImageFolders(), tmp_path)


@pytest.mark.parametrize(("part", "word"), [("valid", "validation"), ("test", "test")])
def test_class_outside_of_training_is_named(tmp_path, part, word):
    folders(tmp_path / "train", "cat", "dog")
    folders(tmp_path / part, "cat", "owl")
    said = sentence(ImageFolders(), tmp_path)
    assert f"class 'owl' has some for {word} only" in said


def test_folder_of_folders_of_folders_is_refused(tmp_path):
    folders(tmp_path / "animals", "cat", "dog")
    folders(tmp_path / "plants", "oak", "elm")
    said = sentence(ImageFolders(), tmp_path)
    assert f"'{tmp_path / 'animals'}' holds the folder 'cat'" in said
    deeper = folders(tmp_path / "sets" / "train" / "animals", "cat").parent.parent
    assert f"'{deeper / 'train' / 'animals'}'" in sentence(ImageFolders(), deeper)


def test_flat_split_folders_are_not_taken_for_classes(tmp_path):
    folders(tmp_path, "train", "test")
    assert "one folder of images per class" in sentence(ImageFolders(), tmp_path)


def test_two_folders_for_one_split_are_named(tmp_path):
    folders(tmp_path / "train", "cat", "dog")
    folders(tmp_path / "val", "cat")
    folders(tmp_path / "validation", "cat")
    said = sentence(ImageFolders(), tmp_path)
    assert "'val' and 'validation'" in said


def test_one_image_only_is_refused(tmp_path):
    folders(tmp_path, "cat", images=1)
    assert "one image only" in sentence(ImageFolders(), tmp_path)


def test_one_class_only_is_refused(tmp_path):
    folders(tmp_path, "cat")
    assert "at least two classes, got one ('cat')" in sentence(ImageFolders(), tmp_path)


def test_one_image_a_class_cannot_be_split(tmp_path):
    folders(tmp_path, "cat", "dog", images=1)
    assert "at least two images" in sentence(ImageFolders(), tmp_path)


# Unreadable images


@pytest.fixture(params=["empty.png", "text.jpg", "half.png", "half.jpg", "late.jpg", "half.gif"])
def bad(request, tmp_path) -> Path:
    path = tmp_path / "data" / "cat" / request.param
    path.parent.mkdir(parents=True)
    match request.param.split(".")[0]:
        case "empty":
            path.touch()
        case "text":
            path.write_text("<html>not found</html>")
        case "half":
            truncated(path)
        case "late":
            truncated(path, 0.97)
    return path


def test_unreadable_image_is_named(bad):
    said = sentence(read_image, bad)
    assert said.startswith(f"image '{bad}' cannot be read: ")
    assert ("0 bytes" in said) == (bad.name == "empty.png")


def test_unreadable_image_is_found_among_good_ones(bad):
    good = Sample(save(bad.with_name("good.png")), "cat")
    found = check_images([good, Sample(bad, "cat"), Sample(NOISE, "cat")])
    assert [path for path, _ in found] == [bad]
    assert str(bad) in found[0][1]


def test_readable_drops_and_counts(bad):
    root = folders(bad.parent.parent, "cat", "dog")
    held = ImageFolders(path=root, valid=0)
    assert bad in {sample.image for sample in held().train}
    samples = readable(held())
    assert samples.skipped == 1
    assert len(samples.train) == 6
    assert bad not in {sample.image for sample in samples.train}


def test_readable_counts_in_every_split_of_a_named_set(tmp_path):
    for part in ("train", "test"):
        folders(tmp_path / part, "cat", "dog")
        truncated(tmp_path / part / "cat" / "x.png")
    samples = readable(cifar10(tmp_path))
    assert (samples.skipped, len(samples.train), len(samples.test)) == (2, 6, 6)
    assert cifar10(tmp_path).skipped == 0


@pytest.mark.parametrize("target", ["nowhere.png", "x.png"])
def test_readable_drops_links_that_lead_nowhere(tmp_path, target):
    folders(tmp_path, "cat", "dog")
    link = tmp_path / "cat" / "x.png"
    link.symlink_to(target)
    held = ImageFolders(path=tmp_path, valid=0)
    assert readable(held()).skipped == 1
    assert f"image '{link}' cannot be read: " in sentence(read_image, link)
    assert link in {sample.image for sample in held().train}


def test_image_that_would_become_huge_is_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    folders(tmp_path, "cat", "dog")
    strip = save(tmp_path / "cat" / "x.png", NOISE[:1].repeat(9, axis=1))  # 1 x 108 pixels
    said = sentence(Decoding(side=2, channels=3), strip)
    assert said.startswith(f"image '{strip}' must have at most 400 pixels")
    samples = ImageFolders(path=tmp_path, valid=0)()
    assert readable(samples, side=1).skipped == 0
    assert readable(samples, side=2).skipped == 1


def test_readable_refuses_to_lose_a_class(tmp_path):
    folders(tmp_path, "cat", "dog")
    truncated(tmp_path / "owl" / "x.png")
    assert "class 'owl'" in sentence(readable, ImageFolders(valid=0)(tmp_path))


def test_without_leaves_good_data_alone(tmp_path):
    samples = ImageFolders()(folders(tmp_path, "cat", "dog"))
    assert without(samples, []) is samples


def test_missing_file_is_named(tmp_path):
    assert "no such file" in sentence(read_image, tmp_path / "gone.png")


# Unusual images


def pixels(path: Path, channels: int) -> np.ndarray:
    image = read_image(path, channels)
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    return np.asarray(image)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp"])
def test_read_image_gives_lossless_files_back(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert (pixels(path, 3) == NOISE).all()


def test_read_image_gives_a_smooth_jpeg_back(tmp_path):
    ramp = np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (1, 64, 3))
    assert np.abs(pixels(save(tmp_path / "a.jpg", ramp), 3).astype(int) - ramp).max() <= 8


def test_read_image_grayscale_becomes_rgb_with_equal_channels(tmp_path):
    gray = NOISE[..., 0]
    path = save(tmp_path / "gray.png", gray)
    assert (pixels(path, 3) == gray[..., None]).all()
    assert (pixels(path, 1) == gray).all()


def test_read_image_rgb_becomes_luma(tmp_path):
    luma = NOISE @ np.array([0.299, 0.587, 0.114])
    assert np.abs(pixels(save(tmp_path / "a.png"), 1) - luma).max() < 1


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_read_image_scales_sixteen_bits(tmp_path, suffix):
    deep = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
    path = save(tmp_path / f"deep.{suffix}", deep)
    expected = np.rint(deep / 257)
    assert (pixels(path, 1) == expected).all()
    assert (pixels(path, 3) == expected[..., None]).all()


def test_read_image_scales_big_endian_sixteen_bits(tmp_path):
    deep = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
    path = tmp_path / "deep.tif"
    image = Image.frombytes("I;16B", (16, 16), deep.astype(">u2").tobytes())
    image.save(path)
    with Image.open(path) as reopened:
        assert reopened.mode == "I;16B"
    assert (pixels(path, 1) == np.rint(deep / 257)).all()


@pytest.mark.parametrize(("dtype", "word"), [("int32", "32-bit"), ("float32", "floating-point")])
def test_read_image_refuses_thirty_two_bits(tmp_path, dtype, word):
    path = save(tmp_path / "deep.tif", np.full((4, 4), 1_000_000, dtype))
    said = sentence(read_image, path)
    assert str(path) in said
    assert word in said


def test_read_image_lays_transparent_pixels_on_white(tmp_path):
    alpha = np.zeros((16, 12, 1), np.uint8)
    alpha[:8] = 255
    path = save(tmp_path / "a.png", np.concatenate([NOISE, alpha], axis=2))
    got = pixels(path, 3)
    assert (got[:8] == NOISE[:8]).all()
    assert (got[8:] == 255).all()
    assert (pixels(path, 1)[8:] == 255).all()


def test_read_image_mixes_half_transparent_pixels(tmp_path):
    color = np.full((4, 4, 4), (200, 100, 0, 128), np.uint8)
    expected = np.array([200, 100, 0]) * 128 / 255 + 255 * 127 / 255
    got = pixels(save(tmp_path / "a.png", color), 3)
    assert np.abs(got - expected).max() <= 1


def test_read_image_gray_with_alpha(tmp_path):
    two = np.stack([NOISE[..., 0], np.full((16, 12), 255, np.uint8)], axis=2)
    path = tmp_path / "la.png"
    Image.fromarray(two).save(path)
    with Image.open(path) as reopened:
        assert reopened.mode == "LA"
    assert (pixels(path, 3) == NOISE[..., :1]).all()


@pytest.mark.parametrize("transparency", [None, 3, bytes([255, 255, 255, 0])])
def test_read_image_palette_with_and_without_transparency(tmp_path, transparency):
    image = Image.fromarray((np.arange(16, dtype=np.uint8) % 4).reshape(4, 4)).convert("P")
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    image.putpalette(colors.tobytes())
    path = tmp_path / "p.png"
    image.save(path, **({} if transparency is None else {"transparency": transparency}))
    with Image.open(path) as reopened:
        assert reopened.mode == "P"
    expected = colors.copy()
    if transparency is not None:
        expected[3] = 255
    assert (pixels(path, 3).reshape(-1, 4, 3) == expected).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_read_image_honors_a_transparent_color(tmp_path, mode):
    image = Image.new(mode, (4, 4), 0)
    path = tmp_path / "t.png"
    image.save(path, transparency=0 if mode == "L" else (0, 0, 0))
    assert (pixels(path, 3) == 255).all()
    assert (pixels(path, 1) == 255).all()


def test_read_image_converts_cmyk_and_bilevel(tmp_path):
    cmyk = tmp_path / "c.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(cmyk, quality=100)
    assert np.abs(pixels(cmyk, 3).astype(int) - (255, 0, 0)).max() <= 3
    bits = tmp_path / "b.png"
    Image.fromarray(np.eye(4, dtype=bool)).save(bits)
    assert (pixels(bits, 1) == np.eye(4) * 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_read_image_converts_lab(tmp_path, channels):
    path = tmp_path / "lab.tif"
    Image.new("LAB", (8, 8), (255, 128, 128)).save(path)
    assert (pixels(path, channels) >= 250).all()


def test_read_image_takes_arrays():
    assert (np.asarray(read_image(NOISE, 3)) == NOISE).all()
    assert (np.asarray(read_image(NOISE[..., 0], 3)) == NOISE[..., :1]).all()
    assert read_image(NOISE, 1).mode == "L"
    assert (np.asarray(read_image(NOISE[..., :1], 1)) == NOISE[..., 0]).all()
    assert (np.asarray(read_image(NOISE / np.float32(255), 3)) == NOISE).all()


def test_read_image_refuses_other_arrays_and_channels():
    assert "float32 from 0 to 255" in sentence(read_image, NOISE.astype(np.float32))
    assert "uint8" in sentence(read_image, np.zeros((4, 4, 5), np.uint8))
    assert "uint8" in sentence(read_image, NOISE[None])
    assert "channels must be" in sentence(read_image, NOISE, 4)


def test_read_image_leaves_no_file_open(tmp_path):
    path = save(tmp_path / "a.png")
    image = read_image(path)
    path.unlink()
    buffer = io.BytesIO()
    image.save(buffer, "png")
    assert (np.asarray(Image.open(buffer)) == NOISE).all()
