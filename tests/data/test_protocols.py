"""The examples in the docstrings of `Source`, `Data` and `Augmentation`, run as they stand."""

import re
import runpy
import textwrap
from dataclasses import replace

import pytest
import torch

import fastcv
from fastcv.augment import Augmentation, HorizontalFlip, MixUp
from fastcv.data import Data, Images, Source, Toy
from fastcv.learning import SGD, CrossEntropy, FromScratch, OneCycle


@pytest.fixture(params=[Source, Data, Augmentation], ids=lambda protocol: protocol.__name__)
def example(request, tmp_path):
    _, _, code = textwrap.dedent(request.param.__doc__.expandtabs()).partition("complete:\n")
    file = tmp_path / "example.py"
    file.write_text(textwrap.dedent(code))
    return runpy.run_path(file)


def recipe_of(data):
    return fastcv.Recipe(
        data=data,
        model=FromScratch(net=fastcv.nets.BaseNet),
        optimizer=SGD(),
        loss=CrossEntropy(),
        schedule=(OneCycle(epochs=1, lr=0.01),),
    )


def test_example_trains_an_epoch(example):
    recipe = recipe_of(example["data"])
    learn = fastcv.learner(recipe, device="cpu")
    before = [each.clone() for each in learn.model.parameters()]
    recipe.schedule[0](learn)
    (row,) = learn.history.rows
    assert row["train_loss"] > 0
    assert row["valid_accuracy"] >= 0
    for old, new in zip(before, learn.model.parameters(), strict=True):
        assert not torch.equal(old, new)


@pytest.mark.parametrize("example", [Data], indirect=True)
def test_data_example_compares_and_smokes(example):
    data = example["data"]
    assert data == replace(data)
    assert len(data.smoke()("cpu").train.dataset) < len(data("cpu").train.dataset)


def test_loaders_of_images_have_all_attributes_that_data_describes():
    described = re.findall(r"^    - `(\w+)`: ", Data.__doc__, re.MULTILINE)
    assert described == ["image_shape", "valid_is_test", "skipped", "names", "groups", "mixing"]
    augment = (HorizontalFlip(), MixUp())
    dls = Images(source=Toy(), size=32, batch_size=8, augment=augment)("cpu")
    found = [getattr(dls, name) for name in described]
    names = found.pop(3)
    assert found == [(3, 32, 32), True, 0, {}, (MixUp(),)]
    assert [len(each) for each in names] == [len(loader.dataset) for loader in dls.loaders]
