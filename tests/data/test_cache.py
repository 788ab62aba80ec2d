import errno
import os
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as T

from fastcv.data import cache, decoding
from fastcv.data.cache import cached
from fastcv.data.decoding import Decoding, square

DECODING = Decoding(side=8, channels=3)


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    root = tmp_path / "data"
    paths = []
    for number in range(5):
        path = root / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (10 + number, 14 - number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def _root(files):
    return files[0].parents[1]


def _kept(files):
    return sorted(path.name for path in (_root(files) / ".fastcv").glob("*"))


def _no_decoding(monkeypatch):
    def decode(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoding, "read_image", decode)


@pytest.mark.parametrize("size", [(40, 30), (30, 41), (33, 33), (16, 90), (16, 16), (5, 7)])
def test_square_equals_torchvisions_resize_and_center_crop(size):
    picture = Image.effect_noise(size, 80).convert("RGB")
    expected = T.center_crop(T.resize(picture, 16), 16)
    assert np.array_equal(np.asarray(square(picture, 16)), np.asarray(expected))


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8), (9, 8, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_given_as_an_array_are_decoded_as_those_of_a_file(shape, channels, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    decode = Decoding(side=8, channels=channels)
    assert decode(pixels).shape == (8, 8, channels)
    assert np.array_equal(decode(pixels), decode(tmp_path / "image.png"))


def test_file_names_may_be_any_bytes(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (8, 8), "red").save(path)
    assert (cached([path], DECODING, tmp_path).images == [255, 0, 0]).all()


def test_cached_images_equal_decoded_ones_bit_for_bit(files):
    pixels = cached(files, DECODING, _root(files))
    for row, path in zip(pixels.rows, files, strict=True):
        assert np.array_equal(pixels.images[row], DECODING(path))
    assert pixels.images.dtype == np.uint8
    assert not pixels.bad


def test_cached_images_are_not_decoded_a_second_time(files, monkeypatch):
    first = cached(files, DECODING, _root(files))
    _no_decoding(monkeypatch)
    again = cached(files, DECODING, _root(files))
    assert np.array_equal(first.images, again.images)
    assert len(_kept(files)) == 1


def test_cache_serves_the_same_files_in_another_order(files, monkeypatch):
    cached(files, DECODING, _root(files))
    expected = [DECODING(path) for path in reversed(files)]
    _no_decoding(monkeypatch)
    pixels = cached(files[::-1], DECODING, _root(files))
    assert np.array_equal(pixels.images[pixels.rows], expected)


def test_cache_serves_a_folder_that_was_moved(files, monkeypatch, tmp_path):
    before = cached(files, DECODING, _root(files))
    moved = tmp_path / "elsewhere"
    shutil.move(_root(files), moved)
    _no_decoding(monkeypatch)
    after = cached([moved / path.relative_to(_root(files)) for path in files], DECODING, moved)
    assert np.array_equal(before.images, after.images)


@pytest.mark.parametrize("change", ["content", "time", "name", "more"])
def test_cache_is_made_anew_when_a_file_has_changed(files, change):
    cached(files, DECODING, _root(files))
    path = files[2]
    status = path.stat()
    if change == "content":
        Image.new("RGB", (9, 9), "red").save(path)
    elif change == "time":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change == "name":
        files[2] = path.rename(path.with_name("other.png"))
    else:
        files.append(path.with_name("more.png"))
        Image.new("RGB", (9, 9), "blue").save(files[-1])
    pixels = cached(files, DECODING, _root(files))
    assert len(_kept(files)) == 2
    assert np.array_equal(pixels.images[pixels.rows], [DECODING(each) for each in files])


def test_cache_is_made_anew_when_files_of_one_size_and_time_swap_names(files):
    for number, path in enumerate(files[:2]):
        files[number] = path.with_suffix(".bmp")
        Image.new("RGB", (9, 9), ("red", "blue")[number]).save(files[number])
        os.utime(files[number], ns=(0, 0))
    cached(files, DECODING, _root(files))
    time.sleep(0.02)  # a tick of the file system's clock
    files[0].rename(files[0].with_name("other"))
    files[1].rename(files[0])
    files[0].with_name("other").rename(files[1])
    pixels = cached(files, DECODING, _root(files))
    assert pixels.images[pixels.rows[:2], 0, 0].tolist() == [[0, 0, 255], [255, 0, 0]]


def test_data_sets_of_the_same_names_and_times_share_no_cache(monkeypatch, tmp_path):
    # Nobody can set the time of a file's last change, but a clock may be coarse.
    monkeypatch.setattr("fastai.data.external.fastai_path", lambda name: tmp_path / name)
    monkeypatch.setattr(cache, "_identity", lambda path, *_: path.name)
    for color in ("red", "blue"):
        root = tmp_path / color
        root.mkdir()
        (root / ".fastcv").write_text("a file: no folder of that name can be made")
        Image.new("RGB", (8, 8), color).save(root / "image.png")
        pixels = cached([root / "image.png"], DECODING, root)
        assert np.array_equal(pixels.images[0], DECODING(root / "image.png"))


@pytest.mark.parametrize("other", [Decoding(side=9, channels=3), Decoding(side=8, channels=1)])
def test_cache_is_another_one_for_other_settings(files, other):
    cached(files, DECODING, _root(files))
    pixels = cached(files, other, _root(files))
    assert pixels.images.shape == (5, other.side, other.side, other.channels)
    assert len(_kept(files)) == 2


def test_cache_is_another_one_for_another_pillow(files, monkeypatch):
    cached(files, DECODING, _root(files))
    monkeypatch.setattr("PIL.__version__", "0.0")
    cached(files, DECODING, _root(files))
    assert len(_kept(files)) == 2


def test_cache_file_that_is_not_whole_is_made_anew(files):
    expected = cached(files, DECODING, _root(files)).images.copy()
    (path,) = (_root(files) / ".fastcv").glob("*.npy")
    path.write_bytes(path.read_bytes()[:-5])
    assert np.array_equal(cached(files, DECODING, _root(files)).images, expected)


def test_bad_image_is_named_and_nothing_is_left(files):
    files[3].write_bytes(files[3].read_bytes()[:60])
    with pytest.raises(ValueError, match=r"3\.png"):
        cached(files, DECODING, _root(files))
    assert _kept(files) == []


def test_missing_image_is_named(files):
    files[3].unlink()
    with pytest.raises(ValueError, match=r"3\.png' cannot be read: No such file"):
        cached(files, DECODING, _root(files))


def test_bad_images_are_told_where_they_may_be_skipped(files, monkeypatch):
    files[3].write_bytes(b"nothing")
    read, tried = decoding.read_image, []
    monkeypatch.setattr(decoding, "read_image", lambda *of: (tried.append(of[0]), read(*of))[1])
    for expected in (sorted(files), [files[3]]):  # decoded, then from the file
        pixels = cached(files, DECODING, _root(files), skip_bad=True)
        assert list(pixels.bad) == [3]
        assert "3.png" in pixels.bad[3]
        assert sorted(tried) == expected
        tried.clear()
    with pytest.raises(ValueError, match=r"3\.png"):
        cached(files, DECODING, _root(files))


@pytest.mark.parametrize("skip_bad", [True, False])
def test_image_that_can_be_read_again_is_decoded(files, monkeypatch, skip_bad):
    expected, real = [DECODING(each) for each in files], decoding.read_image

    def read(image, *settings):
        if image == files[3]:
            raise ValueError(f"image '{image}' cannot be read: Stale file handle")
        return real(image, *settings)

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "read_image", read)
        assert list(cached(files, DECODING, _root(files), skip_bad=True).bad) == [3]
    for _ in range(2):
        pixels = cached(files, DECODING, _root(files), skip_bad=skip_bad)
        assert not pixels.bad
        assert np.array_equal(pixels.images[pixels.rows], expected)
        _no_decoding(monkeypatch)
    assert len(_kept(files)) == 1


@pytest.mark.parametrize("target", ["nowhere.png", "link.png"])
def test_link_that_leads_nowhere_is_told_where_it_may_be_skipped(files, target):
    files.append(files[0].with_name("link.png"))
    files[-1].symlink_to(target)
    for _ in range(2):
        pixels = cached(files, DECODING, _root(files), skip_bad=True)
        assert list(pixels.bad) == [5]
    with pytest.raises(ValueError, match=r"link\.png' cannot be read: "):
        cached(files, DECODING, _root(files))
    files[-1].unlink()
    Image.new("RGB", (9, 9), "red").save(files[-1])
    assert not cached(files, DECODING, _root(files), skip_bad=True).bad


def test_cache_made_by_two_at_once_is_whole(files, monkeypatch):
    both_decode = threading.Barrier(2, timeout=20)
    real = cache._decode_into

    def decode(*arguments):
        both_decode.wait()
        faults = real(*arguments)
        both_decode.wait()
        return faults

    monkeypatch.setattr(cache, "_decode_into", decode)
    results = {}

    def make(number):
        results[number] = cached(files, DECODING, _root(files)).images

    makers = [threading.Thread(target=make, args=(number,)) for number in range(2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    order = sorted(range(5), key=lambda place: str(files[place]))
    expected = [DECODING(files[place]) for place in order]
    assert np.array_equal(results[0], expected)
    assert np.array_equal(results[1], expected)
    assert len(_kept(files)) == 1


def test_cache_goes_to_fastais_data_folder_where_the_data_cannot_be_written(
    files, monkeypatch, tmp_path
):
    monkeypatch.setattr("fastai.data.external.fastai_path", lambda name: tmp_path / name)
    (_root(files) / ".fastcv").write_text("a file: no folder of that name can be made")
    pixels = cached(files, DECODING, _root(files))
    assert len(list((tmp_path / "data" / "fastcv").glob("*.npy"))) == 1
    _no_decoding(monkeypatch)
    again = cached(files, DECODING, _root(files))
    assert np.array_equal(pixels.images, again.images)


@pytest.fixture
def fallback(monkeypatch, tmp_path):
    monkeypatch.setattr("fastai.data.external.fastai_path", lambda name: tmp_path / name)
    return tmp_path / "data" / "fastcv"


def test_cache_file_that_can_be_neither_read_nor_replaced_has_another_beside_it(files, fallback):
    cached(files, DECODING, _root(files))
    (name,) = _kept(files)
    taken = _root(files) / ".fastcv" / name
    taken.unlink()
    taken.mkdir()  # nobody can read it as a file, or put one in its place
    pixels = cached(files, DECODING, _root(files))
    assert np.array_equal(pixels.images[pixels.rows], [DECODING(each) for each in files])
    assert len(list(fallback.glob("*.npy"))) == 1
    assert _kept(files) == [name]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do anything")
@pytest.mark.parametrize(("folder", "file"), [(0o000, 0o644), (0o555, 0o000)])
def test_cache_of_another_user_is_left_alone(files, fallback, folder, file):
    cached(files, DECODING, _root(files))
    theirs = _root(files) / ".fastcv"
    for path in theirs.iterdir():
        path.chmod(file)
    theirs.chmod(folder)
    try:
        pixels = cached(files, DECODING, _root(files))
    finally:
        theirs.chmod(0o755)
    assert np.array_equal(pixels.images[pixels.rows], [DECODING(each) for each in files])
    assert len(list(fallback.glob("*.npy"))) == 1


@pytest.mark.parametrize("home", ["refused", "a file"])
def test_images_are_decoded_into_memory_where_no_folder_can_be_written(
    files, monkeypatch, tmp_path, capsys, home
):
    (tmp_path / "home").write_text("")

    def path(name):
        if home == "refused":
            raise PermissionError(errno.EACCES, "Permission denied", "/nonexistent")
        return tmp_path / "home" / name

    monkeypatch.setattr("fastai.data.external.fastai_path", path)
    (_root(files) / ".fastcv").write_text("a file: no folder of that name can be made")
    expected = [DECODING(each) for each in files]
    for told in (1, 0):
        pixels = cached(files, DECODING, _root(files))
        assert np.array_equal(pixels.images[pixels.rows], expected)
        assert capsys.readouterr().err.count("images are decoded into memory") == told
    monkeypatch.setattr(cache, "_fits_in_memory", lambda size: False)
    assert cached(files, DECODING, _root(files)) is None
    said = capsys.readouterr().err
    assert "decoded at each use, which is slower" in said
    assert f"'{_root(files) / '.fastcv'}': File exists" in said


def test_arrays_stay_in_memory(monkeypatch, tmp_path):
    monkeypatch.setattr("fastai.data.external.fastai_path", lambda name: tmp_path / name)
    arrays = [np.full((6, 6), value, np.uint8) for value in (1, 2, 3)]
    pixels = cached(arrays, Decoding(side=6, channels=1))
    assert pixels.images[..., 0].tolist() == [each.tolist() for each in arrays]
    assert not list(tmp_path.iterdir())


def test_arrays_that_take_much_memory_go_to_a_file_keyed_by_their_pixels(monkeypatch, tmp_path):
    monkeypatch.setattr("fastai.data.external.fastai_path", lambda name: tmp_path / name)
    monkeypatch.setattr(cache, "HELD_IN_MEMORY", 0)
    arrays = [np.full((6, 6), value, np.uint8) for value in (3, 1, 2)]
    gray = Decoding(side=6, channels=1)
    for _ in range(2):
        pixels = cached(arrays, gray)
        assert pixels.images[pixels.rows][:, 0, 0, 0].tolist() == [3, 1, 2]
    cached([*arrays[:2], np.full((6, 6), 9, np.uint8)], gray)
    assert len(list((tmp_path / "data" / "fastcv").glob("*.npy"))) == 2


def test_full_disk_is_no_reason_to_stop(files, fallback, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    pixels = cached(files, DECODING, _root(files))
    assert np.array_equal(pixels.images[pixels.rows], [DECODING(each) for each in files])
    assert _kept(files) == []
    assert not list(fallback.glob("*"))
    said = capsys.readouterr().err
    assert f"'{_root(files) / '.fastcv'}': 1 byte is free of 960 bytes needed; " in said


def test_disk_that_fills_up_leaves_nothing_and_another_one_is_used(files, fallback, monkeypatch):
    real, calls = os.posix_fallocate, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", full)
    pixels = cached(files, DECODING, _root(files))
    assert np.array_equal(pixels.images[pixels.rows], [DECODING(each) for each in files])
    assert _kept(files) == []
    assert len(list(fallback.glob("*.npy"))) == 1


def test_cache_is_made_where_space_cannot_be_reserved(files, monkeypatch):
    def unknown(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown, raising=False)
    cached(files, DECODING, _root(files))
    assert len(_kept(files)) == 1


def test_files_longest_not_used_are_removed(files, monkeypatch):
    def use(number):
        monkeypatch.setattr("PIL.__version__", f"0.{number}")  # another key
        cached(files, DECODING, _root(files))

    for number in range(cache.KEPT + 2):
        use(0)
        use(number)
    assert len(_kept(files)) == cache.KEPT
    _no_decoding(monkeypatch)
    use(0)
    with pytest.raises(AssertionError, match="decoded again"):
        use(1)


def test_making_a_cache_is_said_once_on_stderr(files, capsys):
    cached(files, DECODING, _root(files))
    said = capsys.readouterr()
    assert "5 images" in said.err
    assert said.out == ""
    cached(files, DECODING, _root(files))
    assert capsys.readouterr().err == ""


def test_mapped_images_cannot_change_the_file(files):
    pixels = cached(files, DECODING, _root(files))
    before = pixels.images.copy()
    pixels.images[:] = 0
    assert np.array_equal(cached(files, DECODING, _root(files)).images, before)


def _reads(monkeypatch):
    """The files that are decoded from now on."""
    read, real = [], decoding.read_image

    def recorded(image, *settings):
        if not isinstance(image, np.ndarray):
            read.append(image)
        return real(image, *settings)

    monkeypatch.setattr(decoding, "read_image", recorded)
    return read


def test_only_images_that_are_used_are_decoded(files, monkeypatch):
    files[1].write_bytes(b"no image")  # is not looked into
    expected = [DECODING(files[place]) for place in (4, 2)]
    read = _reads(monkeypatch)
    pixels = cached(files, DECODING, _root(files), used=iter([4, 2]))
    assert sorted(read) == [files[2], files[4]]
    assert np.array_equal(pixels.images[pixels.rows[[4, 2]]], expected)
    assert (pixels.rows == -1).tolist() == [True, True, False, True, False]
    assert len(pixels.images) == 2
    with pytest.raises(ValueError, match=r"1\.png' cannot be read"):
        cached(files, DECODING, _root(files), used=[0, 1])


def test_images_that_are_not_used_may_be_missing(files):
    files[1].unlink()
    assert len(cached(files, DECODING, _root(files), used=[0, 2]).images) == 2


def test_a_cache_of_all_images_serves_those_that_are_used(files, monkeypatch):
    cached(files, DECODING, _root(files))
    expected = [DECODING(files[place]) for place in (3, 0)]
    _no_decoding(monkeypatch)
    pixels = cached(files, DECODING, _root(files), used=[0, 3])
    assert np.array_equal(pixels.images[pixels.rows[[3, 0]]], expected)
    assert len(_kept(files)) == 1


def test_a_cache_with_a_bad_image_serves_those_that_use_others(files, monkeypatch):
    files[1].write_bytes(b"no image")
    cached(files, DECODING, _root(files), skip_bad=True)
    expected = DECODING(files[3])
    read = _reads(monkeypatch)
    pixels = cached(files, DECODING, _root(files), used=[3])
    assert np.array_equal(pixels.images[pixels.rows[3]], expected)
    assert read == []
    with pytest.raises(ValueError, match=r"1\.png' cannot be read"):
        cached(files, DECODING, _root(files), used=[1])


def test_only_arrays_that_are_used_are_copied():
    arrays = [np.full((6, 6), value, np.uint8) for value in (1, 2, 3)]
    pixels = cached(arrays, Decoding(side=6, channels=1), used=[2])
    assert pixels.images[:, 0, 0, 0].tolist() == [3]
    assert pixels.rows.tolist() == [-1, -1, 0]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_smaller_sizes_are_made_of_one_larger_square(files, monkeypatch, skip_bad):
    if skip_bad:
        files[1].write_bytes(b"no image")
    sizes = [Decoding(side=side, channels=3, via=9) for side in (4, 8)]
    good = [path for path in files if not (skip_bad and path == files[1])]
    expected = [[decode(path) for path in good] for decode in sizes]
    for decode, squares in zip(sizes, expected, strict=True):
        read = _reads(monkeypatch)
        pixels = cached(files, decode, _root(files), skip_bad=skip_bad)
        rows = np.delete(pixels.rows, list(pixels.bad))
        assert np.array_equal(pixels.images[rows], squares)
        assert list(pixels.bad) == [1] * skip_bad
        assert set(read) == (set(files) if decode.side == 4 else {files[1]} if skip_bad else set())
    assert [name.partition("px")[0] for name in _kept(files)] == ["4", "8", "9"]


def test_sizes_of_a_larger_square_are_made_without_a_cache_too(files, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    decode = Decoding(side=5, channels=3, via=8)
    pixels = cached(files, decode, _root(files))
    assert np.array_equal(pixels.images[pixels.rows], [decode(each) for each in files])


def test_key_names_only_settings_that_are_not_at_their_defaults():
    # So that caches made before a setting was known are still found.
    assert str(DECODING) == "Decoding(side=8, channels=3)"
    turned = Decoding(side=8, channels=3, upright=True, via=9)
    assert str(turned) == "Decoding(side=8, channels=3, upright=True, via=9)"
