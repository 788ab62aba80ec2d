"""Settings of a stage that became its callbacks, read from older flat recipes."""

import pytest

from fastcv.recipe.aliases import current_flat

LINEAR = "fastcv.learning.stages:Linear()"
VIEWS = {
    "schedule.0.views": "fastcv.learning.views:Views()",
    "schedule.0.views.mirror": False,
    "schedule.0.views.shift": 2,
}


@pytest.mark.parametrize(
    ("older", "today"),
    [
        ({"schedule.0.first_epochs": None, "schedule.0.views": None}, {"callbacks": []}),
        (
            {"schedule.0.first_epochs": 3, "schedule.0.views": None},
            {"callbacks.0": "fastcv.learning:FreezeFirst()", "callbacks.0.after": 3},
        ),
        (
            {"schedule.0.first_epochs": None} | VIEWS,
            {
                "callbacks.0": "fastcv.learning:TTA()",
                "callbacks.0.mirror": False,
                "callbacks.0.shift": 2,
            },
        ),
        (
            {"schedule.0.first_epochs": 0} | VIEWS,
            {
                "callbacks.0": "fastcv.learning:FreezeFirst()",
                "callbacks.0.after": 0,
                "callbacks.1": "fastcv.learning:TTA()",
                "callbacks.1.mirror": False,
                "callbacks.1.shift": 2,
            },
        ),
    ],
)
@pytest.mark.parametrize("place", ["schedule.0", "schedule.0.stage"])
def test_settings_that_became_callbacks(older, today, place):
    stage = {f"{place}{key.removeprefix('schedule.0')}": value for key, value in older.items()}
    outer = {} if place == "schedule.0" else {"schedule.0": "fastcv.learning.augment:Augmented()"}
    wanted = {f"{place}.{key}": value for key, value in today.items()}
    wanted |= {place: "fastcv.learning:Linear()", "callbacks": [], "metrics": []}
    if outer:
        wanted["schedule.0"] = "fastcv.learning:WithAugment()"
    assert current_flat({**outer, place: LINEAR, **stage}) == wanted
    assert current_flat(wanted) == wanted


def test_what_is_no_recipe_is_left_alone():
    assert current_flat({}) == {}
    assert current_flat({"data.normalise": None}) == {"data.normalize": None}
