import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from fastcv.experiment.card import card, write_card
from fastcv.experiment.directory import Run
from fastcv.predict import Predictions, evaluation

OLDER = Path(__file__).parent.parent / "older" / "finished"
HOSTILE = '---\nlicense: mine\n---\n# <script>alert(1)</script> | `x` [a](http://b) "q"'


@pytest.fixture
def run(tmp_path):
    return Run(shutil.copytree(OLDER, tmp_path / "run"))


def edit(run, name, change):
    file = run.path / name
    values = json.loads(file.read_text(encoding="utf-8"))
    change(values)
    file.write_text(json.dumps(values), encoding="utf-8")


def parts(text):
    """The front matter as values, and the page."""
    front, page = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL).groups()
    return yaml.safe_load(front), page


def predicted(run, classes, part="valid"):
    """Keep predictions of which class 3 is taken for class 5 half of the time."""
    targets = np.arange(200) % 10
    probabilities = np.full((200, 10), 0.01, np.float32)
    chosen = np.where((targets == 3) & (np.arange(200) % 20 == 3), 5, targets)
    probabilities[np.arange(200), chosen] = 0.91
    found = Predictions(
        paths=tuple(map(str, range(200))),
        probabilities=probabilities,
        targets=targets,
        losses=-np.log(probabilities[np.arange(200), targets]),
        classes=tuple(classes),
    )
    evaluation.save({part: found}, run.path / evaluation.TABLE)


def test_front_matter_is_hugging_faces(run):
    front, page = parts(card(run, license="apache-2.0"))
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "fastcv"
    assert front["pipeline_tag"] == "image-classification"
    assert front["metrics"] == ["accuracy"]
    (index,) = front["model-index"]
    (result,) = index["results"]
    assert index["name"] == "digits"
    assert result["dataset"]["split"] == "validation"
    assert result["metrics"] == [{"type": "accuracy", "value": 0.988858}]
    assert page.startswith("\n# digits\n")
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    parsed = hub.ModelCard(card(run)).data.eval_results[0]
    assert (parsed.metric_type, parsed.metric_value) == ("accuracy", 0.988858)


def test_the_page_says_what_a_user_of_the_net_asks(run):
    _, page = parts(card(run, repository="me/digits"))
    low, high = evaluation.wilson(355, 359)
    assert f"| validation | 359 | 98.89% | {low:.2%} to {high:.2%} | 0.0474 |" in page
    assert "`MnistCNN` with 53,002 parameters" in page
    assert "`digits`: 1,438 training, 359 validation images." in page
    assert "| `schedule.0.lr` | `0.003` |" in page
    assert "| python | 3.11.7 |" in page
    assert "torch 2.14.1" in page
    assert 'snapshot_download("me/digits")' in page
    assert "Weights at the start: random." in page
    assert "No license has been stated" in page
    assert "onnxruntime" not in page  # it was not exported
    assert "Classes, in order: 0, 1, 2," in page


def test_predictions_give_the_weakest_classes(run):
    predicted(run, "0123456789")
    front, page = parts(card(run))
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.95
    assert "| validation | 200 | 95.00% |" in page
    table = page.split("The weakest classes on the validation images, by F1:\n\n")[1]
    rows = table.split("\n\n")[0].splitlines()[2:]
    assert len(rows) == 5
    assert rows[0] == "| 3 | 0.667 | 1.000 | 0.500 | 20 | 5 |"
    assert rows[1].startswith("| 5 | 0.800 |")


def test_the_test_images_that_validated_are_one_row_called_test(run):
    edit(run, "summary.json", lambda values: values.update(test_accuracy=0.9, test_loss=0.3))
    front, page = parts(card(run))
    splits = [each["dataset"]["split"] for each in front["model-index"][0]["results"]]
    assert splits == ["test"]
    assert "| test | 359 | 90.00% |" in page
    assert "| validation |" not in page
    edit(run, "summary.json", lambda values: values["images"].append(100))
    _, page = parts(card(run))
    assert "1,438 training, 359 validation, 100 test images" in page
    assert "| validation | 359 |" in page
    assert "| test | 100 | 90.00% |" in page


def test_text_of_the_runs_files_stays_text(run):
    classes = [HOSTILE, *"123456789"]
    (run.path / "classes.json").write_text(json.dumps(classes), encoding="utf-8")
    predicted(run, classes)
    edit(run, "environment.json", lambda values: values.update(device_name=HOSTILE))
    edit(
        run,
        "environment.json",
        lambda values: values["packages"].update({"torch": "<b>2</b>"}),
    )
    text = card(run, license=HOSTILE)
    front, page = parts(text)
    assert front["license"] == " ".join(HOSTILE.split())
    assert set(front) == set(parts(card(Run(OLDER)))[0])
    assert "<script" not in page
    assert "<b>" not in page
    assert "[a](http" not in page
    assert "\n---\n" not in page
    assert page.count("&lt;script>alert(1)&lt;/script>") == 3  # two tables and the list of classes


def test_no_folder_of_the_trainers_machine_is_named(run):
    secret = "/home/somebody/secret/birds"

    def change(values):
        values["flat"]["data.path"] = secret
        values["flat"]["data.source"] = "fastcv.data:ImageFolders()"
        values["flat"]["data.source.path"] = secret
        values["flat"]["data.source.valid"] = 0.2
        values["flat"]["data.source.seed"] = 42
        values["flat"]["model"] = "fastcv.learning:Pretrained()"
        for key in [key for key in values["flat"] if key.startswith("model.")]:
            del values["flat"][key]
        values["flat"]["model.arch"] = "torchvision.models:resnet18"
        values["flat"]["model.weights"] = f"{secret}/start.safetensors"

    edit(run, "recipe.json", change)
    edit(run, "environment.json", lambda values: values.update(command=f"fastcv --data {secret}"))
    front, page = parts(card(run))
    assert "secret" not in page
    assert "somebody" not in page
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "birds"
    assert "`resnet18` with" in page
    assert "the file `start.safetensors`, whose license holds" in page


def test_pretrained_weights_are_named_with_their_license(run):
    def change(values):
        for key in [key for key in values["flat"] if key.startswith("model")]:
            del values["flat"][key]
        values["flat"]["model"] = "fastcv.learning:Pretrained()"
        values["flat"]["model.arch"] = "torchvision.models:resnet18"
        values["flat"]["model.weights"] = "IMAGENET1K_V1"

    edit(run, "recipe.json", change)
    _, page = parts(card(run))
    assert "torchvision's `IMAGENET1K_V1` of `resnet18`" in page
    assert "BSD-3-Clause" in page


def test_weights_of_timm_are_named_with_their_license(run):
    def change(values):
        for key in [key for key in values["flat"] if key.startswith("model")]:
            del values["flat"][key]
        values["flat"]["model"] = "fastcv.learning:Pretrained()"
        values["flat"]["model.arch"] = "convnextv2_atto"
        values["flat"]["model.weights"] = "fcmae_ft_in1k"

    edit(run, "recipe.json", change)
    _, page = parts(card(run))
    assert "`convnextv2_atto.fcmae_ft_in1k` with" in page
    assert "timm's `convnextv2_atto.fcmae_ft_in1k`. Their license is `cc-by-nc-4.0`" in page


def test_a_known_data_set_is_linked(run):
    edit(
        run,
        "recipe.json",
        lambda values: values["flat"].update({"data.source": "fastcv.data:mnist"}),
    )
    front, page = parts(card(run))
    assert front["datasets"] == ["ylecun/mnist"]
    assert "[ylecun/mnist](https://huggingface.co/datasets/ylecun/mnist)" in page


def test_the_card_is_written_into_the_run(run):
    assert write_card(run) == (run.path / "MODEL.md").read_text(encoding="utf-8") == card(run)


def test_a_run_that_did_not_finish_has_no_card(run):
    (run.path / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"must be of a finished run, .*fastcv resume"):
        card(run)
