import tracemalloc

import pytest

from fastcv.learning.callbacks.steps import Steps

ROWS = [
    {"step": 1, "loss": 0.1 + 0.2, "lr": 1e-3, "momentum": None},
    {"step": 2, "loss": 2.0**-1074, "lr": 1 / 3, "momentum": 0.9},
    {"step": 3, "loss": 1e300, "lr": 0.0, "momentum": 0.95},
]


def test_steps_are_the_rows_they_were_given():
    steps = Steps(ROWS[:2])
    steps.extend(ROWS[2:])
    assert len(steps) == 3
    assert steps == ROWS
    assert list(steps) == [steps[place] for place in range(3)] == ROWS
    assert steps[1:] == ROWS[1:]
    assert steps[-1] == ROWS[-1]
    assert steps != ROWS[:2]
    with pytest.raises(IndexError):
        steps[3]


def test_state_and_the_rows_of_an_older_checkpoint_restore_them():
    steps = Steps(ROWS)
    for state in (steps.state(), ROWS):
        other = Steps(ROWS[:1])
        other.restore(state)
        assert other == steps
    broken = steps.state()
    with pytest.raises(ValueError, match="several lengths"):
        other.restore({**broken, "lr": broken["lr"][:1]})


def test_many_steps_need_little_memory():
    tracemalloc.start()
    try:
        steps = Steps({"loss": 0.5 + n, "lr": 0.1 * n, "momentum": 0.9} for n in range(20_000))
        assert tracemalloc.get_traced_memory()[0] < 40 * len(steps)  # bytes
    finally:
        tracemalloc.stop()
