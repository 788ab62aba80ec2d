"""What is in a folder: counts, faults, equal and similar images, on made photos of known kinds."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import fastcv
from fastcv.data import ImageFolders, inspection
from fastcv.data.inspection import inspect, printable
from fastcv.data.samples import Sample, Samples


def photo(seed, size=(160, 120)):
    """A smooth made photo: pictures of different seeds look nothing alike."""
    random = np.random.default_rng(seed)
    blocks = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return blocks.resize(size, Image.Resampling.BICUBIC)


def crop(picture, share):
    left, top = round(picture.width * share), round(picture.height * share)
    return picture.crop((left, top, picture.width - left, picture.height - top))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Train and test of cats and dogs, with one of everything that can be wrong."""
    root = tmp_path_factory.mktemp("data") / "pets"
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (root / place).mkdir(parents=True)
    for number in range(6):
        photo(number).save(root / f"train/cat/{number}.jpg", quality=90)
        photo(100 + number).save(root / f"train/dog/{number}.png")
    photo(200).save(root / "test/cat/0.png")
    photo(201).save(root / "test/dog/0.png")
    # Copies of train/cat/copied.png in all ways that count as similar, and equal ones elsewhere.
    copied = photo(300, (320, 240))
    copied.save(root / "train/cat/copied.png")
    copied.save(root / "train/cat/jpeg.jpg", quality=30)
    copied.resize((160, 120)).save(root / "train/cat/half.webp")
    ImageEnhance.Brightness(copied).enhance(1.2).save(root / "train/cat/bright.png")
    crop(copied, 0.02).save(root / "train/cat/crop.png")
    copied.convert("L").save(root / "test/cat/gray.png")
    photo(400).save(root / "train/cat/equal.png")
    photo(400).save(root / "train/dog/equal.bmp")
    photo(400).save(root / "test/dog/equal.tif")
    # Stored on its side, and upright.
    exif = Image.Exif()
    exif[0x0112] = 6
    on_its_side = photo(500).transpose(Image.Transpose.ROTATE_90)
    on_its_side.save(root / "train/dog/turned.jpg", exif=exif, quality=90)
    photo(500).save(root / "train/dog/upright.png")
    Image.new("RGB", (100, 100), (9, 90, 200)).save(root / "train/dog/blue.png")
    photo(600, (300, 60)).save(root / "train/dog/long.png")
    photo(700, (24, 20)).save(root / "train/dog/tiny.png")
    photo(701).convert("CMYK").save(root / "train/dog/cmyk.jpg")
    photo(702).convert("P").save(root / "train/dog/palette.gif")
    deep = np.asarray(photo(703).convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(root / "train/dog/deep.png")
    (root / "train/dog/notes.txt").write_text("notes")
    return root


@pytest.fixture(scope="module")
def found(folder):
    return inspect(folder)


def names(files):
    return {file.path for file in files}


def test_counts_are_those_of_the_folder(folder, found):
    on_disk = {
        label: {
            split: len([p for p in (folder / split / label).iterdir() if p.suffix != ".txt"])
            for split in ("train", "test")
        }
        for label in ("cat", "dog")
    }
    assert found.counts == on_disk
    assert found.splits == ("train", "test")
    assert found.classes == ("cat", "dog")
    train = [each["train"] for each in on_disk.values()]
    assert found.imbalance("train") == max(train) / min(train)
    images = [p for p in folder.rglob("*.*") if p.suffix != ".txt"]
    assert found.size == sum(path.stat().st_size for path in images)
    assert found.others == {".txt": 1}
    assert (found.obstacles, found.unreadable) == ((), ())


def test_formats_modes_and_oddities_are_named(found):
    assert found.formats["GIF"] == found.formats["BMP"] == found.formats["WEBP"] == 1
    modes = ("CMYK", "palette", "16-bit gray", "gray")
    assert {mode: found.modes[mode] for mode in modes} == dict.fromkeys(modes, 1)
    assert sum(found.modes.values()) == len(found.files)
    assert names(found.turned) == {"train/dog/turned.jpg"}
    assert names(found.long) == {"train/dog/long.png"}
    assert names(found.tiny) == {"train/dog/tiny.png"}
    assert names(found.one_color) == {"train/dog/blue.png"}


def test_equal_images_are_found_whatever_their_format(found):
    (copies,) = found.equal
    assert names(copies.files) == {"train/cat/equal.png", "train/dog/equal.bmp",
                                   "test/dog/equal.tif"}  # fmt: skip
    assert copies.labels == ("cat", "dog")
    assert copies.splits == ("train", "test")


def test_similar_images_are_found_and_no_others(found):
    copies, turned = sorted(found.alike, key=lambda each: -len(each.files))
    ways = ("copied.png", "jpeg.jpg", "half.webp", "bright.png", "crop.png")
    assert names(copies.files) == {f"train/cat/{way}" for way in ways} | {"test/cat/gray.png"}
    assert (copies.labels, copies.splits) == (("cat",), ("train", "test"))
    assert names(turned.files) == {"train/dog/turned.jpg", "train/dog/upright.png"}
    assert found.alike_complete


def test_it_is_written_as_json(found):
    read = json.loads(json.dumps(found.as_json()))
    assert read["counts"] == found.counts
    assert len(read["equal"][0]) == 3
    assert read["files"][0]["path"] == "train/cat/0.jpg"
    assert read["turned"] == ["train/dog/turned.jpg"]


def deep_png(path):
    """Write two pixels of 16-bit colors, which Pillow reads but does not write."""

    def chunk(kind, content):
        return struct.pack(">I4s", len(content), kind) + content + struct.pack(
            ">I", zlib.crc32(kind + content)
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + bytes(range(12)))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_sixteen_bit_colors_are_named_though_pillow_hides_them(tmp_path):
    (tmp_path / "a").mkdir()
    deep_png(tmp_path / "a" / "deep.png")
    photo(1).save(tmp_path / "a" / "plain.png")
    assert inspect(tmp_path).modes == {"16-bit RGB": 1, "RGB": 1}


def test_listed_samples_are_inspected_too(folder, found):
    samples = ImageFolders(valid=0)(folder)
    again = fastcv.data.inspect(samples)
    assert again.counts == found.counts
    assert [names(each.files) for each in again.alike] == [names(e.files) for e in found.alike]
    with pytest.raises(ValueError, match="must be files"):
        inspect(fastcv.digits())


def test_images_of_several_labels_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    several = Samples(
        [Sample(tmp_path / "a.png", ("big", "even"))], [], [], ("big", "even"), tmp_path
    )
    with pytest.raises(ValueError, match="must have one class each, these have several labels"):
        inspect(several)


def test_the_lists_of_the_birds_are_followed(tmp_path):
    for label in ("001.Wren", "002.Owl"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(2):
            photo(number + ord(label[2])).save(tmp_path / "images" / label / f"{number}.jpg")
    (tmp_path / "lists").mkdir()
    for part, number in (("train", 0), ("test", 1)):
        lines = [f"{label}/{number}.jpg\n" for label in ("001.Wren", "002.Owl")]
        (tmp_path / "lists" / f"{part}.txt").write_text("".join(lines))
    found = inspect(tmp_path)
    assert found.counts == {label: {"train": 1, "test": 1} for label in ("001.Wren", "002.Owl")}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_cannot_be_read_is_named_and_does_not_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    root = tmp_path / "bad"
    (root / "cat").mkdir(parents=True)
    (root / "dog").mkdir()
    photo(1).save(root / "cat" / "good.png")
    photo(2).save(root / "dog" / "good.png")
    photo(3, (300, 300)).save(root / "cat" / "bomb.png")
    os.mkfifo(root / "cat" / "pipe.jpg")
    (root / "cat" / "loop.jpg").symlink_to("loop.jpg")
    (root / "cat" / "empty.jpg").touch()
    cut = (root / "cat" / "good.png").read_bytes()
    (root / "cat" / "cut.png").write_bytes(cut[: len(cut) // 2])
    with open(os.fsencode(root) + b"/cat/\xff\x1b.jpg", "wb") as file:
        file.write(b"text")
    faults = {printable(file.path): file.fault for file in inspect(root).unreadable}
    assert set(faults) == {
        "cat/bomb.png", "cat/pipe.jpg", "cat/loop.jpg", "cat/empty.jpg", "cat/cut.png",
        r"cat/\udcff\x1b.jpg",
    }  # fmt: skip
    assert "decompression bomb" in faults["cat/bomb.png"]
    assert faults["cat/pipe.jpg"].startswith("it is a pipe")
    assert faults["cat/empty.jpg"] == "it is empty (0 bytes)"
    assert "cut.png" not in faults["cat/cut.png"]  # the path stands before it


def test_folders_that_training_refuses_are_read_and_said(tmp_path, monkeypatch):
    for place in ("animals/cat", "animals/dog", "plants"):
        (tmp_path / place).mkdir(parents=True)
    for number, place in enumerate(("animals/cat", "animals/dog", "plants", ".")):
        photo(number).save(tmp_path / place / "0.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "closed").mkdir()
    entries = inspection.entries

    def guarded(folder):
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return entries(folder)

    monkeypatch.setattr(inspection, "entries", guarded)
    found = inspect(tmp_path)
    assert found.classes == ("", "cat", "dog", "plants")
    said = " ".join(found.obstacles)
    assert "ImageFolders refuses this folder: class folders must hold images" in said
    assert "1 image in" in said
    assert f"'{tmp_path / 'closed'}' cannot be read: Permission denied" in said
    assert f"'{tmp_path / 'empty'}' holds no image" in said


def test_nothing_to_inspect_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must be images to inspect"):
        inspect(tmp_path)


def test_printable_escapes_what_is_no_text():
    assert printable("héron 鳥.jpg") == "héron 鳥.jpg"
    assert printable("a\x1b[31m\n\udcff\u202e") == r"a\x1b[31m\n\udcff\u202e"
