import json
from functools import partial

import pytest
import torchvision
from torch import nn

import fastcv
from fastcv import augment, data, learning, nets
from fastcv.recipe import flat, override, unflat
from fastcv.recipe.addresses import ROOMS, address, current, is_public, public_names, resolve
from fastcv.recipe.values import Partial

DIGITS = fastcv.get_recipe("digits")


@pytest.mark.parametrize(
    ("thing", "path"),
    [
        (data.Images, "fastcv.data:Images"),
        (data.cifar10, "fastcv.data:cifar10"),
        (augment.HorizontalFlip, "fastcv.augment:HorizontalFlip"),
        (learning.OneCycle, "fastcv.learning:OneCycle"),
        (nets.VGG, "fastcv.nets:VGG"),
        (fastcv.Step, "fastcv.recipe:Step"),
        (nn.GELU, "torch.nn:GELU"),
        (torchvision.models.resnet18, "torchvision.models:resnet18"),
        (json.dumps, "json:dumps"),
    ],
)
def test_a_thing_is_written_by_its_shortest_public_path(thing, path):
    assert address(thing) == path
    assert resolve(path, trust=True) is thing


@pytest.mark.parametrize("room", ROOMS)
def test_every_export_is_found_at_its_public_path(room):
    exported = {name: each for name, each in public_names().items() if each.startswith(f"{room}:")}
    assert exported
    for name, path in exported.items():
        thing = getattr(__import__(room, fromlist=[name]), name)
        verb = room == "fastcv.recipe" and not isinstance(thing, type)
        assert is_public(path) != verb  # a run names values; what works on recipes is none
        assert resolve(path, trust=True) is thing


@pytest.mark.parametrize(
    ("older", "today"),
    [
        ("fastcv.data.images:Images()", "fastcv.data:Images()"),
        ("fastcv.data.augment.flip:Flip()", "fastcv.augment:HorizontalFlip()"),
        ("fastcv.data.statistics:Statistics()", "fastcv.augment:Normalize()"),
        ("fastcv.learning.schedules:OneCycle()", "fastcv.learning:OneCycle()"),
        ("torchvision.models.resnet:resnet50", "torchvision.models:resnet50"),
        ("torch.nn.modules.activation:ReLU", "torch.nn:ReLU"),
        ("mine:Net()", "mine:Net()"),
    ],
)
def test_an_older_address_reads_as_todays(older, today):
    assert current(older) == today


@pytest.mark.parametrize(
    "hostile",
    [
        "os:system",
        "subprocess:Popen()",
        "builtins:exec",
        "fastcv.cli:main",
        "fastcv.files:write_text",
        "fastcv.data.fetch:fetched",
        "fastcv.experiment.train:train",
        "fastcv.recipe.addresses:importlib",
        "torch:load",
        "torch.nn:init",
        "torch.nn.modules.module:os",
        "torch.nn.utils:clip_grad_norm_",
        "torchvision.models:get_model_weights",
        "torchvision.models._api:get_weight",
        "torchvision.models:__builtins__",
        "fastcv.data:__getattr__",
        "fastcv.learning:Images.__call__",
    ],
)
def test_what_a_run_may_not_name_is_refused_in_one_sentence(hostile):
    assert not is_public(hostile)
    with pytest.raises(ValueError, match="a run may only name") as refused:
        unflat(flat(DIGITS) | {"loss": hostile})
    assert "\n" not in str(refused.value)
    assert "--trust" in str(refused.value)


def test_only_values_of_fastcv_are_made_of_parts():
    values = {key: each for key, each in flat(DIGITS).items() if not key.startswith("loss.")}
    values |= {"loss": "torch.nn:CrossEntropyLoss()", "loss.label_smoothing": 0.1}
    loss = unflat(values).loss  # not built while the run is read
    assert loss == Partial(nn.CrossEntropyLoss, label_smoothing=0.1)


def test_a_partial_is_written_with_its_settings_and_read_as_an_equal_one():
    recipe = fastcv.replace(DIGITS, loss=partial(nn.CrossEntropyLoss, None, label_smoothing=0.1))
    values = flat(recipe)
    assert values["loss"] == "torch.nn:CrossEntropyLoss()"
    assert values["loss.weight"] is None
    again = unflat(json.loads(json.dumps(values))).loss
    assert again == Partial(nn.CrossEntropyLoss, weight=None, label_smoothing=0.1)
    assert again().label_smoothing == 0.1


def test_settings_that_a_value_does_not_have_are_named():
    with pytest.raises(ValueError, match=r"'?fastcv.learning:AdamW\(\)'? .*other settings.*'bets'"):
        unflat(flat(DIGITS) | {"optimizer.bets": 1})


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("optimizer=SGD", "optimizer", learning.SGD()),
        (
            "optimizer=SGD(momentum=0.5, nesterov=True)",
            "optimizer",
            learning.SGD(momentum=0.5, nesterov=True),
        ),
        (
            "loss=CrossEntropy(label_smoothing=0.1)",
            "loss",
            learning.CrossEntropy(label_smoothing=0.1),
        ),
        (
            "schedule=Constant(epochs=2, lr=0.1)",
            "schedule",
            (learning.Constant(epochs=2, lr=0.1),),
        ),
        (
            "schedule=OneCycle(epochs=2, lr=valley, early_stop=none)",
            "schedule",
            (learning.OneCycle(epochs=2, lr="valley"),),
        ),
        (
            "model=Pretrained(arch=resnet18, weights=DEFAULT, train_bn=false)",
            "model",
            learning.Pretrained(
                arch=torchvision.models.resnet18, weights="DEFAULT", train_bn=False
            ),
        ),
        ("loss=CrossEntropy(weights=balanced)", "loss", learning.CrossEntropy(weights="balanced")),
    ],
)
def test_public_names_are_values_of_settings(setting, key, value):
    assert getattr(override(DIGITS, setting), key) == value


def test_public_names_are_nets_sources_and_augmentations():
    assert override(DIGITS, "model.net=BaseNet").model.net is nets.BaseNet
    assert override(DIGITS, "data.source=mnist").data.source is data.mnist
    one = override(DIGITS, "data.augment=HorizontalFlip").data.augment
    assert one == (augment.HorizontalFlip(),)
    two = override(DIGITS, "data.augment=HorizontalFlip(p=0.1), RandomCrop(padding=2)").data.augment
    assert two == (augment.HorizontalFlip(p=0.1), augment.RandomCrop(padding=2))
    assert override(DIGITS, "data.augment=()").data.augment == ()
    light = fastcv.get_recipe("light_resnet_cifar10")
    normalized = override(light, "data.normalize=Normalize(mean=(0.5,), std=(0.5,))")
    assert normalized.data.normalize == augment.Normalize(mean=(0.5,), std=(0.5,))
    transfer = fastcv.get_recipe("transfer_resnet18")
    assert override(transfer, "model.arch=resnet34").model.arch is torchvision.models.resnet34


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer=SDG", r"optimizer must be a public name of fastcv.learning \(.*AdamW.*'SGD'"),
        ("model.net=LightResnet", r"public name of fastcv.nets .*Did you mean 'LightResNet'\?"),
        ("optimizer=SGD(momentun=1)", r"optimizer must .* unexpected keyword argument 'momentun'"),
        ("optimizer=SGD(nesterov=yes)", r"optimizer must be made of plain .*got nesterov='yes'"),
        ("optimizer=SGD(momentum=1/3)", r"optimizer must be made .*got momentum='1 / 3'$"),
        (
            "schedule.0=OneCycle(epochs=2, lr=1, early_stop=EarlyStopp(patience=3))",
            r"got early_stop='EarlyStopp\(patience=3\)'\. Did you mean 'EarlyStop'\?",
        ),
        ("data.augment=Flop", r"data.augment must be a public name of"),
        ("optimizer=__import__('os')", r"optimizer must be a public name"),
    ],
)
def test_a_name_that_is_not_public_lists_those_that_are(setting, message):
    with pytest.raises(ValueError, match=message):
        override(DIGITS, setting)


def test_public_value_is_taken_by_its_name():
    assert override(DIGITS, "data.normalize=HALF_STATS").data.normalize == data.HALF_STATS
