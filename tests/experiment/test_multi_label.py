"""Several labels an image, from the table to the export; by scikit-learn, torch and cleanlab."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.torch_core import TensorMultiCategory
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support
from typer.testing import CliRunner

import fastcv
from fastcv import Images, Table
from fastcv.augment import CutMix, HorizontalFlip, MixUp
from fastcv.cli import app
from fastcv.data import Toy
from fastcv.data.samples import labels_of, multi_hot
from fastcv.experiment.card import card
from fastcv.experiment.directory import Run
from fastcv.experiment.judge import calibrate_run, validate
from fastcv.experiment.train import train
from fastcv.learning import (
    TTA,
    AdamW,
    BinaryCrossEntropy,
    CrossEntropy,
    EarlyStop,
    FromScratch,
    OneCycle,
)
from fastcv.nets import LightResNet
from fastcv.predict import evaluation
from fastcv.predict.evaluation import NO_LABEL, Predictions
from fastcv.predict.export import BytesToProbabilities
from fastcv.predict.label_errors import label_errors
from fastcv.predict.multi_label import average_precisions, fit_thresholds
from fastcv.predict.trained import TrainedModel
from fastcv.recipe import Recipe, flat, unflat

TAGS = ("blue", "green", "polar bear", "red")
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos with a bright patch for each tag in its own corner, and a table of them."""
    root = tmp_path_factory.mktemp("photos")
    rows = ["image;tags"]
    random = np.random.default_rng(1)
    for number in range(120):
        pixels = random.integers(0, 90, (16, 16, 3), dtype=np.uint8)
        tags = [tag for tag, share in zip(TAGS, (0.5, 0.4, 0.2, 0.5), strict=True)
                if random.random() < share]  # fmt: skip
        for tag in tags:
            place = TAGS.index(tag)
            row, column = 8 * (place // 2), 8 * (place % 2)
            pixels[row : row + 8, column : column + 8, place % 3] = 230
        Image.fromarray(pixels).save(root / f"{number:03}.png")
        rows.append(f"{number:03}.png;{' | '.join(reversed(tags))}")
    (root / "tags.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def recipe(photos):
    return Recipe(
        name="tags",
        data=Images(
            source=Table(str(photos / "tags.csv"), label="tags", sep="|", valid=0.3),
            size=16,
            batch_size=16,
            augment=(HorizontalFlip(p=0.0), CutMix()),
        ),
        model=FromScratch(net=LightResNet, settings={"widths": (8, 16, 16, 16)}),
        optimizer=AdamW(),
        loss=BinaryCrossEntropy(weights="balanced"),
        schedule=(
            OneCycle(
                epochs=5,
                lr=1e-2,
                early_stop=EarlyStop(monitor="valid_average_precision"),
                callbacks=(TTA(mirror=False, shift=0),),
            ),
        ),
        precision="fp32",
    )


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    """A finished run, and the lines that it printed."""
    lines = []
    out = tmp_path_factory.mktemp("runs")
    return train(recipe, out=out, wandb="off", device="cpu", write=lines.append), lines


def test_labels_of_a_table_are_split_and_sorted(photos):
    samples = Table(photos / "tags.csv", label="tags", sep="|", valid=0)()
    assert samples.classes == TAGS
    assert samples.multi_label
    lines = (photos / "tags.csv").read_text().splitlines()[1:]
    for sample, line in zip(samples.train, lines, strict=True):
        name, _, cell = line.partition(";")
        assert sample.image.name == name
        assert sample.label == tuple(sorted(each for each in cell.split(" | ") if each))
    assert any(sample.label == () for sample in samples.train)
    one = Table(photos / "tags.csv", label="image", valid=0)()
    assert not one.multi_label
    with pytest.raises(ValueError, match="sep must be text between labels"):
        Table(photos / "tags.csv", sep="")


def test_rare_labels_are_shared_out_between_the_parts(photos):
    samples = Table(photos / "tags.csv", label="tags", sep="|", valid=0.3)()
    hot = [multi_hot(part, TAGS).mean(0) for part in (samples.train, samples.valid)]
    assert hot[1] == pytest.approx(hot[0], abs=0.12)
    assert hot[1][2] == pytest.approx(hot[0][2], abs=0.03)  # the rarest
    assert 32 <= len(samples.valid) <= 40
    assert set(samples.strata(samples.train)) <= {*TAGS, ""}


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_targets_are_one_for_each_label_with_and_without_a_cache(recipe, cache):
    dls = replace(recipe.data, cache=cache, augment=())("cpu")
    _, y = dls.valid.one_batch()
    assert type(y) is TensorMultiCategory
    assert y.dtype == torch.float32
    items = dls.valid.items[: len(y)]
    assert torch.equal(y.as_subclass(torch.Tensor), torch.from_numpy(multi_hot(items, TAGS)))
    assert [labels_of(each) for each in items] == [
        tuple(tag for tag, has in zip(TAGS, row, strict=True) if has) for row in y
    ]


def test_loss_is_torchs_with_weights_in_training_alone():
    logits, targets = torch.randn(5, 3), torch.randint(0, 2, (5, 3)).float()
    loss = BinaryCrossEntropy(weights="balanced")(counts=[1, 2, 4], images=8)
    torch_loss = torch.nn.functional.binary_cross_entropy_with_logits
    assert torch.equal(loss.weight, torch.tensor([7.0, 3.0, 1.0]))
    expected = torch_loss(logits, targets, pos_weight=loss.weight)
    assert torch.allclose(loss(logits, targets), expected)
    loss.eval()
    assert torch.allclose(loss(logits, targets), torch_loss(logits, targets))
    loss.reduction = "none"
    each = torch_loss(logits, targets, reduction="none").mean(1)
    assert torch.allclose(loss(logits, targets), each)
    assert loss.state_dict() == {}
    for count, images in ((None, 8), ([1, 2], None)):
        with pytest.raises(ValueError, match="must be called with the number of training images"):
            BinaryCrossEntropy(weights="balanced")(count, images)
    with pytest.raises(ValueError, match="one number for each of 3 labels, got 2"):
        BinaryCrossEntropy(weights=(1.0, 2.0))([1, 2, 3])


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties):
    scores, targets = RANDOM.random((60, 5)), RANDOM.integers(0, 2, (60, 5))
    scores = np.round(scores, 1) if ties else scores
    expected = average_precision_score(targets, scores, average=None)
    assert average_precisions(scores, targets) == pytest.approx(expected)
    targets[:, 1] = 0
    assert np.isnan(average_precisions(scores, targets)).tolist() == [0, 1, 0, 0, 0]


def test_no_threshold_has_a_higher_f1_than_the_fitted_ones():
    targets = RANDOM.integers(0, 2, (50, 4))
    scores = np.round(np.clip(0.3 * targets + 0.7 * RANDOM.random((50, 4)), 0, 1), 2)
    targets[:, 3] = 0
    found = fit_thresholds(scores, targets)
    assert found[3] == 0.5
    for label in range(3):
        ours = f1_score(targets[:, label], scores[:, label] >= found[label])
        all_of_them = [
            f1_score(targets[:, label], scores[:, label] >= each)
            for each in np.unique(scores[:, label])
        ]
        assert ours == pytest.approx(max(all_of_them))


def test_history_measures_what_the_predictions_say(trained):
    run, lines = trained
    assert run.metrics[-1]["valid_average_precision"] > 0.8
    best = max(run.metrics, key=lambda row: row["valid_average_precision"])
    found = evaluation.read(run.path / "predictions.npz", "valid")
    shares = found.probabilities.astype(float)
    macro = average_precision_score(found.targets, shares, average="macro")
    assert best["valid_average_precision"] == pytest.approx(macro)
    exact = ((shares > 0.5) == found.targets).all(1).mean()
    assert best["valid_accuracy"] == pytest.approx(exact, abs=0.03)
    assert run.metrics[-1]["tta_accuracy"] == pytest.approx(
        run.metrics[-1]["valid_accuracy"]
    )  # of one view
    summary = run.summary
    assert summary["valid_average_precision"] == pytest.approx(macro)
    assert summary["valid_accuracy"] == pytest.approx(found.accuracy)
    said = "\n".join(lines)
    mean = summary["valid_average_precision"]
    assert f"mean average precision over labels: {mean:.2%}" in said
    assert "all labels of which are right" in said


def test_thresholds_are_fitted_on_validation_images_and_used(trained, tmp_path):
    run, _ = trained
    found = evaluation.read(run.path / "predictions.npz", "valid")
    model = json.loads((run.path / "model.json").read_text())
    assert found.thresholds == tuple(model["thresholds"])
    (tmp_path / "model.json").write_text(json.dumps({**model, "thresholds": [0.5]}))
    with pytest.raises(ValueError, match="a threshold for each class"):
        TrainedModel.read(tmp_path)
    said = found.probabilities >= np.array(found.thresholds)
    assert np.array_equal(found.predicted, said)
    with (run.path / "per_label.csv").open() as file:
        rows = list(csv.DictReader(file))
    precision, recall, f1, support = precision_recall_fscore_support(
        found.targets, said, average=None, zero_division=0
    )
    ap = average_precision_score(found.targets, found.probabilities, average=None)
    assert [row["label"] for row in rows] == list(TAGS)
    assert not (run.path / "per_class.csv").exists()
    for name, expected in (
        *(("precision", precision), ("recall", recall), ("f1", f1), ("support", support)),
        *(("average_precision", ap), ("threshold", found.thresholds)),
    ):
        assert [float(row[name]) for row in rows] == pytest.approx(list(expected), abs=2e-3), name
    with (run.path / "predictions.csv").open() as file:
        first = next(csv.DictReader(file))
    true = [tag for tag, has in zip(TAGS, found.targets[0], strict=True) if has]
    assert first["true"] == (", ".join(true) or NO_LABEL)
    figures = {file.stem for file in (run.path / "figures").iterdir()}
    assert {"average_precision", "reliability", "top_losses", "predictions"} <= figures
    assert "confusion_matrix" not in figures


def test_predictions_are_those_of_the_run(trained, photos, tmp_path):
    run, _ = trained
    predictor = fastcv.load(run.path, device="cpu")
    found = evaluation.read(run.path / "predictions.npz", "valid")
    again = [predictor(photos / path) for path in found.paths]
    shares = np.stack([each.probabilities for each in again])
    assert shares == pytest.approx(found.probabilities, abs=2e-3)
    for each, row in zip(again, shares >= np.array(found.thresholds), strict=True):
        assert {name for name, _ in each.labels} == set(np.array(TAGS)[row])
    arguments = ["predict", str(run.path), str(photos / found.paths[0])]
    line = CliRunner().invoke(app, arguments).output.strip()
    said = ", ".join(f"{name} {share:.2%}" for name, share in again[0].labels)
    assert line.endswith(f"{found.paths[0]}: {said or NO_LABEL}")
    answer = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert answer["labels"] == [name for name, _ in again[0].labels]
    judged = validate(run.path, out=tmp_path, device="cpu", write=lambda line: None)
    assert judged.accuracy == found.accuracy
    assert (tmp_path / "per_label.csv").is_file()
    tta = validate(run.path, tta=True, out=tmp_path, device="cpu", write=lambda line: None)
    assert tta.average_precision == pytest.approx(judged.average_precision, abs=0.02)


def test_export_answers_with_a_sigmoid_and_the_card_says_labels(trained):
    run, _ = trained
    predictor = fastcv.load(run.path, device="cpu")
    graph = BytesToProbabilities(predictor.model, predictor.net)
    pixels = RANDOM.integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
    logits = predictor.logits(predictor.batch(pixels))
    assert graph(torch.tensor(pixels)).numpy() == pytest.approx(logits.sigmoid().numpy(), abs=1e-4)
    assert "print(prediction.labels" in card(run)


def test_what_supposes_one_class_is_refused_in_a_sentence(recipe, trained, photos):
    run, _ = trained
    for changes, said in (
        ({"loss": CrossEntropy()}, "set loss=BinaryCrossEntropy"),
        ({"data": replace(recipe.data, balance=1.0)}, "balance supposes one label"),
        ({"data": replace(recipe.data, train_per_class=2)}, "train_per_class supposes one label"),
        ({"data": replace(recipe.data, source=Toy(size=16))}, "needs images with several labels"),
    ):
        with pytest.raises(ValueError, match=said):
            fastcv.learner(replace(recipe, **changes), device="cpu")
    with pytest.raises(ValueError, match="one class an image"):
        calibrate_run(run, device="cpu")
    with pytest.raises(ValueError, match="leave --data out"):
        validate(run.path, data=photos, device="cpu")


def test_a_saved_run_is_read_and_resumed_with_its_labels(recipe, trained):
    assert unflat(flat(recipe)) == recipe
    again = Run(trained[0].path).recipe
    assert again == recipe
    toys = again.data.smoke()("cpu")  # as a smoke run has them
    assert toys.multi_label
    assert set(toys.train.one_batch()[1].sum(1).tolist()) == {1.0, 2.0}
    mixed = replace(again.data, augment=(MixUp(),))
    assert fastcv.learner(replace(again, data=mixed), device="cpu").dls.multi_label


def test_label_errors_are_those_of_cleanlab():
    from cleanlab.multilabel_classification.filter import find_label_issues

    targets = RANDOM.integers(0, 2, (80, 3))
    shares = np.clip(0.8 * targets + 0.2 * RANDOM.random((80, 3)), 0, 1)
    targets[:6] = 1 - targets[:6]
    paths = tuple(map(str, range(80)))
    found = Predictions(paths, shares, targets, np.zeros(80), TAGS[:3])
    expected = find_label_issues(
        [np.flatnonzero(row).tolist() for row in targets], shares, n_jobs=1
    )
    assert set(label_errors(found)) == set(np.flatnonzero(expected)) == set(range(6))
    assert found.texts(0)[1] == (", ".join(np.array(TAGS[:3])[targets[0] > 0]) or NO_LABEL)
