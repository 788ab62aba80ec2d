"""How every recipe cuts its data: the reports' numbers of images, and no image in two parts."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations

import pytest

from fastcv import catalogue
from fastcv.data import Toy, digits
from fastcv.data.images import Images
from fastcv.data.samples import Sample, Samples

# Images of each class as the data sets have them.
TRAIN = {
    "cifar10": [5000] * 10,
    "cifar100": [500] * 100,
    "birds": [15] * 200,
    "mnist": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
}
TEST = {
    "cifar10": [1000] * 10,
    "cifar100": [100] * 100,
    "birds": [15] * 167 + [16] * 33,  # in truth 5 to 24, and 3,033 together
    "mnist": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
# What the reports state, by data set and, where they cut it in several ways, by recipe: training,
# validation and test images.
STATED = {
    "cifar100": (45_000, 5_000, 10_000),
    "birds": (3_000, 0, 3_033),
    "mnist_cnn": (55_000, 5_000, 10_000),
    "light_resnet_cifar10": (50_000, 0, 10_000),
    "resnet18_cifar10": (45_000, 5_000, 10_000),
    "resnet18_cifar10_pretrained": (45_000, 5_000, 10_000),
    "resnet18_cifar10_tiny": (1_000, 5_000, 10_000),
}
CUT = ("holdout", "test_validates", "split_seed", "train_per_class", "test_per_class")


def cut(name):
    """What decides a recipe's cut: its source and its settings."""
    data = catalogue.get_recipe(name).data
    assert isinstance(data, Images)
    return data.source.__name__, *(getattr(data, setting) for setting in CUT)


EVERY = [entry.name for entry in catalogue.entries() if entry.name != "finetune"]  # your photos
DISTINCT = list({cut(name): name for name in reversed(EVERY)}.values())
IMAGES = catalogue.get_recipe("digits").data  # for what does not decide a cut


@cache
def full(source):
    """A data set in its real size, of labels without images."""
    if source == "digits":
        return digits()
    train, test = (
        [Sample(None, f"class{c}") for c, count in enumerate(counts[source]) for _ in range(count)]
        for counts in (TRAIN, TEST)
    )
    names = tuple(f"class{c}" for c in range(len(TRAIN[source])))
    return Samples(train, [], test, names, root=None)


@cache
def parts(cut):
    """Training, validation and test places of the full-sized data, as the loaders have them.

    Test images that validate count as test images alone.
    """
    source = full(cut[0])
    data = replace(IMAGES, **dict(zip(CUT, cut[1:], strict=True)))
    places, valid_is_test = data._parts(source)
    has_test = len(places) > 2 or valid_is_test
    train, *between, test = places if has_test else [*places, []]
    return train, [place for part in between for place in part], test


@pytest.mark.parametrize("name", DISTINCT)
def test_parts_of_the_full_data_share_no_image_and_are_stratified(name):
    data, samples = catalogue.get_recipe(name).data, full(cut(name)[0])
    places = parts(cut(name))
    every = [*samples.train, *samples.test]
    for a, b in combinations(places, 2):
        assert not set(a) & set(b)
    assert all(len(part) == len(set(part)) for part in places)
    train, valid, test = (Counter(every[place].label for place in part) for part in places)
    assert sum(map(len, places)) <= len(every)
    assert test == Counter(sample.label for sample in samples.test)
    whole = Counter(sample.label for sample in samples.train)
    for label, count in whole.items():
        held = data.holdout
        if isinstance(held, float):
            assert abs(valid[label] - held * count) <= 0.5
        else:
            assert valid[label] == held
        left = count - valid[label]
        assert train[label] == (left if data.train_per_class is None else data.train_per_class)


@pytest.mark.parametrize("name", EVERY)
def test_parts_have_the_sizes_that_the_reports_state(name):
    recipe, source = name.partition("/")[0], cut(name)[0]
    stated = STATED.get(recipe, STATED.get(source))
    if stated is None:
        pytest.skip("no report states how this data is cut")
    assert tuple(map(len, parts(cut(name)))) == stated


@pytest.mark.parametrize("name", DISTINCT)
def test_loaders_share_no_image(name):
    data = catalogue.get_recipe(name).data
    held = data.holdout if isinstance(data.holdout, int) else 3
    toy = Toy(
        classes=3, size=4, channels=data.channels, train=held + (data.train_per_class or 7), test=5
    )
    settings = {"source": toy, "size": 4, "resize": None, "augment": (), "path": None}
    loaders = replace(data, **settings)("cpu").loaders
    images = [{sample.image.tobytes() for sample in dl.dataset.items} for dl in loaders]
    assert [len(part) for part in images] == [len(dl.dataset) for dl in loaders]
    for a, b in combinations(images, 2):
        assert not a & b
    known = {sample.image.tobytes() for sample in (*toy().train, *toy().test)}
    assert set().union(*images) == known


def test_cuts_are_the_same_in_another_process():
    code = """
import json, sys
from fastcv.data.splits import kept, stratified
found = []
for counts, holdout, seed, per_class in json.load(sys.stdin):
    labels = [f"class{c}" for c, count in enumerate(counts) for _ in range(count)]
    valid, train = stratified(labels, holdout, seed)
    if per_class is not None:
        train = [train[place] for place in kept([labels[i] for i in train], per_class, seed)]
    found.append([train, valid])
print(json.dumps(found))
"""
    cuts = [cut(name) for name in DISTINCT if cut(name)[0] != "digits"]
    asked = [(TRAIN[source], held, seed, kept) for source, held, _, seed, kept, _ in cuts]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [list(parts(cut)[:2]) for cut in cuts]


@pytest.mark.parametrize("name", [name for name in DISTINCT if cut(name)[1]])
def test_cuts_follow_the_split_seed(name):
    settings = dict(zip(("source", *CUT), cut(name), strict=True))
    other = tuple({**settings, "split_seed": settings["split_seed"] + 1}.values())
    train, valid, test = parts(cut(name))
    other_train, other_valid, other_test = parts(other)
    assert (other_train, other_valid) != (train, valid)
    assert set(other_valid) != set(valid)
    assert (len(other_train), len(other_valid)) == (len(train), len(valid))
    assert other_test == test
