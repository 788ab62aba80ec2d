"""`fastcv cache` lists what the image cache has written, and removes that alone."""

import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastcv.cli import app
from fastcv.data.cache import cached
from fastcv.data.cache_files import cache, find
from fastcv.data.decoding import Decoding


@pytest.fixture
def sets(tmp_path):
    """Three data sets, the last one level deeper, with caches of 3, 2 and 1 images."""
    for count, name in ((3, "birds"), (2, "cats"), (1, "more/dogs")):
        root = tmp_path / name
        root.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (9, 9), "red").save(root / f"{number}.png")
        cached(sorted(root.glob("*.png")), Decoding(side=5 + count, channels=3), root)
    return tmp_path


def run(*words):
    result = CliRunner().invoke(app, ["cache", *map(str, words)])
    return result.exit_code, result.output


def test_files_are_listed_with_what_they_hold(sets, monkeypatch):
    old, *_ = (sets / "birds" / ".fastcv").iterdir()
    os.utime(old, (0, 86_400 * 365))
    code, listed = run(sets)
    assert code == 0
    header, *rows, total = listed.splitlines()
    assert header.split() == ["folder", "size", "images", "on", "disk", "last", "use"]
    assert [row.split()[:4] for row in rows] == [
        [str(sets / "birds" / ".fastcv"), "8", "px", "3"],
        [str(sets / "cats" / ".fastcv"), "7", "px", "2"],
        [str(sets / "more" / "dogs" / ".fastcv"), "6", "px", "1"],
    ]
    assert rows[0].split()[-2] in ("1970-12-31", "1971-01-01", "1971-01-02")
    assert total.startswith("3 files, 2 kB")
    monkeypatch.setenv("FASTCV_DATA", str(sets))
    assert run()[1] == listed


def test_size_is_that_of_the_files(sets):
    for each in find([sets]):
        held = each.images * each.side**2 * 3
        assert held < each.size < held + 200
        assert each.size == each.path.stat().st_size


def test_clear_removes_files_and_folders_of_the_cache_alone(sets):
    (sets / "cats" / ".fastcv" / "notes.txt").write_text("mine")
    np.save(sets / "cats" / ".fastcv" / "mine.npy", np.zeros(3))
    code, said = run(sets, "--clear")
    assert (code, said) == (0, "removed 3 files, 2 kB\n")
    assert not (sets / "birds" / ".fastcv").exists()
    assert sorted(path.name for path in (sets / "cats" / ".fastcv").iterdir()) == [
        "mine.npy",
        "notes.txt",
    ]
    assert len(list(sets.glob("**/*.png"))) == 6
    assert run(sets)[1].startswith("no image cache found (")


def test_one_data_set_may_be_named(sets):
    for folder in (sets / "cats", sets / "cats" / ".fastcv"):
        assert [each.images for each in find([folder])] == [2]


def test_damaged_file_is_listed_and_removed(sets):
    (file,) = (sets / "cats" / ".fastcv").iterdir()
    file.write_bytes(b"")
    assert "damaged" in run(sets)[1]
    run(sets, "--clear")
    assert not file.exists()


def test_no_folder_is_said(tmp_path):
    with pytest.raises(ValueError, match="PATH must be a folder"):
        cache(tmp_path / "nowhere")
