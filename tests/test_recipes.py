"""Contracts over every recipe and every variant there is."""

import gc
import importlib
import json
import sys
from dataclasses import replace

import pytest
import torch
from fastai.data.core import DataLoaders
from torch import nn

from fastcv import catalogue, interpret
from fastcv.experiment.train import train
from fastcv.learning import WithAugment
from fastcv.learning.models import FromScratch, Pretrained
from fastcv.recipe import flat, unflat
from fastcv.recipe.diff import planned_epochs

EVERY = [entry.name for entry in catalogue.entries()]
FILES = catalogue.names()
OUR_OWN = {"digits", "speedrun_cifar10", "finetune"}  # no report has them
CLASSES = {"digits": 10, "mnist": 10, "cifar10": 10, "cifar100": 100, "birds": 200}

# What the five reports did: its report, and the number by which a reader would know it, with what
# was measured. None where the report gives none, or a span of which the recipe takes one number.
EXPERIMENTS = {
    "basenet_cifar100": ("000", "best_valid", 0.73),
    "basenet_cifar100/no_relu": ("000", "valid", 0.40),
    "basenet_cifar100/no_norm": ("000", "valid", 0.66),  # 65 to 66
    "transfer_resnet18": ("000", "test", 0.5697),
    "transfer_resnet18/fixed_extractor": ("000", "test", 0.424),
    "transfer_resnet18/fixed_rotation": ("000", None, None),
    "transfer_resnet18/dropout": ("000", "train", 0.735),  # 73 to 74
    "vgg_cifar100": ("001", "test", 0.782),
    "vgg_cifar100/starter": ("001", "valid", 0.24),
    "vgg_cifar100/step01": ("001", "valid", 0.26),
    "vgg_cifar100/step02": ("001", "valid", 0.26),
    "vgg_cifar100/step03": ("001", "valid", 0.08),
    "vgg_cifar100/step04": ("001", "valid", 0.19),
    "vgg_cifar100/step05": ("001", "valid", 0.49),
    "vgg_cifar100/step06": ("001", "valid", 0.51),
    "vgg_cifar100/step07": ("001", "valid", 0.40),
    "vgg_cifar100/step08": ("001", "valid", 0.38),
    "vgg_cifar100/step09": ("001", "valid", 0.56),
    "vgg_cifar100/step10": ("001", "valid", 0.58),
    "vgg_cifar100/step11": ("001", "valid", 0.58),
    "vgg_cifar100/step12": ("001", "valid", 0.62),
    "vgg_cifar100/step13": ("001", "valid", 0.67),
    "vgg_cifar100/step14": ("001", "valid", 0.61),
    "vgg_cifar100/step15": ("001", "test", 0.782),
    "transfer_resnet50": ("001", "test", 0.6413),
    "transfer_resnet50/fixed_extractor": ("001", "test", 0.3834),
    "resnet_cifar100": ("002", "test", 0.626),
    "resnet_cifar100/starter": ("002", "valid", 0.23),
    "resnet_cifar100/step01": ("002", "valid", 0.31),
    "resnet_cifar100/step02": ("002", "valid", 0.38),
    "resnet_cifar100/step03": ("002", "valid", 0.42),
    "resnet_cifar100/step04": ("002", "valid", 0.17),
    "resnet_cifar100/step05": ("002", None, None),  # it rises
    "resnet_cifar100/step06": ("002", "valid", 0.48),
    "resnet_cifar100/step07": ("002", "valid", 0.42),
    "resnet_cifar100/step08": ("002", "valid", 0.50),
    "resnet_cifar100/step09": ("002", "valid", 0.59),
    "resnet_cifar100/step10": ("002", "test", 0.626),
    "transfer_resnet18_crops": ("002", "test", 0.5631),
    "transfer_resnet18_crops/fixed_extractor": ("002", "test", 0.3604),
    "transfer_resnet18_crops/starter": ("002", "train", 0.155),
    "light_resnet_cifar10": ("003", "best_test", 0.9147),
    "light_resnet_cifar10/model0": ("003", "best_test", 0.9128),
    "light_resnet_cifar10/model1": ("003", "best_test", 0.9123),
    "light_resnet_cifar10/model2": ("003", "best_test", 0.8325),
    "light_resnet_cifar10/model3": ("003", "best_test", 0.9097),
    "light_resnet_cifar10/model4": ("003", "best_test", 0.9090),
    "light_resnet_cifar10/model5": ("003", "best_test", 0.9147),
    "light_resnet_cifar10/model6": ("003", "best_test", 0.8887),
    "light_resnet_cifar10/model7": ("003", "best_test", 0.9114),
    "light_resnet_cifar10/model8": ("003", "best_test", 0.9124),
    "mnist_cnn": ("004", "valid", 0.98),
    "mnist_cnn/regularized": ("004", "test", 0.9823),
    "resnet18_cifar10": ("004", "test", 0.7729),
    "resnet18_cifar10_pretrained": ("004", "test", 0.8827),
    "resnet18_cifar10_pretrained/last4": ("004", "test", 0.7829),
    "resnet18_cifar10_pretrained/last6": ("004", "test", 0.7957),
    "resnet18_cifar10_pretrained/last5_sgd": ("004", "test", 0.816),
    "resnet18_cifar10_tiny": ("004", "test", 0.5),  # 45 to just over 50
}


@pytest.fixture(scope="module", autouse=True)
def _imports_are_no_garbage():
    """Spare the collector what the imports made: to walk it takes a third of a smoke run."""
    gc.freeze()
    yield
    gc.unfreeze()


def _set_of(recipe):
    source = recipe.data.source
    return getattr(source, "__name__", type(source).__name__)


def of_file(name):
    """The module of a recipe, and all the experiments that it binds."""
    module = catalogue.load_file(catalogue.source_file(name))
    return module, [module.recipe, *getattr(module, "variants", {}).values()]


@pytest.mark.parametrize("name", EVERY)
def test_recipe_is_a_value_that_json_can_hold(name):
    recipe = catalogue.get_recipe(name)
    assert recipe.name == name
    assert unflat(json.loads(json.dumps(flat(recipe)))) == recipe
    assert replace(recipe, seed=7) != recipe


@pytest.mark.parametrize("name", FILES)
def test_importing_a_recipe_reads_only_python(name, monkeypatch):
    module = f"fastcv.recipes.{name}"
    importlib.import_module(module)  # what it imports is there from now on
    monkeypatch.delitem(sys.modules, module)
    seen = []
    watching = True  # an audit hook stays for good: this ends what it does

    def watch(event, arguments):
        if watching and event in ("open", "socket.connect", "os.mkdir"):
            seen.append(str(arguments[0]))

    sys.addaudithook(watch)
    importlib.import_module(module)
    watching = False
    assert [each for each in seen if not each.endswith((".py", ".pyc"))] == []
    assert seen  # the hook saw the recipe file itself


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_of_the_reports_is_there_with_its_number(name):
    report, part, number = EXPERIMENTS[name]
    assert name in EVERY
    reported = catalogue.get_recipe(name).reported
    assert reported.source.startswith(report)
    numbers = reported.numbers()
    if number is None:
        assert not numbers
    else:
        assert numbers[f"{part}_accuracy"] == number


@pytest.mark.parametrize("name", [name for name in FILES if name not in OUR_OWN])
def test_one_cycle_takes_at_most_a_third_of_the_epochs(name):
    module, experiments = of_file(name)
    one = module.variants["one_cycle"]
    # The experiment whose number it sets out to beat.
    bar = next(
        each
        for each in experiments
        if each != one and each.reported and each.reported.source == one.reported.source
    )
    assert 3 * _passes(one) <= planned_epochs(flat(bar))


def _passes(recipe):
    """Epochs that compute the whole net: those of a head on stored features compute it once."""
    total = planned_epochs(flat(recipe))
    for stage in recipe.schedule:
        augment = stage.augment if isinstance(stage, WithAugment) else recipe.data.augment
        stage = getattr(stage, "stage", stage)
        fixed = getattr(recipe.model, "train_bn", True) in (False, "weights")
        if fixed and not augment and getattr(stage, "frozen", False) is True:
            total -= stage.epochs - 1
    return total


@pytest.mark.parametrize("name", FILES)
def test_recipe_says_so_where_the_test_set_validates(name):
    module, experiments = of_file(name)
    # None of the named sources has a validation part of its own.
    assert {_set_of(each) for each in experiments} <= {*CLASSES, "ImageFolders"}
    named = [each for each in experiments if _set_of(each) in CLASSES]  # folders hold some out
    if any(each.data.test_validates and not each.data.holdout for each in named):
        assert "the test set validates" in " ".join(module.__doc__.split())


@pytest.mark.parametrize("name", EVERY)
def test_whole_net_takes_the_images_and_has_the_reported_parameters(name):
    """Smoke runs thin the nets; here they are whole, but hold no numbers and compute none."""
    recipe = catalogue.get_recipe(name)
    classes = CLASSES.get(_set_of(recipe), 2)
    image = torch.zeros(recipe.data.channels, recipe.data.size, recipe.data.size)
    dls = DataLoaders.from_dsets([(image, 0)], [(image, 0)], bs=1, num_workers=0, device="cpu")
    dls.vocab, dls.image_shape = list(range(classes)), tuple(image.shape)
    model = recipe.model
    if isinstance(model, Pretrained):
        model = replace(model, weights=None)
    elif isinstance(model, FromScratch):  # no more: nothing that looks at images first
        model = FromScratch(net=model.net, settings=model.settings)
    with torch.device("meta"):
        net = model(dls, loss_func=nn.CrossEntropyLoss(), opt_func=recipe.optimizer).model
        logits = net(torch.zeros(2, *image.shape))
    assert logits.shape == (2, classes)
    if recipe.reported is not None and recipe.reported.parameters is not None:
        assert sum(p.numel() for p in net.parameters()) == recipe.reported.parameters


@pytest.mark.usefixtures("short_finder")
@pytest.mark.parametrize("name", EVERY)
def test_smoke_run_trains_end_to_end(name, tmp_path, monkeypatch):
    # To write the figures takes longer than all the rest: a variant's are drawn, and left at that.
    unwritten = []
    if "/" in name:
        monkeypatch.setattr(interpret, "save", lambda figure, path: unwritten.append(path.name))
    recipe = catalogue.get_recipe(name)
    run = train(recipe, out=tmp_path, wandb="off", device="cpu", smoke=True)
    assert run.summary["epochs"] == len(recipe.schedule)
    assert run.summary["train_loss"] > 0
    assert (run.path / "figures" / "predictions.png").is_file() == ("/" not in name)
    assert "/" not in name or "predictions.png" in unwritten
