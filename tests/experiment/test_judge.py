"""A finished run judged, calibrated and compared: through its own data and through folders."""

import csv
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from typer.testing import CliRunner

import fastcv
from fastcv import cli
from fastcv.data import Toy
from fastcv.experiment import judge
from fastcv.experiment.judge import calibrate_run, validate
from fastcv.experiment.results import Results
from fastcv.experiment.train import train
from fastcv.learning import TTA, CrossEntropy, OneCycle, WithSize, with_augment
from fastcv.predict import evaluation
from fastcv.predict.writing import predict_files
from fastcv.report.compare import compare_runs
from fastcv.terminal import ERASE

OLDER = Path(__file__).parent.parent / "older" / "finished"


@pytest.fixture
def run(tmp_path):
    """A finished run of digits."""
    return shutil.copytree(OLDER, tmp_path / "runs" / "digits" / "20260101-120000-seed0")


@pytest.fixture
def folders(tmp_path):
    """Digits as class folders: of some classes of the net, and of one that it does not have."""
    levels, targets = load_digits(return_X_y=True)
    for name in ("3", "7", "seven"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in np.flatnonzero(targets == (3 if name == "3" else 7))[:20]:
            pixels = np.rint(levels[index].reshape(8, 8) * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


def rows(file):
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_run_is_judged_on_its_own_images(run):
    lines = []
    found = validate(run, device="cpu", write=lines.append)
    assert found.images == 359
    assert found.accuracy == pytest.approx(fastcv.Run(run).summary["valid_accuracy"], abs=0.006)
    assert any(line.startswith("accuracy") and "95 % interval" in line for line in lines)
    folder = run / "validate-valid"
    assert {each.name for each in folder.iterdir()} == {
        *("per_class.csv", "predictions.csv", "top_losses.csv"),
        *("confusion_matrix.png", "reliability.png"),
    }
    assert len(rows(folder / "predictions.csv")) == 359
    losses = [float(row["loss"]) for row in rows(folder / "top_losses.csv")]
    assert losses == sorted(losses, reverse=True)


def test_kept_predictions_need_no_second_pass(run, monkeypatch):
    first = validate(run, device="cpu", write=lambda line: None)
    images = fastcv.experiment.images.RunImages(fastcv.Run(run))
    _, found = images.predictions(fastcv.load(run, device="cpu"))
    evaluation.save({"valid": found}, run / evaluation.TABLE)

    def fail(*arguments, **keywords):
        raise AssertionError("the images were predicted again")

    monkeypatch.setattr("fastcv.predict.predictor.Predictor.logits", fail)
    again = validate(run, device="cpu", write=lambda line: None)
    assert again.accuracy == first.accuracy
    assert again.loss == pytest.approx(first.loss, rel=1e-3)


def keep(run, part="valid"):
    """Keep predictions of a run's validation images, as of a part, and return them."""
    images = fastcv.experiment.images.RunImages(fastcv.Run(run))
    _, found = images.predictions(fastcv.load(run, device="cpu"))
    evaluation.save({part: found}, run / evaluation.TABLE)
    return found


@pytest.fixture
def undrawn(monkeypatch):
    """Judge without figures, which take most of the time."""
    monkeypatch.setattr(judge, "draw_evaluation", lambda folder, found: None)


@pytest.mark.usefixtures("undrawn")
def test_kept_predictions_are_brought_to_the_nets_temperature(run):
    keep(run)
    before = validate(run, device="cpu", write=lambda line: None)
    calibrated = validate(run, device="cpu", calibrate=True, write=lambda line: None)
    plain = validate(run, device="cpu", write=lambda line: None)
    (run / evaluation.TABLE).rename(run / "kept.npz")
    again = validate(run, device="cpu", write=lambda line: None)
    for name in ("loss", "calibration_error"):
        assert getattr(plain, name) == getattr(calibrated, name) != getattr(before, name)
        assert getattr(plain, name) == pytest.approx(getattr(again, name), rel=1e-4)
    assert plain.loss < before.loss
    with np.load(run / "kept.npz") as arrays:
        older = dict(arrays)
    older["valid/probabilities"] = older["valid/probabilities"].astype(np.float16)
    np.savez_compressed(run / evaluation.TABLE, **older)
    lines = []
    rounded = validate(run, device="cpu", write=lines.append)
    assert lines[0] == "predicting 359 images"
    assert rounded.loss == again.loss


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """A run whose test images validate, with label smoothing and its own TTA in a wrapped stage."""
    digits = fastcv.get_recipe("digits")
    stage = OneCycle(epochs=2, lr=3e-3, callbacks=(TTA(mirror=False, shift=2),))
    recipe = fastcv.replace(
        digits,
        data=fastcv.replace(digits.data, source=Toy(size=8, channels=1, test=20), holdout=0),
        loss=CrossEntropy(label_smoothing=0.3),
        schedule=(with_augment(stage),),
    )
    out = tmp_path_factory.mktemp("tested")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Results, "_draw", lambda self: None)
        return train(recipe, out=out, wandb="off", device="cpu", write=lambda line: None)


@pytest.mark.usefixtures("undrawn")
def test_test_images_that_validate_are_judged_with_the_recipes_own_tta(tested, tmp_path):
    judged = validate(tested.path, tta=True, out=tmp_path, device="cpu", write=lambda line: None)
    assert judged.accuracy == pytest.approx(tested.summary["tta_accuracy"])
    with pytest.raises(ValueError, match="the run has, test, got 'valid'"):
        validate(tested.path, tta=True, part="valid", out=tmp_path, device="cpu")
    with pytest.raises(ValueError, match="validation images that are not the test images"):
        calibrate_run(tested, device="cpu")


@pytest.mark.usefixtures("undrawn")
def test_the_loss_of_kept_predictions_is_that_of_predicting_again(tested, tmp_path):
    copied = shutil.copytree(tested.path, tmp_path / "run")
    kept = validate(copied, device="cpu", write=lambda line: None)
    found = evaluation.read(copied / evaluation.TABLE, "test")
    shares = found.probabilities.astype(float)
    expected = log_loss(found.targets, shares / shares.sum(1, keepdims=True))
    assert kept.loss == pytest.approx(expected, rel=1e-5)
    losses = [float(row["loss"]) for row in rows(copied / "predictions.csv")]
    assert losses == pytest.approx(list(found.losses), abs=1e-6)
    (copied / evaluation.TABLE).unlink()
    again = validate(copied, device="cpu", write=lambda line: None)
    assert again.loss == pytest.approx(kept.loss, rel=1e-4)
    summary = tested.summary  # the loss that was trained
    assert summary["test_loss"] == pytest.approx(tested.metrics[-1]["valid_loss"], rel=1e-4)
    assert abs(summary["test_loss"] - kept.loss) > 0.01


def test_the_tta_that_is_measured_last_counts():
    def found(callbacks, *stages):
        run = SimpleNamespace(recipe=SimpleNamespace(callbacks=callbacks, schedule=stages))
        return judge._views(run).__self__

    own, other = TTA(mirror=False, shift=2), TTA(mirror=True, shift=3)
    plain, has = OneCycle(epochs=1, lr=0.1), OneCycle(epochs=1, lr=0.1, callbacks=(own,))
    assert found((), plain) == TTA(mirror=True, shift=0)
    assert found((own,), plain) == own
    assert found((), WithSize(stage=with_augment(has), size=8)) == own
    assert found((other,), plain, has) == own
    assert found((other,), has, plain) == other


def test_test_time_augmentation_averages_the_mirror_image(run):
    plain = validate(run, device="cpu", write=lambda line: None)
    mirrored = validate(run, device="cpu", tta=True, write=lambda line: None)
    assert mirrored.accuracy < plain.accuracy  # a digit's mirror image is none
    assert (run / "validate-valid-tta" / "predictions.csv").is_file()


def test_a_foreign_folder_is_matched_by_name(run, folders):
    lines = []
    found = validate(run, data=folders, device="cpu", write=lines.append)
    assert found.images == 40
    assert found.accuracy > 0.95
    assert "skipped folders that are no class of the net: seven (20 images)" in lines
    assert "8 of 10 classes have no images here" in lines
    paths = {row["path"] for row in rows(run / "validate-photos" / "predictions.csv")}
    assert all(path.startswith(("3/", "7/")) for path in paths)
    shutil.rmtree(folders / "3")
    shutil.rmtree(folders / "7")
    (folders / "eight").mkdir()
    shutil.copy(next((folders / "seven").iterdir()), folders / "eight")
    with pytest.raises(ValueError, match="class folders must be named as the net's classes"):
        validate(run, data=folders, device="cpu")


def test_a_temperature_is_fitted_kept_and_used(run):
    before = validate(run, device="cpu", write=lambda line: None)
    temperature = calibrate_run(fastcv.Run(run), device="cpu")
    assert json.loads((run / "model.json").read_text())["temperature"] == temperature != 1
    predictor = fastcv.load(run, device="cpu")
    assert predictor.model.temperature == temperature
    after = validate(run, device="cpu", write=lambda line: None)
    assert after.accuracy == before.accuracy
    assert after.loss < before.loss
    assert calibrate_run(fastcv.Run(run), device="cpu") == pytest.approx(temperature)  # not twice


def test_two_runs_are_compared_in_words_and_as_a_page(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "runs" / "digits" / "<b>other")
    images = fastcv.experiment.images.RunImages(fastcv.Run(run))
    _, found = images.predictions(fastcv.load(run, device="cpu"))
    evaluation.save({"valid": found}, run / evaluation.TABLE)
    wrong = found.probabilities.copy()
    wrong[:9] = np.roll(wrong[:9], 1, axis=1)  # nine answers differ
    evaluation.save({"valid": fastcv.replace(found, probabilities=wrong)}, other / evaluation.TABLE)
    lines = []
    paired = compare_runs(run, other, write=lines.append)
    assert paired.only_first == int(found.right[:9].sum())
    assert len(paired.differ) == 9
    assert "by McNemar's exact test" in lines[3]
    page = (other / "compare.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 9
    assert "<b>other" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert all(path in page for path in found.paths[:9])


def test_two_runs_are_compared_on_the_same_part_in_any_order(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "runs" / "digits" / "other")
    found = keep(run)
    evaluation.save({"test": found}, run / evaluation.TABLE)
    first = fastcv.replace(found, paths=tuple(f"of valid {path}" for path in found.paths))
    evaluation.save({"valid": first, "test": found}, other / evaluation.TABLE)
    page = tmp_path / "no" / "folder" / "page.html"
    for pair in ((run, other), (other, run)):
        assert compare_runs(*pair, out=page, write=lambda line: None).images == 359
    assert page.is_file()
    with pytest.raises(ValueError, match=r"a page must be a file, .* is a folder"):
        compare_runs(run, other, out=tmp_path)
    with pytest.raises(ValueError, match="a page must go into a folder that can be written to"):
        compare_runs(run, other, out=page / "page.html")
    evaluation.save({"valid": found}, other / evaluation.TABLE)
    with pytest.raises(ValueError, match="got test of the first and valid of the second"):
        compare_runs(run, other)


def test_splits_and_folders_that_cannot_be_are_refused_in_a_sentence(run, folders):
    for part in ("foo", "folds", "train"):
        with pytest.raises(ValueError, match=f"must be valid or test, got '{part}'"):
            validate(run, data=folders, part=part, device="cpu")
    with pytest.raises(ValueError, match="must hold valid images, but it has none"):
        validate(run, data=folders, part="valid", device="cpu")
    for out in (run / "recipe.json", run / "recipe.json" / "below"):
        with pytest.raises(ValueError, match="must go into a folder that can be written to"):
            validate(run, out=out, device="cpu")


def test_predictions_are_printed_and_written_and_bad_files_named(run, folders, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    files = sorted((folders / "7").iterdir())[:3]
    runner = CliRunner()
    done = runner.invoke(cli.app, ["predict", str(run), *map(str, files), str(bad), "--top", "2"])
    assert done.exit_code == 1
    assert str(bad) in done.stderr
    assert all(f"{file}: 7 " in done.stdout for file in files)
    done = runner.invoke(cli.app, ["predict", str(run), str(folders), "--json"])
    assert done.exit_code == 0
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(objects) == 60
    assert set(objects[0]) == {"path", "predictions"}
    table = tmp_path / "table.csv"
    runner.invoke(cli.app, ["predict", str(run), str(folders / "3"), "--csv", str(table)])
    assert [row["class_1"] for row in rows(table)].count("3") > 18


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("streamed", [False, True])
def test_predicting_moves_a_bar_on_a_terminal_beside_the_lines(
    run, folders, tmp_path, monkeypatch, streamed
):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("fastcv.terminal.REDRAW_SECONDS", 0)
    predictor, files = fastcv.load(run, device="cpu"), sorted((folders / "3").iterdir())
    paths = [*files, tmp_path / "gone.png"]
    if streamed:  # of unknown length; the missing file counts as unreadable
        paths = iter(map(str, paths))
    else:
        paths.pop()
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)

    def write(line):
        screen.write(f"{line}\n")

    unreadable = predict_files(predictor, paths, write=write, warn=write)
    assert unreadable == streamed
    parts = re.split(r"\r\x1b\[2K|\n", screen.getvalue())
    bars = [part for part in parts if part.startswith("predicting")]
    of = "" if streamed else "/20"
    assert bars[9].startswith(f"predicting 10{of} images")
    assert ("━" in bars[9]) != streamed
    lines = [each for each in parts if each and each not in bars]
    assert [line.split(":")[0] for line in lines[:20]] == list(map(str, files))
    assert lines[0].startswith(f"{files[0]}: 3 ")
    assert screen.getvalue().endswith(ERASE)
    if streamed:
        assert "gone.png" in lines[20]


def test_paths_are_read_from_standard_input_without_a_bar_in_a_pipe(run, folders):
    files = sorted((folders / "7").iterdir())[:3]
    text = "".join(f"{file}\n" for file in [*files, folders / "gone.png"])
    done = CliRunner().invoke(cli.app, ["predict", str(run), "-"], input=text)
    assert done.exit_code == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == list(map(str, files))
    assert "gone.png" in done.stderr
    assert len(done.stderr.splitlines()) == 1
