"""The front door: what `import fastcv` offers, and what it does not load."""

import json
import pydoc
import subprocess
import sys

import pytest

import fastcv

HEAVY = {"torch", "torchvision", "fastai", "numpy", "matplotlib", "wandb", "PIL", "sklearn"}


def loaded_after(code):
    """Run code in a new process and return the modules that it has loaded."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import fastcv",
        "import fastcv; assert 'Recipe' in dir(fastcv)",
        "import fastcv; from fastcv import Recipe, Reported, named, replace",
        "import fastcv; fastcv.get_recipe",
    ],
)
def test_door_opens_without_anything_heavy(code):
    assert not HEAVY & loaded_after(code)


def test_recipe_loads_no_trainer_figures_or_tracking():
    loaded = loaded_after("import fastcv\nfrom fastcv import Recipe")
    rooms = ("experiment", "interpret", "tracking", "learning", "data", "report", "bench", "nets")
    assert not [each for each in loaded if each.startswith(tuple(f"fastcv.{r}" for r in rooms))]
    assert "fastcv.recipe" in loaded


def test_a_recipe_file_loads_no_trainer_figures_or_tracking():
    # Where timm is installed fastai imports it, and timm wandb.
    without_timm = "import sys; sys.modules['timm'] = None\n"
    loaded = loaded_after(without_timm + "from fastcv.recipes import light_resnet_cifar10")
    rooms = {f"fastcv.{room}" for room in ("experiment", "interpret", "tracking", "report")}
    assert not ({"wandb"} | rooms) & loaded


@pytest.mark.parametrize("name", fastcv.__all__)
def test_every_export_is_listed_and_found(name):
    assert name in dir(fastcv)
    assert getattr(fastcv, name) is not None


def test_what_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        fastcv.no_such_name  # noqa: B018


def test_help_reads_as_a_page_that_names_the_exports():
    page = pydoc.plain(pydoc.render_doc(fastcv))
    assert "Image-classification experiments as values" in page
    for name in fastcv.__all__:
        assert name in page, name


@pytest.mark.parametrize("room", ["data", "augment", "learning", "nets", "recipe"])
def test_every_export_of_a_room_is_listed_and_found(room):
    module = getattr(fastcv, room)
    assert module.__doc__
    for name in module.__all__:
        assert name in dir(module)
        assert getattr(module, name) is not None, name
