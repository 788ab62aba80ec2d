import ast
import json
import subprocess
import sys
from statistics import mean

import pytest

from fastcv import catalogue
from fastcv.experiment.words import duration
from fastcv.recipe import Recipe


def test_listing_equals_what_the_files_bind():
    """The list is read from syntax; importing the files must give the same."""
    listed = {entry.name: entry.reported for entry in catalogue.entries()}
    imported = {}
    for name in catalogue.names():
        module = catalogue.load_file(catalogue.source_file(name))
        found = {"": module.recipe, **getattr(module, "variants", {})}
        for recipe in found.values():
            numbers = {}
            if recipe.reported:
                defaults = type(recipe.reported)(source="")
                numbers = {
                    key: value
                    for key, value in vars(recipe.reported).items()
                    if value != getattr(defaults, key)
                }
            imported[recipe.name] = numbers
    assert listed == imported


@pytest.mark.parametrize("name", catalogue.names())
def test_recipes_and_variants_are_named_after_their_file(name):
    module = catalogue.load_file(catalogue.source_file(name))
    assert module.recipe.name == name
    for variant, recipe in getattr(module, "variants", {}).items():
        assert recipe.name == f"{name}/{variant}"


def test_every_recipe_says_what_it_is():
    for entry in catalogue.entries():
        assert 20 < len(entry.summary) < 100, entry.name


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from fastcv import catalogue; assert catalogue.entries(); "
        "print({'torch', 'fastai', 'numpy', 'matplotlib', 'wandb'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_load_gives_recipe_and_variant():
    assert catalogue.get_recipe("transfer_resnet50").name == "transfer_resnet50"
    assert catalogue.get_recipe("transfer_resnet50/one_cycle").name == "transfer_resnet50/one_cycle"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("transfer_resnet5", "no recipe is called 'transfer_resnet5'. Did you mean 'transfer_"),
        ("transfer_resnet50/onecycle", "is called 'onecycle'. Did you mean 'one_cycle'?"),
        ("digits/one_cycle", "no variant of 'digits' is called 'one_cycle'. There are none."),
        ("/tmp", "no recipe is called ''. There are: basenet_cifar100, digits, "),
        ("missing.py", "a recipe file must exist, 'missing.py' does not"),
    ],
)
def test_mistyped_names_are_answered_with_the_nearest(reference, message):
    with pytest.raises(ValueError, match=r"called|exist") as error:
        catalogue.find(reference)
    assert message in str(error.value)


def test_own_file_is_loaded_under_its_name(tmp_path):
    source = catalogue.source_file("light_resnet_cifar10").read_text()
    (tmp_path / "my_own_net.py").write_text(source)
    recipe = catalogue.get_recipe(str(tmp_path / "my_own_net.py"))
    assert isinstance(recipe, Recipe)
    assert recipe.name == "my_own_net"
    variant = catalogue.get_recipe(f"{tmp_path}/my_own_net.py/one_cycle")
    assert variant.name == "my_own_net/one_cycle"


def test_own_recipe_may_be_bound_anew_from_one_of_the_same_name(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from fastcv.recipe import Reported\n"
        "from fastcv.recipes.digits import recipe\n"
        "recipe = replace(recipe, seed=3)\n"
        "reported = Reported(source='000', valid_accuracy=0.5)\n"
        "recipe = replace(recipe, seed=recipe.seed + 1, reported=reported)\n"
        "variants = {'more': replace(recipe, seed=5)}\n"
    )
    assert (catalogue.get_recipe(str(file)).seed, catalogue.get_recipe(f"{file}/more").seed) == (
        4,
        5,
    )
    stated = {"source": "000", "valid_accuracy": 0.5}
    assert [entry.reported for entry in catalogue.read(file)] == [stated, stated]


@pytest.mark.parametrize("name", ["json", "torch", "my-own"])
def test_own_file_hides_no_module(tmp_path, name):
    import json

    (tmp_path / f"{name}.py").write_text(catalogue.source_file("digits").read_text())
    assert catalogue.get_recipe(f"{tmp_path}/{name}.py").name == name
    assert sys.modules["json"] is json


def test_own_variants_may_be_any_mapping(tmp_path):
    source = catalogue.source_file("digits").read_text()
    source += "\nvariants = {}\nvariants['longer'] = recipe\n"
    (tmp_path / "mine.py").write_text(source)
    assert catalogue.get_recipe(f"{tmp_path}/mine.py/longer").name == "mine/longer"
    with pytest.raises(ValueError, match=r"is called 'long'\. Did you mean 'longer'"):
        catalogue.get_recipe(f"{tmp_path}/mine.py/long")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("recipe = 3\n", "must bind the name recipe to a Recipe"),
        ("recipe = (\n", "must be importable, .*line 1"),
        ("import no_such_module\n", "must be importable, .*No module named 'no_such_module'"),
    ],
)
def test_broken_own_file_is_one_sentence(tmp_path, source, message):
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(ValueError, match=message):
        catalogue.get_recipe(f"{tmp_path}/broken.py")


MISTAKES = [
    ("loss=CrossEntropy()", "loss=CrossEntropy", 11, r"loss must be a value, got the class Cross"),
    ("loss=CrossEntropy()", "loss=nn.CrossEntropyLoss()", 11, r"loss must build a fresh one for e"),
    (
        "loss=CrossEntropy()",
        "loss=CrosEntropy()",
        16,
        r"'CrosEntropy' is not defined\. Did you mea",
    ),
    ("loss=CrossEntropy()", "los=CrossEntropy()", 11, r"Recipe has no setting 'los'\. Did you me"),
    ("    loss=CrossEntropy(),\n", "", 11, r"Recipe must be given 'loss'$"),
    ("loss=CrossEntropy()", "loss=CrossEntropy(", 11, r"'\(' was never closed"),
    ("loss=CrossEntropy()", "loss=CrossEntropy(0.1)", 16, "takes its settings by name, as CrossE"),
    ("loss=CrossEntropy()", "loss=CrossEntropy(label_smoothing=2)", 16, "must be a fraction from"),
    ("(Constant(epochs=1, lr=0.1),)", "Constant(epochs=1, lr=0.1)", 11, "schedule must be a tuple"),
    ("epochs=1", "epoch=1", 14, r"Constant has no setting 'epoch'\. Did you mean 'epochs'\?"),
    ("size=8", "siz=8", 12, r"Images has no setting 'siz'\. Did you mean 'size'\?"),
    ("Images, digits", "Image, digits", 3, r"cannot import name 'Image' from 'fastcv\.data'\. Did"),
    (
        "import Images, digits",
        "import digits",
        12,
        r"defined: add 'from fastcv\.data import Images",
    ),
    ("from torch import nn", "import no_such", 1, "No module named 'no_such'"),
    ("from torch import nn", "1 / 0", 1, "ZeroDivisionError: division by zero"),
    ("from torch import nn", "raise SystemExit", 1, "SystemExit"),
    ("from torch import nn", "nn = '\0'", None, "null bytes"),
]
PLAIN = """from torch import nn

from fastcv.data import Images, digits
from fastcv.learning import SGD, Constant, CrossEntropy, FromScratch
from fastcv.nets import BaseNet
from fastcv.recipe import Recipe

SIZE = 8


recipe = Recipe(
    data=Images(source=digits, size=8, batch_size=4),
    model=FromScratch(net=BaseNet),
    schedule=(Constant(epochs=1, lr=0.1),),
    optimizer=SGD(),
    loss=CrossEntropy(),
)
"""


@pytest.mark.parametrize(("before", "after", "line", "message"), MISTAKES)
def test_a_mistake_in_ones_own_file_is_its_line_and_one_sentence(
    tmp_path, before, after, line, message
):
    assert PLAIN.count(before) == 1
    file = tmp_path / "mine.py"
    file.write_text(PLAIN.replace(before, after))
    where = rf"^a recipe file must be importable, '.*mine\.py'{f', line {line}' if line else ''}: "
    with pytest.raises(ValueError, match=where + ".*" + message) as error:
        catalogue.get_recipe(str(file))
    assert "\n" not in str(error.value)
    assert catalogue.module_name("mine") not in sys.modules


def test_variants_that_are_no_mapping_are_refused(tmp_path):
    (tmp_path / "mine.py").write_text(PLAIN + "variants = 3\n")
    with pytest.raises(ValueError, match=r"must map names to recipes, .* has 3$"):
        catalogue.get_recipe(f"{tmp_path}/mine.py")


def test_every_variant_has_a_line_of_its_own():
    lines = {}
    for entry in catalogue.entries():
        recipe, _, variant = entry.name.partition("/")
        if variant:
            assert entry.summary != lines[recipe], f"{entry.name}: add it under Variants"
        lines[entry.name] = entry.summary


def test_file_without_a_recipe_is_named(tmp_path):
    (tmp_path / "nothing_here.py").write_text('"""Nothing."""\n')
    with pytest.raises(ValueError, match="must bind the name recipe"):
        catalogue.get_recipe(str(tmp_path / "nothing_here.py"))


def test_a_file_of_ones_own_that_is_not_python_is_one_sentence(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("recipe = (\n")
    for reference in (f"{file}", f"{file}/short"):
        with pytest.raises(ValueError, match=r"must be importable, '.*broken.py', line 1"):
            catalogue.get_recipe(reference)


RESULTS = catalogue.folder() / "results"


def measured_in_full():
    """The committed results of whole experiments: {recipe: [summaries of a variant's seeds]}.

    Runs on different folders of images stand apart.
    """
    found = {name: {} for name in catalogue.names()}
    for file in sorted(RESULTS.glob("*.json")):
        summary = json.loads(file.read_text(encoding="utf-8"))
        if not summary.get("changed"):
            of_recipe = found[summary["recipe"].partition("/")[0]]
            kind = summary["recipe"], summary["settings"].get("data.path")
            of_recipe.setdefault(kind, []).append(summary)
    return {name: list(by_kind.values()) for name, by_kind in found.items()}


@pytest.mark.parametrize(("name", "series"), measured_in_full().items())
def test_a_recipe_card_states_what_was_measured(name, series):
    card = " ".join(ast.get_docstring(ast.parse(catalogue.source_file(name).read_text())).split())
    assert f"fastcv recipe {name}" in card
    for summaries in series:
        accuracies = [
            f"{100 * mean([each['measured'][part] for each in summaries]):.2f}"
            for part in ("test_accuracy", "valid_accuracy")
            if part in summaries[0]["measured"]
        ]
        assert any(accuracy in card for accuracy in accuracies), summaries[0]["recipe"]
        assert duration(mean([each["seconds"] for each in summaries])) in card
    if len(series) < 1 + len(catalogue.read(catalogue.source_file(name))[1:]):
        assert "ot measured yet" in card
