import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastcv import cli
from fastcv.data import digits
from fastcv.experiment.directory import Run
from fastcv.experiment.export import export
from fastcv.experiment.trained import trained_model

ROOT = Path(__file__).parent.parent.parent
OLDER = ROOT / "tests" / "older" / "finished"


def pixels(samples):
    """The pixels of some samples, to find images that are in two sets."""
    images = (each.image for each in samples)
    return {np.asarray(i if isinstance(i, np.ndarray) else Image.open(i)).tobytes() for i in images}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run that was exported and quantized, and the lines that were printed."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="needs the extra onnx")
    run = shutil.copytree(OLDER, tmp_path_factory.mktemp("runs") / "digits")
    lines = []
    assert export(run, int8=True, write=lines.append) == run / "export" / "model.onnx"
    return run, lines


@pytest.fixture
def photos(tmp_path):
    """Digits as files, in folders of their classes and one of another name."""
    for place, sample in enumerate(digits().train[:40]):
        folder = tmp_path / "photos" / (sample.label if sample.label != "9" else "nine")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.image).save(folder / f"{place}.png")
    return tmp_path / "photos"


def test_a_run_is_exported_and_measured_on_its_own_images(exported):
    run, lines = exported
    measured = json.loads((run / "export" / "export.json").read_text(encoding="utf-8"))
    assert set(measured) == {"model.onnx", "model.int8.onnx"}
    whole, small = measured["model.onnx"], measured["model.int8.onnx"]
    assert whole["images"] == small["calibration_images"] == 256
    assert whole["largest_difference"] < 1e-5
    assert whole["equal_classes"] == 1
    assert (small["images"], small["part"]) == (359, "validation")
    assert small["calibration_part"] == "training"
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert small["accuracy_before"] == pytest.approx(summary["valid_accuracy"], abs=1 / 359)
    assert small["accuracy_after"] == pytest.approx(small["accuracy_before"], abs=5 / 359)
    for name, each in measured.items():
        assert each["bytes"] == (run / "export" / name).stat().st_size
    assert small["bytes"] < 0.5 * whole["bytes"]
    assert "on 256 images a probability differs from torch's by at most" in lines[0]
    assert f"{small['accuracy_after']:.2%} after quantization" in lines[1]
    assert lines[1].endswith(", calibrated on 256 training images")
    assert lines[2] == str(run / "MODEL.md")
    card = (run / "MODEL.md").read_text(encoding="utf-8")
    assert "onnxruntime.InferenceSession" in card
    assert f"on 359 validation images is {small['accuracy_after']:.2%} instead of" in card


@pytest.mark.parametrize("page", ["docs", "card"])
def test_the_onnxruntime_snippet_runs_without_fastcv_and_torch(exported, page, tmp_path):
    run, _ = exported
    folder = shutil.copytree(run / "export", tmp_path / "export")
    text = (ROOT / "docs/how-to/export.md" if page == "docs" else run / "MODEL.md").read_text(
        "utf-8"
    )
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (snippet,) = (block for block in blocks if "onnxruntime" in block)
    sample = digits().train[300]
    Image.fromarray(sample.image).save(folder / snippet.split("pixels(")[1].split('"')[1])
    check = "\nimport sys\nassert not {'torch', 'fastcv'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", snippet + check],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[0] == sample.label


def test_a_folder_of_images_serves_in_place_of_the_runs_data(photos, tmp_path):
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="needs the extra onnx")
    run = shutil.copytree(OLDER, tmp_path / "run")
    lines = []
    export(run, int8=True, images=photos, out=tmp_path / "out", write=lines.append)
    assert "on 40 images" in lines[0]
    measured = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    nines = len(list((photos / "nine").iterdir()))
    assert nines > 0
    small = measured["model.int8.onnx"]
    assert (small["images"], small["part"]) == ((41 - nines) // 2, "labeled")
    assert small["images"] + small["calibration_images"] == 40
    assert small["accuracy_before"] > 0.9
    assert not (run / "export").exists()


def test_what_was_measured_of_other_formats_stays(tmp_path, photos):
    run = shutil.copytree(OLDER, tmp_path / "run")
    (run / "export").mkdir()
    (run / "export" / "export.json").write_text('{"model.onnx": {"images": 1}}', encoding="utf-8")
    export(run, to="pt2", images=photos, write=lambda line: None)
    measured = json.loads((run / "export" / "export.json").read_text(encoding="utf-8"))
    assert list(measured) == ["model.onnx", "model.pt2"]
    assert measured["model.onnx"] == {"images": 1}


def command(*arguments):
    result = CliRunner().invoke(cli.app, ["export", *map(str, arguments)])
    assert isinstance(result.exception, ValueError), result.output
    return str(result.exception)


def test_mistakes_are_one_sentence_before_anything_is_written(tmp_path, photos):
    run = shutil.copytree(OLDER, tmp_path / "run")
    assert "got --int8 with --to pt2" in command(run, "--to", "pt2", "--int8")
    assert "to must be one of onnx, pt2, got 'tflite'" in command(run, "--to", "tflite")
    assert "must come with model.json" in command(tmp_path, "--to", "pt2")
    (tmp_path / "empty").mkdir()
    said = command(run, "--to", "pt2", "--images", tmp_path / "empty")
    assert "must be a folder of images" in said
    (run / "recipe.json").unlink()
    bare = command(run, "--to", "pt2")
    assert "recipe.json" in bare
    assert not (run / "export").exists()


def test_a_folder_without_a_recipe_needs_images(tmp_path, photos):
    run = shutil.copytree(OLDER, tmp_path / "run")
    trained_model(Run(run)).write(run)
    for name in ("recipe.json", "summary.json", "environment.json", "classes.json"):
        (run / name).unlink()
    assert "give --images FOLDER" in command(run, "--to", "pt2")
    export(run, to="pt2", images=photos, write=lambda line: None)
    assert (run / "export" / "model.pt2").is_file()
    assert not (run / "MODEL.md").exists()


def test_int8_needs_labels(tmp_path, photos, monkeypatch):
    pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    run = shutil.copytree(OLDER, tmp_path / "run")
    said = command(run, "--int8", "--images", photos / "nine")
    assert "two images or more in folders named after their classes" in said
    assert not (run / "export").exists()


def test_calibration_never_sees_the_images_that_the_accuracy_is_measured_on(photos):
    import fastcv
    from fastcv.experiment import export as of

    class Held:
        path = OLDER
        started = {"smoke": True}  # noqa: RUF012
        recipe = fastcv.get_recipe("mnist_cnn")

    found = of._own(Held)  # it holds images out to validate
    assert found.part == "validation"
    assert not pixels(found.labeled) & pixels(found.calibration)
    Held.recipe = fastcv.replace(Held.recipe, data=fastcv.replace(Held.recipe.data, holdout=0))
    found = of._own(Held)  # the test images validate
    assert found.part == "test"
    assert not pixels(found.labeled) & pixels(found.calibration)
    assert len(found.all) == len(found.labeled) + len(found.calibration)
    found = of._in_folder(photos, trained_model(Run(OLDER)))
    assert not pixels(found.labeled) & pixels(found.calibration)
    assert len(found.all) == len(found.labeled) + len(found.calibration) == 40
