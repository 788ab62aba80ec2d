"""The ladders of Reports 002 and 003: what each step changes in the one that it builds on."""

import inspect

import pytest

from fastcv.nets import ScaledResNet
from fastcv.recipe import flat
from fastcv.recipe.diff import decisive, diff
from fastcv.recipes import light_resnet_cifar10, resnet_cifar100, vgg_cifar100

RESNET = {"recipe": resnet_cifar100.recipe, **resnet_cifar100.variants}
LIGHT = {"recipe": light_resnet_cifar10.recipe, **light_resnet_cifar10.variants}
NET = "model.settings"

# step, the step it builds on, and where it differs: all keys that begin so
STEPS = [
    (RESNET, "step01", "starter", [NET]),
    (RESNET, "step02", "step01", ["model.net", NET]),
    (RESNET, "step03", "step02", [f"{NET}.depths"]),
    (RESNET, "step04", "step03", [f"{NET}.depths", f"{NET}.convs", f"{NET}.max_pools"]),
    (RESNET, "step05", "step04", [f"{NET}.shortcut"]),
    (RESNET, "step06", "step05", [f"{NET}.scale"]),
    (RESNET, "step07", "step06", [f"{NET}.hidden_norm"]),
    (RESNET, "step08", "step06", ["data.normalize"]),
    (RESNET, "step09", "step08", ["data.augment"]),
    (RESNET, "step10", "step09", ["schedule.0.epochs"]),
    (RESNET, "recipe", "step10", []),
    (LIGHT, "model5", "recipe", []),
    (LIGHT, "model1", "recipe", [f"{NET}.widths", f"{NET}.depths", f"{NET}.strides"]),
    (LIGHT, "model0", "model1", ["data.batch_size"]),
    (LIGHT, "model2", "model0", ["optimizer"]),
    (LIGHT, "model3", "model1", ["data.batch_size"]),
    (LIGHT, "model4", "model3", ["data.valid_batch_size"]),
    (LIGHT, "model6", "model1", ["schedule.0.lr"]),
    (LIGHT, "model7", "model1", ["schedule.0.lr"]),
    (LIGHT, "model8", "recipe", [f"{NET}.depths"]),
]


@pytest.mark.parametrize(
    ("ladder", "step", "base", "where"), STEPS, ids=[f"{s[1]}-{s[2]}" for s in STEPS]
)
def test_step_is_its_base_and_one_change(ladder, step, base, where):
    changed = diff(flat(ladder[base]), flat(ladder[step]))
    begin = {key: [each for each in where if f"{key}.".startswith(f"{each}.")] for key in changed}
    assert [key for key, found in begin.items() if not found] == []
    assert {each for found in begin.values() for each in found} == set(where)


def test_no_two_steps_are_the_same():
    for ladder in (RESNET, LIGHT):
        steps = {name: decisive(flat(each)) for name, each in ladder.items() if name != "recipe"}
        names = list(steps)
        same = [(a, b) for a in names for b in names if a < b and steps[a] == steps[b]]
        assert same == []


def test_both_ladders_on_cifar100_start_at_one_starter():
    given = vgg_cifar100.variants["starter"]
    assert diff(flat(given), flat(RESNET["starter"])) == {}
    assert given.reported != RESNET["starter"].reported


def test_resnet_ladder_ends_in_the_printed_table():
    """The net's own defaults are the table; the ladder must come to them change by change."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(ScaledResNet).parameters.items()
    }
    for step in ("step06", "step08", "step09", "step10", "one_cycle"):
        assert RESNET[step].model.net is ScaledResNet
        settings = RESNET[step].model.settings
        assert settings == {name: defaults[name] for name in settings}


def test_resnet_one_cycle_keeps_net_and_cut():
    changed = diff(flat(RESNET["step10"]), flat(RESNET["one_cycle"]))
    assert not [key for key in changed if key.startswith(("model", "data.holdout", "data.source"))]
