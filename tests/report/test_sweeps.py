"""Sweeps in the report: read from their folders, as tables and as charts."""

import json
import math

import pytest

from fastcv import report
from fastcv.experiment.sweep import Sweep, Trial
from fastcv.experiment.sweep.space import parse
from fastcv.report import sweeps
from fastcv.report.read import read_runs

RATES = [1e-4, 1e-3, 1e-2, 1e-1]


def made(**values):
    trials = [
        Trial(
            number=number,
            state="finished",
            settings={"schedule.0.lr": f"{rate:g}", "optimizer": ("Adam", "SGD")[number % 2]},
            value=0.9 - 0.1 * abs(math.log10(rate) + 2),
            epochs=3,
            seconds=6.0,
            images=100,
        )
        for number, rate in enumerate(RATES)
    ]
    trials.append(Trial(number=4, state="failed", settings={}, reason="out of <b>memory</b>"))
    search = ("schedule.0.lr=0.0001..0.1:log", "optimizer=Adam,SGD")
    settings = {
        "name": "digits", "recipe": "digits", "settings": ("seed=3",), "search": search,
        "monitor": "valid_accuracy", "final": "valid_accuracy", "grid": False, "smoke": False,
        "trials": tuple(trials), "importances": {"schedule.0.lr": 0.7, "optimizer": 0.3},
    }  # fmt: skip
    return Sweep(**settings | values)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "runs/sweeps/digits"
    place.mkdir(parents=True)
    made().write(place)
    return place


def test_sweeps_are_found_at_any_depth_and_their_trials_are_no_runs(tmp_path, folder):
    run = folder / "trials/0000/digits/20260101-120000-seed0"
    run.mkdir(parents=True)
    (run / "recipe.json").write_text("{}")
    warnings = []
    assert sweeps.gather([tmp_path / "runs", folder], warnings.append) == [made()]
    assert read_runs(tmp_path / "runs", warnings.append) == []
    assert warnings == []


@pytest.mark.parametrize(
    "change",
    [
        {"trials": [{"number": 0, "state": "finished", "settings": {}, "value": None}]},
        {"trials": [{"number": 0, "state": "lost", "settings": {}}]},
        {"trials": [{"number": 0}]},
        {"trials": 3},
        {"name": "../digits"},
        {"search": [3]},
        {"importances": {"a": "b"}},
        {"more": 1},
    ],
)
def test_a_damaged_sweep_is_left_out_with_a_word(tmp_path, folder, change):
    file = folder / "sweep.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    warnings = []
    assert sweeps.gather([tmp_path], warnings.append) == []
    assert len(warnings) == 1
    assert str(folder) in warnings[0]


def test_a_report_shows_the_best_settings_and_the_charts(tmp_path):
    hostile = made(name="digits (2)", settings=("data.path=<script>",))
    markdown, page = report.write([], tmp_path, sweeps=[made(), hostile])
    text, html = markdown.read_text(), page.read_text()
    row = "| 2 | 90.00 % | `0.01` | `Adam` | 3 | 6.0 s |"
    assert text.count(row) == 2
    assert "5 trials: 4 finished, 1 failed" in text
    command = "fastcv recipe digits --set seed=3 --set schedule.0.lr=0.01 --set optimizer=Adam"
    assert f"`{command}`" in text
    assert "<script>" not in html
    for kind in ("importances", "trials"):
        for name in ("sweep-1-digits", "sweep-2-digits--2-"):
            assert (tmp_path / "figures" / f"{name}-{kind}.png").is_file()
            assert f"figures/{name}-{kind}.png" in text
    assert html.count("<figure") == 4
    printed = sweeps.as_text([made()])
    assert "sweep digits: 5 trials, best: validation accuracy 90.00 % (95 % interval" in printed


def test_values_stand_where_their_axis_says():
    part = parse("schedule.0.lr=1e-4..1e-1:log")
    assert [sweeps.place(part, f"{rate:g}") for rate in RATES] == pytest.approx(
        [0, 1 / 3, 2 / 3, 1]
    )
    assert sweeps.ticks(part) == pytest.approx(
        {sweeps.place(part, text): text for text in ("0.0001", "0.001", "0.01", "0.1")}
    )
    assert sweeps.ticks(parse("a=0..8")) == {0.0: "0", 0.25: "2", 0.5: "4", 0.75: "6", 1.0: "8"}
    assert sweeps.ticks(parse("a=x,y,z")) == {0.0: "x", 0.5: "y", 1.0: "z"}


def test_the_chart_draws_every_finished_trial_and_the_best_last():
    figure = sweeps.parallel(made())
    (axes,) = figure.axes
    lines = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(lines) == 4
    assert lines[-1] == pytest.approx([2 / 3, 0, 1])
    assert lines[0] == pytest.approx([0, 0, 0])


def test_a_loss_is_best_where_it_is_low():
    found = made(monitor="valid_loss", final="valid_loss")
    assert found.best.number == 0  # the values are those of accuracies
    assert found.interval is None
    labels = [each.get_text() for each in sweeps.parallel(found).axes[0].get_xticklabels()]
    assert labels[-1] == "validation loss (low is good)"


def test_a_sweep_without_a_finished_trial_is_described(tmp_path):
    empty = made(trials=(Trial(number=0, state="running", settings={}),), importances={})
    markdown, _ = report.write([], tmp_path, sweeps=[empty])
    assert "1 trial: 1 running. No trial is finished." in markdown.read_text()
    assert empty.command == ""
