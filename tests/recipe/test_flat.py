import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fastcv.recipe import Recipe, Reported, flat, named, override, unflat


class Slot:
    """What stands in a slot of a recipe can be called."""

    def __call__(self, *_, **__):
        """Build nothing."""


@dataclass(frozen=True, kw_only=True)
class Photos(Slot):
    size: int = 32
    augment: tuple = ()
    path: str | None = None


@dataclass(frozen=True, kw_only=True)
class Noise:
    amount: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Net(Slot):
    build: object = len
    settings: dict = field(default_factory=dict)
    weights: str | None = "IMAGENET"


@dataclass(frozen=True, kw_only=True)
class Part(Slot):
    epochs: int
    lr: float | tuple[float, float] | str
    frozen: bool | int = False


def make_optimizer(params, lr):
    """Stand in for an optimizer."""


def make_loss():
    """Stand in for a loss."""


def make_recipe():
    return Recipe(
        data=Photos(augment=(Noise(), Noise(amount=0.1))),
        model=Net(build=make_optimizer, settings={"widths": (1, 2), "norm": None}),
        schedule=(Part(epochs=3, lr="valley", frozen=True), Part(epochs=12, lr=(1e-5, 1e-3))),
        optimizer=make_optimizer,
        loss=make_loss,
        reported=Reported(source="000", test_accuracy=0.5),
        name="test_flat",
    )


def test_flat_names_every_value_by_its_path():
    values = flat(make_recipe())
    assert values["schedule.0.epochs"] == 3
    assert values["schedule.1.lr"] == [1e-5, 1e-3]
    assert values["data.augment.1.amount"] == 0.1
    assert values["model.settings.widths"] == [1, 2]
    assert values["model.settings.norm"] is None
    assert values["optimizer"].endswith("test_flat:make_optimizer")
    assert values["reported.test_accuracy"] == 0.5
    assert values["name"] == "test_flat"


def test_flat_survives_json_and_builds_the_same_recipe():
    recipe = make_recipe()
    assert unflat(json.loads(json.dumps(flat(recipe))), trust=True) == recipe


def test_flat_of_empty_slots_survives():
    recipe = replace(make_recipe(), schedule=(), data=Photos(), model=Net(), reported=None)
    assert unflat(json.loads(json.dumps(flat(recipe))), trust=True) == recipe


def test_flat_refuses_what_cannot_be_written_down():
    with pytest.raises(ValueError, match="named function or class of a module, got <function"):
        flat(replace(make_recipe(), loss=lambda: None))
    with pytest.raises(ValueError, match="a dataclass or a named callable, got complex"):
        flat(replace(make_recipe(), model=Net(weights=1j)))


@pytest.mark.parametrize(
    "settings",
    [{1: "a"}, {0: "a", 1: "b"}, {"0": "a"}, {"a.b": 1}, {"": 1}, {"note": "os:sep"}],
    ids=str,
)
def test_flat_refuses_what_would_not_come_back(settings):
    with pytest.raises(ValueError, match=r"must (be words|not read like the address).*'model.sett"):
        flat(replace(make_recipe(), model=Net(settings=settings)))


def test_a_path_and_text_with_a_colon_come_back():
    settings = {"where": Path("/x/y"), "note": "ours: the first", "list": ("os:sep",)}
    recipe = replace(make_recipe(), model=Net(settings=settings))
    found = unflat(json.loads(json.dumps(flat(recipe))), trust=True).model.settings
    assert found == settings | {"where": "/x/y"}


def test_unflat_says_what_cannot_be_imported():
    values = flat(make_recipe()) | {"optimizer": "no_such_module:Thing"}
    with pytest.raises(ValueError, match="'no_such_module:Thing' must name something importable"):
        unflat(values, trust=True)


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("schedule.0.epochs=5", "schedule.0.epochs", 5),
        ("schedule.0.lr=0.1", "schedule.0.lr", 0.1),
        ("schedule.0.lr=1", "schedule.0.lr", 1.0),
        ("schedule.0.lr=(1e-4, 1e-2)", "schedule.0.lr", [1e-4, 1e-2]),
        ("schedule.1.lr=steep", "schedule.1.lr", "steep"),
        ("schedule.0.frozen=false", "schedule.0.frozen", False),
        ("schedule.0.frozen=4", "schedule.0.frozen", 4),
        ("data.path=/tmp/x y", "data.path", "/tmp/x y"),
        ("data.path=2024", "data.path", "2024"),
        ("data.augment.0.amount=2", "data.augment.0.amount", 2.0),
        ("model.weights=None", "model.weights", None),
        ("model.settings.widths=(3, 4, 5)", "model.settings.widths", [3, 4, 5]),
        ("seed=7", "seed", 7),
    ],
)
def test_override_reads_by_type(setting, key, value):
    changed = flat(override(make_recipe(), setting))
    assert changed[key] == value
    assert type(changed[key]) is type(value)
    unchanged = {name: old for name, old in flat(make_recipe()).items() if name != key}
    assert {name: new for name, new in changed.items() if name != key} == unchanged


def test_override_leaves_the_recipe_alone():
    recipe = make_recipe()
    override(recipe, "schedule.0.epochs=5", "model.settings.widths=(9,)")
    assert recipe == make_recipe()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("schedule.0.epoch=5", "'schedule.0.epoch'. Did you mean 'schedule.0.epochs'"),
        ("schedule.9.epochs=5", "no setting is called 'schedule.9.epochs'"),
        ("sead=5", "Did you mean 'seed'"),
        ("schedule.0.epochs=many", "schedule.0.epochs must be int, got 'many'"),
        ("schedule.0.epochs=1.5", "schedule.0.epochs must be int, got '1.5'"),
        ("seed", "key=value, got 'seed'"),
    ],
)
def test_override_refuses_in_one_sentence(setting, message):
    with pytest.raises(ValueError, match=r"must|Did you mean") as error:
        override(make_recipe(), setting)
    assert message in str(error.value)


def test_named_variants_carry_their_names():
    recipe = make_recipe()
    variants = named(recipe, short=replace(recipe, seed=1), long=replace(recipe, seed=2))
    assert [value.name for value in variants.values()] == ["test_flat/short", "test_flat/long"]
    assert named(recipe, again=variants["short"])["again"].name == "test_flat/again"
