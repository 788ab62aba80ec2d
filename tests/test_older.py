"""What the first fastcv saved, whose addresses and names are others, is read by today's."""

import json
import shutil
from pathlib import Path

import pytest

import fastcv
from fastcv import catalogue
from fastcv.recipe import flat, unflat
from fastcv.recipe.aliases import NAMES, current_flat
from fastcv.recipe.diff import with_defaults
from fastcv.report import gather

OLDER = Path(__file__).parent / "older"
FLATS = json.loads((OLDER / "flats.json").read_text(encoding="utf-8"))


@pytest.fixture
def copied(tmp_path):
    """Copy one of the saved runs to a folder of runs that the test may change."""

    def copy(name):
        return shutil.copytree(OLDER / name, tmp_path / "digits" / "20260101-120000-seed0")

    return copy


@pytest.mark.parametrize("name", FLATS)
def test_every_experiment_saved_under_older_names_is_todays(name):
    today = catalogue.get_recipe(NAMES.get(name, name))
    values = json.loads(json.dumps(flat(today)))
    assert with_defaults(current_flat(FLATS[name]), values) == values
    assert unflat(FLATS[name]) == today


def test_an_older_run_is_reported_as_the_same_experiment(copied):
    run = fastcv.Run(copied("finished"))
    (digits,) = [each for each in gather([run.path.parent.parent]) if each.name == "digits"]
    assert not digits.changed
    assert [result.measured["valid_accuracy"] for result in digits.results] == [
        run.summary["valid_accuracy"]
    ]


def test_an_older_run_is_found_finished_by_a_series(copied):
    from fastcv.experiment.series import plan

    run = copied("finished")
    (job,) = plan("digits", out=run.parent.parent)
    assert job.run.path == run


def test_an_older_run_is_loaded(copied):
    run = fastcv.Run(copied("finished"))
    assert run.recipe == fastcv.get_recipe("digits")
    learn = fastcv.learner(run.recipe, device="cpu")
    fastcv.learning.weights.load(learn.model, run.path / "model.safetensors")
    _, accuracy = learn.validate()
    assert accuracy == pytest.approx(run.summary["valid_accuracy"], abs=0.01)


def test_an_older_run_that_was_stopped_is_resumed(copied, undrawn):
    path = copied("stopped")
    before = fastcv.Run(path).metrics
    run = fastcv.resume(path, device="cpu", write=lambda line: None)
    assert run.metrics[: len(before)] == before
    assert [row["epoch"] for row in run.metrics] == list(range(1, 11))
    assert run.summary["valid_accuracy"] > 0.97


def test_names_are_unique_over_all_rooms():
    import importlib

    from fastcv.recipe.addresses import ROOMS

    names = [name for room in ROOMS for name in importlib.import_module(room).__all__]
    assert len(names) == len(set(names))
