"""The joined predictions of a cross-validation, by scikit-learn, SciPy and cleanlab."""

import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from fastcv.data import Sample, digits
from fastcv.experiment import folds
from fastcv.experiment.directory import Run
from fastcv.experiment.images import FOLDS, RunImages
from fastcv.experiment.judge import validate, write_tables
from fastcv.experiment.results import Results
from fastcv.experiment.series import join_folds, plan, run
from fastcv.predict import evaluation
from fastcv.predict.evaluation import Predictions
from fastcv.report import explain as explain_module

WRONG = range(0, 60, 3)  # of the digits, under a wrong label
FILE = '''"""Digits with some wrong labels, of which few train a small net for an epoch."""

from dataclasses import replace
from pathlib import Path

from fastcv.learning import OneCycle
from fastcv.recipes.digits import recipe as digits
from {module} import some

data = replace(digits.data, source=some, holdout=0)
recipe = replace(digits, data=data, schedule=(OneCycle(epochs=3, lr=3e-3),))
'''


def some(path=None):
    """List 400 digits, of which 20 bear the label of the next digit."""
    samples = digits(path)
    listed = samples.train[:400]
    for place in WRONG:
        image, label = listed[place]
        listed[place] = Sample(image, str((int(label) + 1) % 10))
    return samples._replace(train=listed)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Three folds, trained once; and what the lines after the table were."""
    folder = tmp_path_factory.mktemp("folds")
    file = folder / "mine.py"
    file.write_text(FILE.format(module=__name__))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Results, "_draw", lambda self: None)
        planned = plan(str(file), folds=3, out=folder / "runs")
        jobs = run(planned, out=folder / "runs", wandb="off", device="cpu", write=lambda line: None)
    assert [job.failure for job in jobs] == [""] * 3
    return jobs, join_folds(jobs)


def test_every_image_is_predicted_once_by_the_net_that_did_not_train_on_it(series):
    jobs, (line, folder) = series
    found = evaluation.read(Path(folder) / "predictions.npz", FOLDS)
    listing = RunImages(jobs[0].run).listing
    names = [name for part in ("train", "valid") for name, _ in listing[part]]
    assert list(found.paths) == sorted(names)
    place = {path: index for index, path in enumerate(found.paths)}
    shares = []
    for job in jobs:
        split = json.loads((job.run.path / "split.json").read_text())
        own = evaluation.read(job.run.path / "predictions.npz", "valid")
        assert set(own.paths) == set(split["valid"])
        assert not set(own.paths) & set(split["train"])
        rows = [place[path] for path in own.paths]
        assert np.array_equal(found.probabilities[rows], own.probabilities)
        assert np.array_equal(found.targets[rows], own.targets)
        assert np.array_equal(found.losses[rows], own.losses)
        shares.append(accuracy_score(own.targets, own.probabilities.argmax(1)))
    right = int((found.targets == found.probabilities.argmax(1)).sum())
    interval = binomtest(right, 400).proportion_ci(0.95, method="wilson")
    summary = json.loads((Path(folder) / "folds.json").read_text())
    assert summary["accuracy"] == pytest.approx(right / 400)
    assert summary["interval"] == pytest.approx([interval.low, interval.high])
    assert summary["accuracies"] == pytest.approx(shares)
    assert summary["mean"] == pytest.approx(np.mean(shares))
    assert summary["deviation"] == pytest.approx(np.std(shares, ddof=1))
    assert line == (
        f"mine seed 0: accuracy over all 400 images {right / 400:.2%} (95 % interval "
        f"{interval.low:.2%} to {interval.high:.2%}); of the 3 folds "
        f"{100 * statistics.mean(shares):.2f} ± {100 * statistics.stdev(shares):.2f} %"
    )


def test_label_errors_are_those_of_all_images(series):
    _, (_, folder) = series
    found = evaluation.read(Path(folder) / "predictions.npz", FOLDS)
    with (Path(folder) / "label_errors.csv").open() as file:
        suspects = {row["path"] for row in csv.DictReader(file)}
    expected = find_label_issues(found.targets, found.probabilities.astype(float), n_jobs=1)
    assert suspects == {path for path, wrong in zip(found.paths, expected, strict=True) if wrong}
    wrong = {f"#{place}" for place in WRONG}
    assert len(suspects & wrong) > len(wrong) / 2


def test_a_fold_is_judged_on_the_images_of_all_folds(series, tmp_path, capsys):
    jobs, (_, folder) = series
    judged = validate(jobs[1].run.path, part="folds", out=tmp_path, trust=True)
    summary = json.loads((Path(folder) / "folds.json").read_text())
    assert judged.images == 400
    assert judged.accuracy == summary["accuracy"]


def test_a_page_shows_the_predictions_of_all_folds_and_looks_at_the_images_of_its_own(
    series, tmp_path, monkeypatch
):
    jobs, _ = series
    looked = []
    monkeypatch.setattr(
        explain_module, "_explain_images", lambda page, subjects, net: looked.extend(subjects)
    )
    monkeypatch.setattr(
        explain_module, "_map_embeddings", lambda page, own, images, net: looked.append(own)
    )
    monkeypatch.setattr(explain_module, "_look_inside", lambda page, subject, net: None)
    path = jobs[2].run.path
    page = explain_module.explain(
        path, part="folds", out=tmp_path, device="cpu", trust=True, write=lambda line: None
    )
    assert "400 images of all folds" in page.read_text()
    own = set(evaluation.read(path / "predictions.npz", "valid").paths)
    *subjects, embedded = looked
    assert {subject.name for subject in subjects} <= own == set(embedded.paths)
    with (tmp_path / "label_errors.csv").open() as file:
        assert {row["path"] for row in csv.DictReader(file)} - own


def test_joining_again_writes_to_the_same_folder_and_incomplete_folds_are_not_joined(series):
    jobs, (_, folder) = series
    assert join_folds(jobs)[1] == folder
    assert join_folds([jobs[0], replace(jobs[1], run=None), jobs[2]]) == []
    assert join_folds([replace(job, smoke=True) for job in jobs]) == []
    assert Path(folder).name.endswith("-seed0-folds3")


def test_a_run_that_is_no_fold_has_no_images_of_folds(tmp_path):
    lone = Run(tmp_path)
    with pytest.raises(ValueError, match="needs a run of a finished cross-validation"):
        RunImages(lone).predictions(None, "folds")


def test_images_with_several_labels_are_decided_by_the_thresholds_of_their_fold(tmp_path):
    random, labels = np.random.default_rng(0), ("x", "y", "z")
    targets = random.integers(0, 2, (36, 3))
    shares = np.clip(targets * 0.3 + random.random((36, 3)) * 0.7, 0, 1).astype(np.float32)
    rows = np.arange(36).reshape(3, 12)
    nets = [
        Predictions(
            tuple(f"{index:02}" for index in some),
            shares[some],
            targets[some],
            evaluation.cross_entropies(shares[some], targets[some]),
            labels,
            thresholds=least,
        )
        for some, least in zip(rows, ((0.5,) * 3, (0.1, 0.9, 0.3), None), strict=True)
    ]
    found = folds.joined(nets[::-1])
    decided = np.concatenate([each.predicted for each in nets])
    exact = accuracy_score(targets, decided)
    assert found.accuracy == pytest.approx(exact)
    assert exact == pytest.approx(np.mean([each.accuracy for each in nets]))
    assert exact != accuracy_score(targets, shares >= 0.5)
    evaluation.save({FOLDS: found}, tmp_path / evaluation.TABLE)
    again = evaluation.read(tmp_path / evaluation.TABLE, FOLDS)
    assert np.array_equal(again.predicted, decided)
    assert [again.texts(place) for place in range(12, 24)] == list(map(nets[1].texts, range(12)))
    write_tables(tmp_path, again)
    with (tmp_path / "per_label.csv").open() as file:
        table = list(csv.DictReader(file))
    f1 = f1_score(targets, decided, average=None)
    assert [float(row["f1"]) for row in table] == pytest.approx(list(f1))
    assert {row["threshold"] for row in table} == {""}


def test_folds_that_do_not_belong_together_are_refused():
    one = Predictions(("a", "b"), np.eye(2), np.arange(2), np.zeros(2), ("x", "y"))
    with pytest.raises(ValueError, match="some are in two"):
        folds.joined([one, one])
    with pytest.raises(ValueError, match="the same classes"):
        folds.joined([one, replace(one, paths=("c", "d"), classes=("x", "z"))])
