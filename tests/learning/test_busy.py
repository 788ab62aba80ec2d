"""A machine that other programs keep busy, from three clocks."""

import os
from dataclasses import replace

import pytest

from fastcv.experiment.building import learner
from fastcv.learning.callbacks import busy as module
from fastcv.learning.callbacks.busy import Busy, Clocks, busy
from fastcv.recipes.digits import recipe as digits


def clocks(own, every):
    return Clocks(wall=10.0, own=own, every=every)


@pytest.mark.parametrize(
    ("own", "every", "threads", "expected"),
    [
        (19.0, 19.5, 2, None),  # alone
        (9.8, 10.2, 1, None),  # alone, with one thread of two processors
        (9.5, 19.8, 1, None),  # another program has the other processor: none waits
        (9.0, 20.0, 2, "other programs take 1.1 of 2 processors.*, or start with --threads 1$"),
        (4.0, 20.0, 1, "other programs take 1.6 of 2 processors.* or wait for them$"),
        (6.0, 6.5, 2, None),  # it waits for a disk
    ],
)
def test_busy_is_what_others_take_while_the_training_waits(own, every, threads, expected):
    import re

    line = busy(Clocks(wall=0.0, own=0.0, every=0.0), clocks(own, every), 2, threads)
    assert line is None if expected is None else re.search(expected, line)


def test_clocks_count_the_work_of_the_processors_that_may_be_used(tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  900 900 900 900 900 900 900 900 0 0\n"
        "cpu0 100 200 300 999 999 400 500 600 7 7\ncpu1 1 1 1 1 1 1 1 1 1 1\nintr 5\n"
    )
    monkeypatch.setattr(module, "_STAT", stat)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    assert Clocks.now().every * os.sysconf("SC_CLK_TCK") == 2100
    stat.unlink()
    assert Clocks.now() is None


def test_it_is_said_once_in_the_first_epoch(monkeypatch, capsys):
    monkeypatch.setattr(module, "FEWEST_SECONDS", 0.0)
    monkeypatch.setattr(module, "busy", lambda *values: "the machine is busy")
    learn = learner(replace(digits, data=replace(digits.data, train_per_class=4)), device="cpu")
    learn.create_opt()
    learn.fit(2, cbs=Busy())
    assert capsys.readouterr().out.count("the machine is busy") == 1
