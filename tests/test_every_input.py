"""Whatever a recipe is given either trains a smoke run or is refused in one sentence.

The suite tries the same few examples each time; `FASTCV_EXAMPLES=5000 pytest -n 0 THIS` tries as
many new ones.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision.models import resnet18

from fastcv import augment, data, learning, nets
from fastcv.data import Toy
from fastcv.experiment.results import Results
from fastcv.experiment.train import train
from fastcv.learning import OneCycle
from fastcv.recipe import Recipe, Step, flat, override, unflat
from fastcv.recipes.digits import recipe as digits

resource = pytest.importorskip("resource", reason="limits of memory are a matter of Unix")

EXAMPLES = int(os.environ.get("FASTCV_EXAMPLES", 0))
SPARE = 2 * 2**30  # bytes that an example may allocate

TOY = data.Images(source=Toy(size=16, train=4), size=16, batch_size=8, holdout=0.5)
MOVES = (
    augment.AlternatingFlip(),
    augment.RandomCrop(padding=2),
    augment.Rotation(degrees=5),
    augment.ColorJitter(brightness=0.1, hue=0.1),
    augment.Sharpness(factor=2.0),
    augment.RandomErasing(value=(0.1, 0.2, 0.3)),
)
RECIPES = (
    digits,
    replace(
        digits,
        data=replace(
            TOY,
            augment=(augment.RandomResizedCrop(size=16), augment.MixUp()),
            normalize=augment.Normalize(mean=(0.5,) * 3, std=(0.25,) * 3),
        ),
        model=learning.FromScratch(net=nets.LightResNet, settings={"widths": (16, 16)}),
        optimizer=learning.SGD(nesterov=True),
        schedule=(
            learning.Plateau(epochs=1, lr=0.1, clip=1.0, callbacks=(learning.TTA(),)),
            learning.Linear(epochs=1, lr=0.1, early_stop=learning.EarlyStop(patience=2)),
        ),
        step=Step(channels_last=False),
    ),
    replace(
        digits,
        data=TOY,
        model=learning.Pretrained(arch=resnet18, weights=None, dropout=0.5),
        optimizer=learning.Adam(),
        schedule=(learning.Cosine(epochs=1, lr=0.01, frozen=True, lr_mult=10.0),),
    ),
    replace(
        digits,
        data=replace(TOY, size=32, source=Toy(size=32, train=4)),
        model=learning.Whitened(net=nets.SpeedrunNet, images=16),
        optimizer=learning.Muon(),
        schedule=(
            learning.with_augment(
                OneCycle(epochs=1, lr=0.01, callbacks=(learning.FreezeFirst(after=1),)), *MOVES
            ),
        ),
    ),
)

WHOLE = st.sampled_from(
    [-(2**63), -1, 0, 1, 2, 3, 5, 7, 1000, 2**15, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**400]
)
TINY, HUGE, INF, NAN = 5e-324, 1e308, float("inf"), float("nan")
REAL = st.floats(-2, 2) | st.sampled_from(
    [-INF, -1.0, -0.0, 0.0, TINY, 1e-30, 0.1, 0.5, 0.999, 1.0, 1.5, 1e3, 1e30, 1e39, HUGE, INF, NAN]
)
TEXT = st.sampled_from(
    ["", " ", "0", "a:b", "auto", "valley", "valid_loss", "../..", "\0", "é\ud800"]
)
PLAIN = st.none() | st.booleans() | WHOLE | REAL | TEXT | st.text(max_size=8)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
PARTS = st.sampled_from(
    [
        learning.CrossEntropy, learning.CrossEntropy(), learning.SGD, learning.Muon(), digits,
        OneCycle(epochs=1, lr=0.1), nets.BaseNet, nets.VGG, augment.MixUp(), (augment.CutMix(),),
        (augment.HorizontalFlip(),), (augment.Grayscale(), augment.Gamma()), Step(), TOY, object(),
    ]
)  # fmt: skip
LIKELY = st.sampled_from(
    [False, True, None, 0, 1, 2, 3, 8, 16, 100, 0.01, 0.1, 0.3, 0.9, 3.0, 1e6, (0.2, 0.4), (8, 8)]
)
WORDS = st.sampled_from(
    [
        "OneCycle(", "SGD(momentum=2)", "SGD(momentum=SGD)", "[" * 300, "-" * 99_999 + "1", "(,)",
        "{[]: 1}", "9" * 5000, "lambda: 0", "os:system", "fastcv.data:Images()", "resnet18",
        "torch.nn:Linear()", "HorizontalFlip(), RandomCrop()", "OneCycle(epochs=1, lr=0.1),",
        "None, None", "a:b", "a:b()", "[1, [2]]", "1e999", "-0", "0x10", "True", "none",
    ]
)  # fmt: skip
TYPED = (
    VALUES.map(repr)
    | PARTS.map(lambda part: getattr(part, "__name__", repr(part)))
    | st.text(max_size=20)
    | WORDS
)


def places(value, path=()):
    """The path of everything that a recipe is made of."""
    for name, inner in children(value).items():
        yield (*path, name)
        yield from places(inner, (*path, name))


def children(value):
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    return dict(enumerate(value)) if isinstance(value, tuple) else {}


def put(value, path, new):
    """The value with another part at a path."""
    if not path:
        return new
    inner = {**children(value)}
    inner[path[0]] = put(inner[path[0]], path[1:], new)
    if is_dataclass(value):
        return replace(value, **{path[0]: inner[path[0]]})
    return inner if isinstance(value, Mapping) else tuple(inner.values())


BASES = st.sampled_from(RECIPES)
AT = BASES.flatmap(lambda each: st.tuples(st.just(each), st.sampled_from(list(places(each)))))


def examples(few):
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module", autouse=True)
def _frugal():
    """Bound the memory, so that a size that no machine has room for fails at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, hard))
    patch = pytest.MonkeyPatch()
    # Figures take most of a smoke run's time, and show what was trained, not what was asked for.
    patch.setattr(Results, "write", lambda self, parameters: {"reported": {}})
    patch.setattr(Results, "table", lambda self: [])
    yield
    patch.undo()
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refused(error):
    text = str(error)
    assert text, repr(error)
    assert "\n" not in text, text
    assert len(text) < 2000, text
    return True


def kept(recipe):
    """Whether a recipe can be written down; then it is read again as it was."""
    try:
        values = flat(recipe)
    except ValueError as error:
        return not refused(error)
    assert unflat(json.loads(json.dumps(values)), trust=True) == as_saved(recipe)
    return True


def as_saved(recipe):
    return unflat(flat(recipe), trust=True)


def trained(recipe):
    with tempfile.TemporaryDirectory() as out:
        try:
            train(recipe, out=out, wandb="off", device="cpu", smoke=True, write=lambda line: None)
        except (ValueError, FloatingPointError) as error:
            refused(error)


@examples(100)
@given(AT, VALUES | PARTS)
def test_a_value_in_any_place_is_taken_or_refused(at, new):
    base, path = at
    try:
        recipe = put(base, path, new)
    except ValueError as error:
        refused(error)
        return
    assert isinstance(recipe, Recipe)
    kept(recipe)


@examples(100)
@given(AT, TYPED)
def test_a_setting_is_taken_or_refused(at, text):
    base, path = at
    try:
        recipe = override(base, f"{'.'.join(map(str, path))}={text}")
    except ValueError as error:
        refused(error)
        return
    assert isinstance(recipe, Recipe)
    kept(recipe)


@examples(16)
@given(AT, VALUES | PARTS | LIKELY)
def test_what_is_taken_trains_or_is_refused(at, new):
    base, path = at
    try:
        recipe = put(base, path, new)
    except ValueError:
        return
    if not recipe.step.compile:  # which takes minutes
        trained(recipe)
