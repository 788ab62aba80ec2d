"""Contracts over every recipe and every variant there is."""

import importlib
import json
import sys
from dataclasses import replace

import pytest

from fastcv import catalogue
from fastcv.recipe import flat, learner, train, unflat
from fastcv.recipe.training import smoked

EVERY = [entry.name for entry in catalogue.entries()]


@pytest.mark.parametrize("name", EVERY)
def test_recipe_is_a_value_that_json_can_hold(name):
    recipe = catalogue.load(name)
    assert recipe.name == name
    assert unflat(json.loads(json.dumps(flat(recipe)))) == recipe
    assert replace(recipe, seed=7) != recipe


@pytest.mark.parametrize("name", catalogue.names())
def test_importing_a_recipe_reads_only_python(name, monkeypatch):
    module = f"fastcv.recipes.{name}"
    importlib.import_module(module)  # what it imports is there from now on
    monkeypatch.delitem(sys.modules, module)
    seen = []
    watching = True  # an audit hook stays for good: this ends what it does

    def watch(event, arguments):
        if watching and event in ("open", "socket.connect", "os.mkdir"):
            seen.append(str(arguments[0]))

    sys.addaudithook(watch)
    importlib.import_module(module)
    watching = False
    assert [each for each in seen if not each.endswith((".py", ".pyc"))] == []
    assert seen  # the hook saw the recipe file itself


@pytest.mark.parametrize("name", EVERY)
def test_one_cycle_takes_at_most_a_third_of_the_epochs(name):
    if not name.endswith("/one_cycle"):
        pytest.skip("not a one_cycle variant")
    module = catalogue.load_file(catalogue.source_file(name.partition("/")[0]))

    def epochs(recipe):
        return sum(stage.epochs for stage in recipe.schedule)

    others = [module.recipe, *module.variants.values()]
    longest = max(epochs(recipe) for recipe in others)
    assert epochs(module.variants["one_cycle"]) <= longest / 3


@pytest.mark.parametrize("name", EVERY)
def test_net_has_the_reported_number_of_parameters(name):
    recipe = catalogue.load(name)
    if recipe.reported is None or recipe.reported.parameters is None:
        pytest.skip("its report gives no number of parameters")
    learn = learner(smoked(recipe), device="cpu")
    assert sum(p.numel() for p in learn.model.parameters()) == recipe.reported.parameters


@pytest.mark.parametrize("name", EVERY)
def test_smoke_run_trains_end_to_end(name, tmp_path):
    run = train(catalogue.load(name), out=tmp_path, wandb="off", device="cpu", smoke=True)
    stages = catalogue.load(name).schedule
    assert run.summary["epochs"] == len(stages)
    assert run.summary["train_loss"] > 0
    assert (run.path / "figures" / "predictions.png").is_file()
