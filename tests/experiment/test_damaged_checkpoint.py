"""A checkpoint that is damaged, or another training's, is refused in one sentence."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from torch import nn

from fastcv.experiment.directory import Run
from fastcv.experiment.results import Results
from fastcv.experiment.train import resume, train
from fastcv.learning import OneCycle, weights
from fastcv.learning.callbacks import checkpoint
from fastcv.recipes.digits import recipe as digits


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that Ctrl-C stopped after its last epoch."""

    def stop(self, parameters):
        raise KeyboardInterrupt

    out = tmp_path_factory.mktemp("runs")
    recipe = replace(
        digits,
        data=replace(digits.data, train_per_class=8),
        schedule=(OneCycle(epochs=1, lr=1e-3),),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Results, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=out, wandb="off", device="cpu", write=lambda line: None)
    (path,) = (out / "digits").iterdir()
    return path


@pytest.fixture
def run(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "digits" / stopped.name)


def refusal(run):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the caller looks at the sentence)
        resume(run, write=lambda line: None)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "weights_only" not in sentence
    return sentence


def test_every_flipped_bit_is_noticed(run):
    file = run / "last.ckpt"
    good = file.read_bytes()
    for place in range(1000, len(good) - 1000, len(good) // 12):
        bad = bytearray(good)
        bad[place] ^= 1
        file.write_bytes(bad)
        with suppress(ValueError):
            found = checkpoint.read(file)
            file.write_bytes(good)  # between two entries, where nothing is kept
            assert same(found, checkpoint.read(file))
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    file.write_bytes(flipped)
    assert "the checksum of its" in refusal(run) or "cannot be read" in refusal(run)


def same(a, b):
    if torch.is_tensor(a):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


CHANGES = {
    "empty": (lambda state: {}, "has no such 'stage'"),
    "a list": (lambda state: [1], "has no such 'stage'"),
    "a count that is none": (lambda state: state | {"epochs": True}, "has no such 'epochs'"),
    "a negative count": (lambda state: state | {"epochs": -1}, "counts of 0 or more"),
    "int keys": (lambda state: state | {"model": {1: torch.zeros(1)}}, "must hold tensors by name"),
    "another stage": (lambda state: state | {"stage": 3}, "it was written in stage 4 of 1"),
    "another fit": (lambda state: state | {"fit": 2}, "in a fit that its stages do not have"),
    "another net": (
        lambda state: state | {"model": nn.Linear(2, 2).state_dict()}, "MnistCNN has other weight"
    ),
    "another optimizer": (
        lambda state: state | {"optimizer": {"state": {}, "param_groups": []}}, "does not fit: "
    ),
    "another optimizer's state": (
        lambda state: state | {"optimizer": state["optimizer"] | {"state": {0: {
            "step": torch.ones(()), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}}}},
        r"the optimizer's exp_avg has shape \(3,\) instead of",
    ),
    "other callbacks": (
        lambda state: state | {"callbacks": [{}, {}]}, "it holds 2 states of callbacks, not 0"
    ),
    "no random states": (lambda state: state | {"random": {}}, "does not fit: 'python'"),
    "rates that are none": (lambda state: state | {"found": [3]}, "does not fit: "),
    "within an epoch, without it": (lambda state: state | {"batch": 2}, "has no such 'begun'"),
    "an object": (lambda state: state | {"own": nn.Linear(1, 1)}, "holds also torch.nn.*Linear"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_another_checkpoint_is_refused(run, change, words):
    import re

    file = run / "last.ckpt"
    torch.save(change(torch.load(file, weights_only=True)), file)
    assert re.search(words, refusal(run))


@pytest.mark.parametrize(
    "change",
    [
        lambda started: {},
        lambda started: started | {"flat": []},
        lambda started: started | {"flat": started["flat"] | {"schedule.0.lr": -1}},
        lambda started: started | {"flat": started["flat"] | {"optimizer": 3}},
        lambda started: started | {"flat": started["flat"] | {"data.batch_size": "many"}},
        lambda started: started | {"flat": {"seed": 0}},
        lambda started: started | {"settings": {"device": 3}},
    ],
)
def test_a_damaged_recipe_is_refused(run, change):
    file = run / "recipe.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    refusal(run)


@pytest.mark.parametrize("name", ["recipe.json", "environment.json"])
def test_a_file_that_is_cut_off_is_refused(run, name):
    file = run / name
    file.write_bytes(file.read_bytes()[:50])
    assert "must be JSON" in refusal(run)


def test_the_checkpoint_itself_goes_on(run, monkeypatch):
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    assert resume(run, write=lambda line: None).summary["epochs"] == 1
    assert Run(run).metrics[0]["epoch"] == 1


class Own:
    pass


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({1: torch.zeros(2)}, "must hold tensors by name"),
        ({"a": Own()}, r"got also \S*Own: save model.state_dict\(\) alone"),
        (nn.Linear(1, 1), "got also torch.nn.modules.linear.Linear"),
    ],
)
def test_weights_with_other_objects_are_one_sentence_without_torchs_advice(tmp_path, held, words):
    torch.save(held, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=words) as caught:
        weights.read(tmp_path / "net.pth")
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_weights_with_a_flipped_bit_are_refused(tmp_path):
    file = tmp_path / "net.pth"
    torch.save({"weight": torch.zeros(4000)}, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"the checksum of its .* is wrong"):
        weights.read(file)
