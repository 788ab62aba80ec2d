"""What a stage must offer: the example of its Protocol, run, and every stage of fastcv's."""

import inspect
import textwrap
from dataclasses import dataclass, replace

import pytest
from test_schedules import make_learner, rates

import fastcv
from fastcv.experiment.results import Results
from fastcv.learning import (
    Constant,
    Cosine,
    Linear,
    OneCycle,
    Plateau,
    Stage,
    StageLike,
    with_augment,
)


def test_the_example_of_the_protocol_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    _, _, example = inspect.getdoc(StageLike).partition("complete:\n")
    code = textwrap.dedent(example)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    found = {"__name__": "stages_example"}
    monkeypatch.setitem(__import__("sys").modules, "stages_example", type(fastcv)("stages_example"))
    exec(code, found)
    run = found["run"]
    assert len(run.metrics) == 2
    assert run.summary["valid_accuracy"] > 0.8
    assert found["FlatCosine"](epochs=5, lr=1.0).smoke().epochs == 1


@pytest.mark.parametrize(
    "stage",
    [
        *(kind(epochs=3, lr=0.1) for kind in (Constant, Cosine, Linear, OneCycle, Plateau)),
        with_augment(Constant(epochs=3, lr=0.1)),
    ],
    ids=lambda stage: type(stage).__name__,
)
def test_every_stage_offers_what_the_protocol_asks(stage):
    members = {name for name in vars(StageLike) if not name.startswith("_")} | {"__call__"}
    assert members == {"epochs", "smoke", "__call__"}
    assert all(hasattr(stage, name) for name in members)
    assert stage.epochs == 3
    assert stage.smoke().epochs == 1


@dataclass(frozen=True, kw_only=True)
class Steps(Stage):
    """A stage of a user's own: the rate is halved in every epoch."""

    def curve(self):
        return lambda step, epoch, steps, epochs: (0.5**epoch, None)


def test_a_stage_of_ones_own_is_a_curve():
    learn = make_learner()
    Steps(epochs=3, lr=0.1)(learn)
    assert rates(learn) == pytest.approx([0.1 * 0.5**epoch for epoch in range(3) for _ in range(5)])
    assert replace(Steps(epochs=3, lr=0.1), epochs=1) == Steps(epochs=3, lr=0.1).smoke()
