from dataclasses import replace

from fastcv import catalogue
from fastcv.recipe import flat, override
from fastcv.recipe.diff import decisive, diff

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
