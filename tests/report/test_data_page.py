"""`fastcv data PATH`: the text, the JSON and the page, on a folder with hostile names."""

import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastcv.cli import app
from fastcv.data.inspection import inspect
from fastcv.report.data_page import MOST_BARS, findings, lines, write_page

HOSTILE = "<b onclick='x()'>&"


def noise(seed, size=(40, 30)):
    random = np.random.default_rng(seed)
    blocks = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return blocks.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "pets<i>"
    for number, place in enumerate((f"train/{HOSTILE}", "train/dog", f"test/{HOSTILE}")):
        (root / place).mkdir(parents=True)
        for index in range(3 + number):
            noise(10 * number + index).save(root / place / f"{index}.png")
    noise(0).save(root / "train/dog/copy.bmp")  # equal, under another class
    noise(1).save(root / f"test/{HOSTILE}/copy.jpg", quality=80)  # similar, in another split
    noise(99, (90, 12)).save(root / "train/dog/long.png")
    (root / "train/dog/<img src=x>.jpg").write_text("no image")
    with open(os.fsencode(root) + b"/train/dog/\xff\x1b[31m.jpg", "wb") as file:
        file.write(b"")
    return root


@pytest.fixture(scope="module")
def found(folder):
    return inspect(folder)


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.sources, self.links, self.ids = set(), [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        self.sources += [values["src"]] if "src" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.ids += [values["id"]] if "id" in values else []
        assert not any(name.startswith("on") for name in values)


def test_the_page_holds_all_it_shows_and_foreign_text_stays_text(found, tmp_path):
    html = write_page(found, tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    assert not {"b", "script", "iframe"} & page.tags
    assert page.sources
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert all(link.startswith(("#", "data:,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert {"equal", "similar", "unreadable", "long", "sheet"} <= set(page.ids)
    assert "label error: " in html
    assert "leak?: " in html
    assert r"\udcff\x1b[31m.jpg" in html.replace("<wbr>", "")
    assert (tmp_path / "sizes.png").is_file()


def test_the_text_fits_a_terminal_and_has_no_escapes(found):
    text = lines(found)
    assert max(map(len, text)) <= 80
    assert all(line.isprintable() for line in text)
    (train,) = [line.split() for line in text if line.startswith("train ")]
    assert train[1:] == ["11", "2", "3", "6", "8", "2.7"]


def test_findings_count_leaks_and_label_errors(found):
    said = " ".join(findings(found))
    assert "2 files cannot be read" in said
    assert "1 group of equal images (2 files): 1 under more than one class (label errors)." in said
    assert "1 group of similar images (2 files): 1 across train and test (leaks, " in said
    assert "1 image at least 3 times as long as wide" in said


def test_many_classes_are_folded_and_equal_ones_take_a_line(tmp_path):
    for number in range(MOST_BARS + 5):
        (tmp_path / f"{number:03}").mkdir()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number:03}" / "a.png")
    assert "Every class has 1 image." in lines(inspect(tmp_path))
    Image.new("RGB", (8, 8), "white").save(tmp_path / "003" / "b.png")
    text = lines(inspect(tmp_path))
    assert sum("█" in line for line in text) == MOST_BARS // 2
    assert any("classes between these" in line for line in text)


def test_the_command_prints_and_writes_the_page(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["data", str(folder)])
    assert done.exit_code == 0, done.exception
    assert "equal images:" in done.stdout
    assert (tmp_path / "inspection" / "pets<i>" / "data.html").is_file()
    done = CliRunner().invoke(app, ["data", str(folder), "--json", "--out", "here"])
    assert json.loads(done.stdout)["images"] == 17
    assert (tmp_path / "here" / "data.html").is_file()
    assert re.search(r"here.data\.html", done.stderr)


@pytest.mark.parametrize(("path", "out"), [("nowhere", "o"), ("{folder}", "{folder}/a_file/o")])
def test_the_command_refuses_in_a_sentence(folder, tmp_path, path, out):
    (folder / "a_file").touch()
    words = [each.format(folder=folder) for each in ("data", path, "--out", out)]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ValueError)
    assert "must" in str(done.exception)
