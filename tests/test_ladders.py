"""The ladders of Reports 000 and 001: what each step changes in the one that it builds on."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from fastcv.augment import (
    ColorJitter,
    Gamma,
    Grayscale,
    HorizontalFlip,
    RandomCrop,
    Resize,
    Rotation,
)
from fastcv.augment import VerticalFlip as Vertical
from fastcv.data import Toy
from fastcv.data.images import Images
from fastcv.learning.stages.augment import WithAugment
from fastcv.recipe import flat
from fastcv.recipe.diff import decisive, diff
from fastcv.recipes import basenet_cifar100, transfer_resnet18, transfer_resnet50, vgg_cifar100

VGG = {"recipe": vgg_cifar100.recipe, **vgg_cifar100.variants}
BASENET = {"recipe": basenet_cifar100.recipe, **basenet_cifar100.variants}
BIRDS18 = {"recipe": transfer_resnet18.recipe, **transfer_resnet18.variants}
BIRDS50 = {"recipe": transfer_resnet50.recipe, **transfer_resnet50.variants}
NET = "model.settings"
HEAD_ALONE = ["model.train_bn", "schedule.0.epochs", "schedule.0.frozen"]

# step, the step it builds on, and where it differs: all keys that begin so
STEPS = [
    (VGG, "step01", "starter", ["data.normalize"]),
    (VGG, "step02", "starter", ["data.normalize"]),
    (VGG, "step03", "step02", ["data.augment"]),
    (VGG, "step04", "step03", ["data.augment.6"]),
    (VGG, "step05", "step02", ["model.net"]),
    (VGG, "step06", "step05", [NET]),
    (VGG, "step07", "step06", [f"{NET}.max_pools", f"{NET}.average_pool"]),
    (VGG, "step08", "step06", [f"{NET}.he_initialization"]),
    (VGG, "step09", "step06", [f"{NET}.widths"]),
    (VGG, "step10", "step09", ["loss.label_smoothing", "schedule.0"]),
    (VGG, "step11", "step10", [f"{NET}.max_pools", f"{NET}.average_pool"]),
    (VGG, "step12", "step11", ["data.size"]),
    (VGG, "step13", "step11", ["data.size"]),
    (VGG, "step14", "step11", [f"{NET}.max_pools"]),
    (
        VGG,
        "step15",
        "step14",
        ["data.size", f"{NET}.widths", f"{NET}.max_pools", *(f"schedule.{n}" for n in range(7))],
    ),
    (VGG, "recipe", "step15", []),
    (BASENET, "no_relu", "recipe", [NET, "schedule.0.epochs"]),
    (BASENET, "no_norm", "recipe", [f"{NET}.norm", NET, "data.normalize"]),
    (BIRDS18, "fixed_extractor", "recipe", HEAD_ALONE),
    (BIRDS18, "fixed_rotation", "fixed_extractor", ["data.augment.1"]),
    (BIRDS18, "dropout", "recipe", ["model.dropout"]),
    (
        BIRDS50,
        "fixed_extractor",
        "recipe",
        ["data.batch_size", "data.valid_batch_size", "model.train_bn", "schedule.0"],
    ),
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
    for ladder in (VGG, BASENET, BIRDS18, BIRDS50):
        steps = {name: decisive(flat(each)) for name, each in ladder.items() if name != "recipe"}
        names = list(steps)
        same = [(a, b) for a in names for b in names if a < b and steps[a] == steps[b]]
        assert same == []


def test_one_cycle_keeps_net_weights_and_cut():
    for ladder in (VGG, BASENET, BIRDS18, BIRDS50):
        changed = diff(flat(ladder["recipe"]), flat(ladder["one_cycle"]))
        kept = ("model", "data.source", "data.holdout", "data.split_seed", "data.normalize")
        assert [key for key in changed if key.startswith(kept)] == []


def test_images_are_cut_as_the_reports_cut_them():
    for each in (*VGG.values(), *BASENET.values()):
        assert each.data.holdout == 50  # of each of 100 classes: 5,000
    for each in (*BIRDS18.values(), *BIRDS50.values()):
        # No report of these chose by test accuracy: the test set is read once, at the end.
        assert (each.data.holdout, each.data.test_validates) == (0, False)
        assert each.reported is not None


def convolution(inputs, outputs, kernel=3, norm=True):
    """Weights, bias and, with batch norm, its scale and shift."""
    return inputs * outputs * kernel * kernel + outputs + 2 * outputs * norm


def linear(inputs, outputs):
    return inputs * outputs + outputs


def vgg(blocks, *features):
    widths = [3, *(width for width, count in blocks for _ in range(count))]
    body = sum(convolution(a, b) for a, b in pairwise(widths))
    return body + sum(linear(a, b) for a, b in pairwise(features))


NINETEEN = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
THIRTEEN = ((64, 2), (128, 2), (256, 2), (512, 2), (512, 2))
STARTER = convolution(3, 6, 5, False) + convolution(6, 16, 5, False) + linear(400, 50)
BLOCKS = sum(
    convolution(a, b) + convolution(b, b) + (convolution(a, b, 1, False) if a != b else 0)
    for a, b in ((256, 256), (256, 512), (512, 1024))
)
STEM = convolution(3, 64) + convolution(64, 128) + convolution(128, 256)
HEAD = linear(1024, 128) + linear(128, 100)
BATCH_NORMS = 2 * (64 + 128 + 256 + 2 * (256 + 512 + 1024))


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        (VGG["starter"], 28_022),
        (VGG["starter"], STARTER + linear(50, 100)),
        (VGG["step04"], 28_022),
        (VGG["step05"], vgg(NINETEEN, 512, 4096, 4096, 100)),
        (VGG["step06"], vgg(NINETEEN, 512, 4096, 100)),
        (VGG["step07"], vgg(NINETEEN, 512, 4096, 100)),
        (VGG["step09"], vgg(THIRTEEN, 512, 4096, 100)),
        (VGG["step14"], vgg(THIRTEEN, 512, 4096, 100)),
        (VGG["step15"], vgg(THIRTEEN[:4], 512, 4096, 100)),
        (VGG["one_cycle"], vgg(THIRTEEN[:4], 512, 4096, 100)),
        (BASENET["recipe"], STEM + BLOCKS + HEAD + 2 * 100),
        (BASENET["no_relu"], STEM + BLOCKS + HEAD + 2 * 100),
        (BASENET["no_norm"], STEM + BLOCKS + HEAD - BATCH_NORMS),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else f"{value:,}",
)
def test_net_has_the_parameters_that_its_table_gives(recipe, parameters):
    with torch.device("meta"):
        net = recipe.model.net(classes=100, size=recipe.data.size, **recipe.model.settings)
    assert sum(p.numel() for p in net.parameters()) == parameters


def kinds_of_layers(recipe):
    with torch.device("meta"):
        net = recipe.model.net(classes=100, size=recipe.data.size, **recipe.model.settings)
    return [type(module).__name__ for module in net.modules()]


def test_ablations_leave_none_of_what_they_remove():
    whole, no_relu, no_norm = (
        kinds_of_layers(BASENET[name]) for name in ("recipe", "no_relu", "no_norm")
    )
    norms = {"BatchNorm2d", "BatchNorm1d"}
    left = [{"ReLU", *norms} & {*kinds} for kinds in (whole, no_relu, no_norm)]
    assert left == [{"ReLU", *norms}, norms, {"ReLU"}]
    assert BASENET["no_norm"].data.normalize is None


def test_pools_of_the_vgg_ladder_are_those_of_the_report():
    pools = {}
    for name, each in VGG.items():
        kinds = kinds_of_layers(each)
        pools[name] = kinds.count("MaxPool2d"), kinds.count("AdaptiveAvgPool2d")
    assert pools["step06"] == pools["step09"] == (5, 0)
    assert pools["step07"] == (0, 1)
    assert pools["step11"] == pools["step13"] == (4, 1)
    assert pools["step14"] == (1, 1)
    assert pools["step15"] == pools["one_cycle"] == (3, 1)


def test_last_step_of_vgg_is_seven_rounds_of_one_method_each():
    rounds = VGG["step15"].schedule
    assert [each.epochs for each in rounds] == [100] * 6 + [20]
    assert [isinstance(each, WithAugment) for each in rounds] == [True] * 6 + [False]
    assert VGG["step15"].data.augment == ()  # the last round's images are plain
    assert {type(each.stage) for each in rounds[:-1]} == {type(rounds[-1])}
    assert {(each.stage.lr, each.stage.patience) for each in rounds[:-1]} == {(0.1, 3)}
    methods = [tuple(type(value) for value in each.augment) for each in rounds[:-1]]
    assert methods == [
        (Resize, RandomCrop),
        (HorizontalFlip,),
        (Vertical,),
        (Rotation,),
        (Gamma,),
        (Grayscale,),
    ]
    x = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    for each in rounds[:-1]:
        for value in each.augment:
            x = value(x)
        assert x.shape == (2, 3, 128, 128)


def test_all_methods_at_once_are_those_that_step_3_names():
    kinds = [type(each) for each in VGG["step03"].data.augment]
    assert kinds == [RandomCrop, HorizontalFlip, Vertical, Rotation, ColorJitter, Gamma, Grayscale]
    assert [type(each) for each in VGG["step04"].data.augment] == kinds[:-1]


@pytest.mark.parametrize("side", [64, 128])
def test_images_of_32_pixels_are_resized_up_to_what_a_step_asks_for(side):
    toy = Toy(classes=2, size=32, train=2, valid=1, test=0)
    dls = Images(source=toy, size=side, batch_size=2)(device="cpu")
    x, _ = dls.valid.one_batch()
    assert x.shape == (2, 3, side, side)
    small = [Image.fromarray(sample.image) for sample in toy().valid]
    large = [each.resize((side, side), Image.Resampling.BILINEAR) for each in small]
    expected = torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2) / 255
    assert torch.allclose(torch.as_tensor(x).as_subclass(torch.Tensor), expected, atol=1e-6)
