"""The page that explains a run: of a net that was not trained, on a folder of small pictures."""

import csv
import re
import shutil
import sys
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import fastcv
from fastcv import ImageFolders, Images, nets
from fastcv.cli import app
from fastcv.experiment import directory
from fastcv.experiment.images import RunImages
from fastcv.experiment.trained import describe, load
from fastcv.learning import FromScratch, weights
from fastcv.predict import evaluation
from fastcv.recipe import flat
from fastcv.report.explain import explain

HOSTILE = "<b onclick='x()'>&"
CLASSES = (HOSTILE, "dog", "owl")


class Page(HTMLParser):
    """What a test wants to know of a page: its tags, its images, its anchors, its text."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.images, self.links, self.ids = [], [], [], []
        self.html = file.read_text(encoding="utf-8")
        self.feed(self.html)
        bare = re.sub(r"<style>.*?</style>", "", self.html, flags=re.DOTALL)
        self.text = unescape(re.sub(r"<[^>]*>", "", bare))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        if tag == "img":
            self.images.append(values)
        if tag == "a":
            self.links.append(values["href"])
        self.ids += [values["id"]] if "id" in values else []


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for index in range(8):
            pixels = np.zeros((30 + index, 40, 3), dtype=np.uint8)
            pixels[5:20, 5:25] = random.integers(0, 256, 3)
            pixels[..., number] = 255
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def recipe(photos):
    return fastcv.replace(
        fastcv.get_recipe("digits"),
        name="photos",
        data=Images(
            source=ImageFolders(path=photos, valid=0.5),
            size=16,
            resize=18,
            batch_size=4,
            cache="off",
        ),
        model=FromScratch(net=nets.LightResNet, settings={"widths": (4, 4, 8, 8)}),
    )


def finished(recipe, out, seed):
    """A run directory with what a page is made of, without a training."""
    settings = {"device": None, "wandb": "off", "file": None}
    run = directory.create(recipe.name, flat(recipe), out, smoke=False, settings=settings)
    torch.manual_seed(seed)
    model = describe(recipe, sorted(CLASSES), precision="fp32")
    net = model.net(**model.settings)
    torch.nn.init.normal_(net.classifier.weight)
    weights.save(net, run.path / "model.safetensors")
    model.write(run.path)
    return run.path


@pytest.fixture(scope="module")
def runs(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return [finished(recipe, out / str(seed), seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def out(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    explain(runs[0], out=folder, device="cpu", write=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def page(out):
    return Page(out / "explain.html")


def test_page_needs_nothing_else(page):
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.images)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not {"script", "iframe", "object", "video"} & {tag for tag, _ in page.tags}
    assert [values["href"] for tag, values in page.tags if tag == "link"] == ["data:,"]
    written = re.sub(r"base64,[\w+/=]*", "", page.html)
    assert "//" not in written
    assert "url(" not in written
    assert "default-src 'none'" in page.html


def test_every_picture_has_an_alternative_text(page):
    assert len(page.images) > 30
    assert all(image["alt"].strip() for image in page.images)


def test_names_of_classes_and_files_are_text_and_no_markup(page):
    assert not [tag for tag, values in page.tags if tag == "b" or "onclick" in values]
    assert HOSTILE in page.text
    assert any(HOSTILE in image["alt"] for image in page.images)


def test_every_part_of_the_page_is_there_with_its_figure(page, out):
    parts = {
        "grad_cam", "top_losses", "label_errors", "confused_pairs", "reliability", "embeddings",
        "first_filters", "activations",
    }  # fmt: skip
    assert parts | {"per_class"} <= set(page.ids)
    assert {file.stem for file in out.glob("*.png")} >= parts - {"label_errors"}
    assert "side_by_side" not in page.ids


def test_numbers_and_losses_are_those_of_the_predictions(page, out, runs):
    _, found = RunImages(fastcv.Run(runs[0])).predictions(load(runs[0], device="cpu"))
    assert f"{found.accuracy:.2%}".replace("%", " %") in page.text
    with (out / "top_losses.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    worst = int(found.losses.argmax())
    assert list(rows[0]) == ["path", "true", "predicted", "confidence", "loss"]
    assert rows[0]["path"] == found.paths[worst]
    assert float(rows[0]["loss"]) == pytest.approx(found.losses[worst], abs=1e-5)
    assert [float(row["loss"]) for row in rows] == sorted(
        (float(row["loss"]) for row in rows), reverse=True
    )
    for row in rows[:16]:
        assert row["path"] in page.text


def test_kept_predictions_are_shown_and_not_computed_again(runs, photos, tmp_path):
    images = RunImages(fastcv.Run(runs[1]))
    part, found = images.predictions(load(runs[1], device="cpu"))
    assert part == "valid"
    assert sorted(found.paths) == sorted(name for name, _ in images.listing["valid"])
    certain = np.eye(3, dtype=np.float32)[found.targets]
    kept = evaluation.Predictions(
        found.paths, certain, found.targets, np.zeros(len(certain)), found.classes
    )
    evaluation.save({"valid": kept}, runs[1] / "predictions.npz")
    try:
        lines = []
        file = explain(runs[1], out=tmp_path, device="cpu", write=lines.append)
        with pytest.raises(
            ValueError, match="the split must be one that the run has, valid, got 'test'"
        ):
            explain(runs[1], out=tmp_path, part="test", device="cpu", write=lines.append)
    finally:
        (runs[1] / "predictions.npz").unlink()
    text = Page(file).text
    assert "100.00 %" in text
    assert "No image is taken for another class" in text
    assert not [line for line in lines if line.startswith("predicting")]
    with pytest.raises(ValueError, match="must be valid, test or folds, got 'train'"):
        images.predictions(load(runs[1], device="cpu"), "train")
    with pytest.raises(ValueError, match="data must still hold its images"):
        images["gone.png"]


def test_named_images_go_through_several_runs_side_by_side(runs, photos, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no picture")
    few = tmp_path / HOSTILE
    few.mkdir()
    shutil.copy(photos / HOSTILE / "0.png", few)
    arguments = [
        "explain", str(runs[0]), str(photos / "owl" / "0.png"), str(few),
        str(damaged), "--also", str(runs[1]), "--out", str(tmp_path / "out"), "--device", "cpu",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "damaged.png" in result.output
    page = Page(tmp_path / "out" / "explain.html")
    assert {"side_by_side", "grad_cam", "activations"} <= set(page.ids)
    assert "top_losses" not in page.ids
    assert (tmp_path / "out" / "side_by_side.png").is_file()
    count = 3 if runs[0].name == runs[1].name else 2  # if both were made in the same second
    for run in runs:
        name = "/".join(run.parts[-count:])
        through = [each for each in page.images if f"through {name}" in each["alt"]]
        assert len(through) == 2
        expected = load(run, device="cpu")(photos / "owl" / "0.png")
        (said,) = [each["alt"] for each in through if "owl/0.png" in each["alt"]]
        assert expected.label in said
        assert f"{100 * expected.probability:.1f} %" in said
    assert "damaged.png" not in page.text


def test_images_that_are_not_there_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match=r"must exist, '.*gone\.png' does not"):
        explain(runs[0], [tmp_path / "gone.png"], out=tmp_path, write=lambda line: None)
    with pytest.raises(ValueError, match="there must be an image to explain"):
        explain(runs[0], [tmp_path], out=tmp_path, write=lambda line: None)


def test_without_cleanlab_the_page_says_how_to_get_it(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    file = explain(runs[0], out=tmp_path, device="cpu", write=lambda line: None)
    assert "pip install 'fastcv[labels]'" in Page(file).text
