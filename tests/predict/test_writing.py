"""Predictions of files, folders and lists of paths, as lines, CSV and JSON."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import fastcv
from fastcv.cli import app
from fastcv.predict.predictor import Predictor
from fastcv.predict.writing import as_object, paths_of, predict_files

OLDER = Path(__file__).parent.parent / "older" / "finished"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five digits, as files."""
    folder = tmp_path_factory.mktemp("photos")
    for index, pixels in enumerate(load_digits().images[:5]):
        Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def predictor():
    return fastcv.load(OLDER, device="cpu")


@pytest.fixture
def several(predictor):
    """The same net, asked for labels: the first holds for all images, the last for none."""
    thresholds = (0.0, *[0.5] * 8, 1.1)
    model = replace(predictor.model, thresholds=thresholds)
    return Predictor(model, predictor.net, predictor.device)


def rows(file):
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_table_of_several_labels_names_those_that_hold(several, photos, tmp_path):
    predict_files(several, [photos], table=tmp_path / "table.csv")
    found = rows(tmp_path / "table.csv")
    assert list(found[0]) == ["path", "labels", *(f"prob_{digit}" for digit in range(10))]
    for row, prediction in zip(found, several(photos), strict=True):
        assert row["path"] == str(prediction.path)
        assert row["labels"].split(", ") == [name for name, _ in prediction.labels]
        shares = [float(row[f"prob_{digit}"]) for digit in range(10)]
        assert shares == pytest.approx(list(prediction.probabilities), abs=1e-6)
        assert "0" in row["labels"]
        assert "9" not in row["labels"]
    assert any(len(row["labels"].split(", ")) > 1 for row in found)


def test_the_object_of_several_labels_names_those_that_hold(several, predictor, photos):
    prediction = several(photos / "3.png")
    found = as_object(prediction, 2)  # also the answer of `fastcv serve`
    assert found["labels"] == [name for name, _ in prediction.labels]
    assert {"0", "3"} <= set(found["labels"])
    assert len(found["predictions"]) == 2
    assert set(as_object(predictor(photos / "3.png"), 2)) == {"predictions"}


def test_a_table_leaves_the_cell_empty_where_no_label_holds(predictor, photos, tmp_path):
    model = replace(predictor.model, thresholds=(1.1,) * 10)
    none = Predictor(model, predictor.net, predictor.device)
    predict_files(none, [photos], top=3, table=tmp_path / "table.csv")
    assert [row["labels"] for row in rows(tmp_path / "table.csv")] == [""] * 5
    lines = []
    predict_files(none, [photos], as_json=True, write=lines.append)
    assert [json.loads(line)["labels"] for line in lines] == [[]] * 5


def test_a_table_of_one_class_an_image_has_the_likeliest(predictor, photos, tmp_path):
    predict_files(predictor, [photos], top=2, table=tmp_path / "table.csv")
    found = rows(tmp_path / "table.csv")
    assert list(found[0]) == ["path", "class_1", "prob_1", "class_2", "prob_2"]
    assert [row["class_1"] for row in found] == [each.label for each in predictor(photos)]


def test_a_table_goes_into_a_new_folder(predictor, photos, tmp_path):
    table = tmp_path / "new" / "folder" / "table.csv"
    predict_files(predictor, [photos], table=table)
    assert len(rows(table)) == 5


def test_a_table_that_cannot_be_written_is_refused_before_predicting(predictor, photos, tmp_path):
    (tmp_path / "file").write_text("")
    for table in (tmp_path, tmp_path / "file" / "table.csv"):
        with pytest.raises(ValueError, match="a table must be a file that can be written") as found:
            predict_files(predictor, [photos], table=table, warn=pytest.fail, write=pytest.fail)
        assert repr(str(table)) in str(found.value)


def test_a_table_and_json_are_refused_together(photos, tmp_path):
    table = tmp_path / "table.csv"
    done = CliRunner().invoke(
        app, ["predict", str(OLDER), str(photos), "--csv", str(table), "--json"]
    )
    assert "written as CSV or as JSON, got both" in str(done.exception)
    assert not table.exists()


def test_lines_of_paths_may_end_as_on_windows_and_be_empty():
    lines = ["a.png\r\n", "\n", "\r\n", " b c .png \n", "d.png"]
    assert list(paths_of(lines)) == ["a.png", " b c .png ", "d.png"]


def test_a_folder_on_standard_input_is_named_and_the_rest_goes_on(photos, monkeypatch):
    monkeypatch.chdir(photos)
    text = f"\r\n{photos}\r\n{photos / '1.png'}\r\n\r\n2.png\r\n"
    done = CliRunner().invoke(app, ["predict", str(OLDER), "-", "--device", "cpu"], input=text)
    assert done.exit_code == 1
    assert done.stderr == f"image '{photos}' cannot be read: Is a directory\n"
    paths = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert paths == [str(photos / "1.png"), "2.png"]
