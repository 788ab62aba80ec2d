from dataclasses import replace

from fastcv import catalogue
from fastcv.recipe import flat, override
from fastcv.recipe.diff import decisive, described, diff

RECIPE = catalogue.get_recipe("digits")


def test_essence_is_the_same_under_another_name_seed_and_speed():
    elsewhere = override(
        replace(RECIPE, name="mine", seed=3, precision="bf16", reported=None),
        "data.cache=off",
        "data.path=/somewhere",
    )
    assert decisive(flat(elsewhere)) == decisive(flat(RECIPE))
    assert diff(flat(elsewhere), flat(RECIPE)) == {}


def test_of_folders_of_ones_own_the_place_is_of_the_essence():
    from fastcv.data import ImageFolders

    folders = replace(RECIPE, data=replace(RECIPE.data, source=ImageFolders()))
    own = override(folders, "data.path=/a")
    other = override(own, "data.path=/b")
    assert diff(flat(own), flat(other)) == {"data.path": ("/a", "/b")}
    assert diff(decisive(flat(own)), decisive(flat(other))) == {"data.path": ("/a", "/b")}
    assert diff(flat(folders), flat(own)) == {}
    named = override(folders, "data.source.path=/a")
    assert diff(flat(named), flat(override(named, "data.path=/b")))


def test_differences_are_named_with_both_values():
    shorter = override(RECIPE, "schedule.0.epochs=1", "data.batch_size=7")
    epochs, batch = RECIPE.schedule[0].epochs, RECIPE.data.batch_size
    assert (
        diff(RECIPE, shorter)
        == diff(flat(RECIPE), flat(shorter))
        == {
            "data.batch_size": (batch, 7),
            "schedule.0.epochs": (epochs, 1),
        }
    )


def test_differences_of_unlike_lengths_have_none_where_a_value_is_missing():
    twice = replace(RECIPE, schedule=RECIPE.schedule * 2)
    found = diff(flat(RECIPE), flat(twice))
    assert found["schedule.1.epochs"] == (None, RECIPE.schedule[0].epochs)
    assert all(key.startswith("schedule.1") for key in found)


def test_every_value_that_decides_a_result_is_of_the_essence():
    kept = decisive(flat(RECIPE))
    roots = {key.partition(".")[0] for key in kept}
    assert roots == {"data", "model", "schedule", "optimizer", "loss", "callbacks"}
    assert "data.split_seed" in kept


def test_a_value_of_none_differs_from_one_that_is_not_there():
    said = replace(RECIPE, model=RECIPE.model.but(activation=None))
    assert "model.settings.activation" in diff(flat(RECIPE), flat(said))


def told(*settings, recipe=RECIPE):
    return described(diff(recipe, override(recipe, *settings)))


def test_a_change_is_described_with_both_values():
    assert told("schedule.0.epochs=1", "data.batch_size=7") == [
        "data.batch_size: 32 → 7",
        "schedule.0.epochs: 10 → 1",
    ]
    assert described({}) == []


def test_what_was_put_in_or_taken_out_has_its_settings_in_parentheses():
    flipped = override(RECIPE, "data.augment=HorizontalFlip(p=0.25)")
    assert described(diff(RECIPE, flipped)) == ["data.augment.0: None → HorizontalFlip(p=0.25)"]
    assert described(diff(flipped, RECIPE)) == ["data.augment.0: HorizontalFlip(p=0.25) → None"]
    assert told("data.source=LongTail(source=birds, ratio=7.5)", "data.balance=1") == [
        "data.source: digits → LongTail(source=birds, ratio=7.5, seed=0)",
        "data.balance: 0.0 → 1.0",
    ]


def test_two_objects_are_described_with_the_settings_that_differ():
    crops = override(RECIPE, "data.augment=RandomCrop(padding=2)", "optimizer=SGD")
    said = told("data.augment=TrivialAugment()", "optimizer=AdamW", recipe=crops)
    assert said == [
        "data.augment.0: RandomCrop(padding=2, padding_mode=zeros) → TrivialAugment()",
        "optimizer: SGD(momentum=0.9, weight_decay=0.0, nesterov=False)"
        " → AdamW(weight_decay=0.01, betas=[0.9, 0.999], eps=1e-08)",
    ]


def test_only_a_lone_change_to_none_is_described_as_none():
    named = override(RECIPE, "data.source=LongTail(source=birds, ratio=2)")
    changes = diff(RECIPE, named)
    assert changes["data.path"] == (None, None)
    assert not [line for line in described(changes) if line.startswith("data.path")]
    assert described({"model.settings.activation": (None, None)}) == [
        "model.settings.activation: None → None"
    ]
