"""A value that cannot be trained with is refused where it is made, in one sentence."""

from dataclasses import replace

import pytest
from torch import nn
from torchvision.models import resnet18

from fastcv import augment, data, learning
from fastcv.data.sources.toy import Toy
from fastcv.recipe import Recipe, Reported, Step, override
from fastcv.recipe.bounds import check_number, check_whole, shown
from fastcv.recipe.flat import flat, unflat
from fastcv.recipes.digits import recipe as digits

NAN, INF = float("nan"), float("inf")
CYCLE = {"epochs": 1, "lr": 0.1}
IMAGES = {"source": Toy(), "size": 8, "batch_size": 4}

REFUSED = [
    (learning.CrossEntropy, {"label_smoothing": 1.1}, "label_smoothing must be a fraction from 0"),
    (learning.CrossEntropy, {"label_smoothing": -0.1}, "label_smoothing must be a fraction"),
    (learning.CrossEntropy, {"label_smoothing": NAN}, "must be a finite number, got nan"),
    (learning.SGD, {"momentum": 1.0}, "momentum must be a fraction from 0 to below 1, got 1.0"),
    (learning.SGD, {"weight_decay": -1}, "weight_decay must be at least 0, got -1"),
    (learning.SGD, {"nesterov": 1}, "nesterov must be True or False, got 1"),
    (learning.Adam, {"betas": (0.9,)}, r"betas must be two numbers, got \(0.9,\)"),
    (learning.AdamW, {"betas": (0.9, 1)}, "each of betas must be a fraction from 0 to below 1"),
    (learning.AdamW, {"eps": INF}, "eps must be a finite number, got inf"),
    (learning.Muon, {"steps": 0}, "steps must be at least 1, got 0"),
    (learning.Muon, {"other_momentum": "0.9"}, "other_momentum must be a number, got '0.9'"),
    (learning.OneCycle, CYCLE | {"lr": 0}, "lr must be above 0, got 0"),
    (learning.OneCycle, CYCLE | {"lr": NAN}, "lr must be a finite number, got nan"),
    (learning.OneCycle, CYCLE | {"lr": True}, "lr must be a number"),
    (learning.OneCycle, CYCLE | {"epochs": 1.5}, "epochs must be a whole number, got 1.5"),
    (learning.OneCycle, CYCLE | {"lr_mult": INF}, "lr_mult must be a finite number"),
    (learning.OneCycle, CYCLE | {"clip": 0}, "clip must be above 0, got 0"),
    (learning.OneCycle, CYCLE | {"clip_value": -1}, "clip_value must be above 0, got -1"),
    (learning.OneCycle, CYCLE | {"pct_start": 1.5}, "pct_start must be a fraction from 0 to 1"),
    (learning.OneCycle, CYCLE | {"div": 0}, "div must be above 0, got 0"),
    (learning.OneCycle, CYCLE | {"div_final": -1}, "div_final must be above 0, got -1"),
    (learning.OneCycle, CYCLE | {"momenta": (0.9, 0.8)}, "momenta must be three numbers"),
    (learning.OneCycle, CYCLE | {"momenta": (0.9, 1.8, 0.9)}, "each of momenta must be a frac"),
    (learning.OneCycle, CYCLE | {"frozen": -1}, "frozen must be at least 1, got -1"),
    (learning.OneCycle, CYCLE | {"early_stop": 3}, "early_stop must be an EarlyStop"),
    (learning.Cosine, CYCLE | {"t_max": 0}, "t_max must be at least 1, got 0"),
    (learning.Linear, CYCLE | {"start": -1}, "start must be at least 0, got -1"),
    (learning.Plateau, CYCLE | {"factor": 1}, "factor must be a fraction between 0 and 1, got 1"),
    (learning.Plateau, CYCLE | {"monitor": 3}, "monitor must be train_ or valid_"),
    (learning.EarlyStop, {"patience": 1.5}, "patience must be a whole number, got 1.5"),
    (learning.FreezeFirst, {"after": "1"}, "after must be a whole number, got '1'"),
    (learning.TTA, {"shift": 0.5}, "shift must be a whole number, got 0.5"),
    (learning.WithAugment, {"stage": 3}, "stage must be something that can be called, got 3"),
    (learning.WithAugment, {"stage": digits.schedule[0], "augment": augment.HorizontalFlip()},
     "augment must be a tuple, as augment="),
    (learning.FromScratch, {"net": "BaseNet"}, "net must be something that can be called"),
    (learning.FromScratch, {"settings": 3}, "settings must be a mapping"),
    (learning.Whitened, {"images": 0}, "images must be at least 1, got 0"),
    (learning.Pretrained, {"dropout": 1.5}, r"dropout must be a fraction from 0 to 1, got 1\.5"),
    (learning.Pretrained, {"block_dropout": -1}, "block_dropout must be a fraction"),
    (learning.Pretrained, {"train_bn": "on"}, "train_bn must be True, False, .statistics. or"),
    (learning.Pretrained, {"arch": resnet18, "weights": 3}, "weights must be a name, a path"),
    (data.Images, IMAGES | {"size": 2**63}, "size must be at most 65,535, got 9223372036854775808"),
    (data.Images, IMAGES | {"batch_size": 2**63}, "batch_size must be at most"),
    (data.Images, IMAGES | {"batch_size": 2.5}, "batch_size must be a whole number, got 2.5"),
    (data.Images, IMAGES | {"batch_size": None}, "batch_size must be a whole number, got None"),
    (data.Images, IMAGES | {"split_seed": -1}, "split_seed must be at least 0, got -1"),
    (data.Images, IMAGES | {"holdout": 1.0}, "holdout must be a number of images per class"),
    (data.Images, IMAGES | {"source": Toy}, "source must be a value, got the class Toy: call it"),
    (data.Images, IMAGES | {"drop_last": "no"}, "drop_last must be True or False, got 'no'"),
    (data.Images, IMAGES | {"augment": [augment.MixUp]}, "augment must be a tuple, as augment="),
    (data.Images, IMAGES | {"augment": (augment.MixUp,)}, "each of augment must be a value, got"),
    (data.Images, IMAGES | {"normalize": 3}, "normalize must be a Normalize"),
    (data.ImageFolders, {"path": 3}, "path must be text, a Path or None, got 3"),
    (data.ImageFolders, {"valid": NAN}, "valid must be a number of images per class"),
    (Toy, {"seed": 2**32}, "seed must be at most 4,294,967,295"),
    (augment.Normalize, {"mean": 0.5, "std": 0.5}, "mean must be a number for each channel"),
    (augment.Normalize, {"mean": (NAN,), "std": (1,)}, "each of mean must be a finite number"),
    (augment.HorizontalFlip, {"p": "1"}, "p must be a probability"),
    (augment.Rotation, {"degrees": INF}, "degrees must be a finite number, got inf"),
    (augment.Rotation, {"degrees": (1, 2, 3)}, "degrees must be two numbers"),
    (augment.RandomErasing, {"value": 2}, "value must be a fraction from 0 to 1, got 2"),
    (augment.MixUp, {"alpha": NAN}, "alpha must be a finite number, got nan"),
    (augment.AlternatingFlip, {"seed": -1}, "seed must be at least 0, got -1"),
    (Step, {"compile": "yes"}, "compile must be True or False, got 'yes'"),
    (Reported, {"source": "1", "test_accuracy": 91.5}, "test_accuracy must be a fraction"),
    (Reported, {"source": 3}, "source must be text"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings", "words"), REFUSED)
def test_a_setting_outside_its_bounds_is_refused_where_it_is_made(kind, settings, words):
    with pytest.raises(ValueError, match=words) as caught:
        kind(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("slots", "words"),
    [
        ({"seed": 2**63}, "seed must be at most 9,223,372,036,854,775,807, got"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"loss": learning.CrossEntropy}, r"loss must be a value, got the class CrossEntropy: call "
         r"it, as CrossEntropy\(\)"),
        ({"loss": nn.CrossEntropyLoss()}, r"got a CrossEntropyLoss: give CrossEntropy\(...\) of"),
        ({"model": nn.Linear(1, 1)}, r"model must build a fresh one for each run, got a Linear"),
        ({"optimizer": learning.SGD}, "optimizer must be a value, got the class SGD"),
        ({"schedule": digits.schedule[0]}, r"schedule must be a tuple, as schedule=\(OneCycle"),
        ({"schedule": (3,)}, "each of schedule must be something that can be called, got 3"),
        ({"precision": 16}, "precision must be one of auto, fp32, bf16, got 16"),
        ({"step": None}, r"step must be a Step\(...\), got None"),
        ({"reported": 0.9}, r"reported must be a Reported\(...\), got 0.9"),
    ],
)  # fmt: skip
def test_a_recipe_refuses_what_cannot_stand_in_its_slots(slots, words):
    with pytest.raises(ValueError, match=words) as caught:
        replace(digits, **slots)
    assert "\n" not in str(caught.value)


def test_a_flat_recipe_outside_the_bounds_is_refused():
    with pytest.raises(ValueError, match="label_smoothing must be a fraction"):
        unflat(flat(digits) | {"loss.label_smoothing": 2})


def test_bounds_of_one_setting_do_not_depend_on_the_order_of_others():
    recipe = override(digits, "data.size=300", "data.resize=320")  # for a moment above `resize`
    assert (recipe.data.size, recipe.data.resize) == (300, 320)


def test_numbers_of_numpy_and_large_seeds_are_numbers():
    import numpy as np

    check_number("lr", np.float32(0.5), above=0)
    check_whole("epochs", np.int64(3), least=1)
    assert isinstance(replace(digits, seed=2**63 - 1), Recipe)


def test_a_number_too_long_to_write_is_named_by_its_bits():
    assert shown(10**5000) == "a number of 16,610 bits"
    with pytest.raises(ValueError, match="must be a finite number, got a number of 16,610 bits"):
        check_number("lr", 10**5000)
    assert len(shown("x" * 1000)) == 80
