"""What only a GPU can show: run `pytest -m gpu -n 0`, and read the notes below the results.

A GPU may sum in another order from run to run, so that losses and weights agree within bounds.
"""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback
from torch import nn

from fastcv.augment import (
    Affine,
    AlternatingFlip,
    ColorJitter,
    CutMix,
    HorizontalFlip,
    MixUp,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    TrivialAugment,
)
from fastcv.data import CIFAR10_STATS, Toy
from fastcv.data.images import Images
from fastcv.experiment.building import learner, smoked
from fastcv.experiment.environment import environment
from fastcv.learning import cuda
from fastcv.learning.callbacks.checkpoint import Checkpoint, prepare, read
from fastcv.learning.callbacks.ema import EMA
from fastcv.learning.callbacks.freeze_first import FreezeFirst
from fastcv.learning.cuda_graph.capture import CudaGraphs
from fastcv.learning.losses import CrossEntropy
from fastcv.learning.models import FromScratch
from fastcv.learning.muon import Muon
from fastcv.learning.optimizers import SGD, Adam, AdamW
from fastcv.learning.stages.schedules import Constant, Cosine, Linear, OneCycle
from fastcv.recipe import Recipe
from fastcv.recipes.speedrun_cifar10 import recipe as speedrun

pytestmark = pytest.mark.gpu

GPU = "cuda"
AUGMENT = (RandomCrop(padding=1), HorizontalFlip(), ColorJitter(brightness=0.2), RandomErasing())


class ResidualLike(nn.Module):
    """A stem, a residual block with BatchNorm, dropout and a head."""

    def __init__(self, *, classes, channels, size):
        super().__init__()
        # No bias before a batch norm: its gradient is noise, by which Adam steps as by any other.
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        )
        self.block = nn.Sequential(
            nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        )
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16, classes))

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.block(x)).relu().mean((2, 3)))


# 40 images in batches of 8: five steps an epoch.
RECIPE = Recipe(
    data=Images(
        source=Toy(classes=4, size=8, train=10, test=3),
        size=8,
        batch_size=8,
        augment=AUGMENT,
        normalize=CIFAR10_STATS,
    ),
    model=FromScratch(net=ResidualLike),
    optimizer=SGD(weight_decay=5e-4, nesterov=True),
    loss=CrossEntropy(label_smoothing=0.1),
    schedule=(Constant(epochs=3, lr=0.02),),
    precision="fp32",
    name="gpu_toy",
)


class Looks(Callback):
    """Notes whether the graph augments."""

    augments = None

    def after_batch(self):
        graph = self.learn.stepper.graph
        if self.learn.training and graph is not None and graph.feed is not None:
            self.augments = graph.feed.augments


def on_gpu(recipe, graph, before=lambda learn: None):
    """Train by the recipe's schedule; return the Learner and the state of the GPU's generator."""
    learn = learner(replace(recipe, step=replace(recipe.step, graph=graph)), device=GPU)
    learn.add_cb(Looks())
    before(learn)
    for stage in recipe.schedule:
        stage(learn)
    return learn, torch.cuda.get_rng_state().tolist()


def losses(learn):
    return torch.tensor([step["loss"] for step in learn.history.steps], dtype=torch.float64)


def distance(ours, theirs):
    """The largest relative distance of two sets of tensors by name, and its name."""
    assert ours.keys() == theirs.keys()
    found = [(0.0, "nothing")]
    for name, value in ours.items():
        a, b = value.double(), theirs[name].double()
        found.append((float((a - b).norm() / (b.norm() + 1e-3)), str(name)))
    return max(found)


def state(learn):
    """The optimizer's tensors by the place of their parameter."""
    kept = learn.opt.opt.state_dict()["state"]
    return {f"{key} {name}": each for key, all_ in kept.items() for name, each in all_.items()}


def compare(recipe, note, *, bound=2e-3, close=True, steps=None, before=lambda learn: None):
    """Train without a graph and with one, and see that they agree; return the latter."""
    ordinary, drawn = on_gpu(recipe, "off", before)
    graphed, also = on_gpu(recipe, "on", before)
    apart = (losses(ordinary) - losses(graphed)).abs().max().item()
    weights, where = distance(graphed.model.state_dict(), ordinary.model.state_dict())
    kept, what = distance(state(graphed), state(ordinary))
    note(
        f"losses differ by {apart:.2g}, weights by {weights:.2g} ({where}), the optimizer's state "
        f"by {kept:.2g} ({what}); warm-up {graphed.stepper.warmup_seconds:.2f} s"
    )
    assert graphed.stepper.graph.replayed == (steps or len(graphed.history.steps))
    assert graphed.looks.augments
    assert also == drawn
    assert apart < bound
    if close:
        assert weights < 10 * bound
        assert kept < 10 * bound
    rows = [learn.history.row["valid_loss"] for learn in (ordinary, graphed)]
    assert rows[1] == pytest.approx(rows[0], abs=2 * bound)
    return graphed


@pytest.mark.parametrize("cache", ["cuda", "cpu"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 2e-3), ("bf16", 5e-2)])
@pytest.mark.parametrize(
    ("optimizer", "stage"),
    [
        (SGD(weight_decay=5e-4, nesterov=True), Cosine(epochs=3, lr=0.02, per="batch")),
        (SGD(), Constant(epochs=3, lr=0.05, clip=0.5, clip_value=0.1)),
        (SGD(), Constant(epochs=3, lr=0.02, callbacks=(EMA(decay=0.9),))),
        (Adam(), Constant(epochs=3, lr=0.003)),
        (AdamW(), OneCycle(epochs=3, lr=0.003, momenta=None)),
        (AdamW(), OneCycle(epochs=3, lr=0.003)),
        (Muon(), Linear(epochs=3, lr=0.02, callbacks=(FreezeFirst(after=2),))),
    ],
    ids=["sgd", "clipped", "ema", "adam", "adamw", "adamw_outside", "muon"],
)
def test_graph_trains_as_ordinary_steps_do(cache, precision, bound, optimizer, stage, note):
    recipe = replace(
        RECIPE,
        data=replace(RECIPE.data, cache=cache),
        optimizer=optimizer,
        precision=precision,
        schedule=(stage,),
    )
    # Muon makes all directions of a momentum equally long, also those that are noise.
    learn = compare(recipe, note, bound=bound, close=not isinstance(optimizer, Muon))
    moves = isinstance(stage, OneCycle) and stage.momenta is not None
    outside = "its momentum changes from step to step" if moves else None
    assert learn.stepper.graph.outside == outside


@pytest.mark.parametrize(
    "augment",
    [
        (TrivialAugment(),),
        (RandomResizedCrop(size=8),),
        (Affine(degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1), shear=5),),
        (AlternatingFlip(), RandomCrop(padding=1), MixUp()),
        (HorizontalFlip(), CutMix()),
    ],
    ids=["trivial", "resized_crop", "affine", "alternating_mixup", "cutmix"],
)
def test_augmentation_is_part_of_the_graph(augment, note):
    compare(replace(RECIPE, data=replace(RECIPE.data, augment=augment)), note)


def test_ragged_last_batch_is_an_ordinary_step(note):
    data = replace(RECIPE.data, batch_size=7, drop_last=False)
    learn = compare(replace(RECIPE, data=data), note, steps=15)
    assert len(learn.history.steps) == 18


def in_groups(learn):
    learn.splitter = lambda net: [list(child.parameters()) for child in net.children()]


def test_frozen_and_unfrozen_stages(note):
    schedule = (
        Constant(epochs=1, lr=0.02, frozen=True),
        Constant(epochs=1, lr=0.02, lr_mult=20),
        Constant(epochs=1, lr=0.02, frozen=1),
    )
    compare(replace(RECIPE, schedule=schedule), note, before=in_groups)


def test_compiled_net_in_a_graph(note):
    pytest.importorskip("triton")
    recipe = replace(RECIPE, step=replace(RECIPE.step, compile=True))
    ordinary, _ = on_gpu(RECIPE, "off")
    began = time.perf_counter()
    compiled, _ = on_gpu(recipe, "on")
    seconds = time.perf_counter() - began
    assert compiled.stepper.graph.replayed == 15
    # Compiled dropout draws other masks: only that it learns can be compared.
    apart = abs(float(losses(compiled)[-5:].mean() - losses(ordinary)[-5:].mean()))
    note(f"compiled in {seconds:.1f} s; the last losses differ by {apart:.2g} on average")
    assert apart < 0.3


class Stops(Callback):
    order = 200  # behind the checkpoint

    def after_epoch(self):
        if self.learn.epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("graph", ["off", "on"])
def test_resumed_training_goes_on_as_one_that_was_never_stopped(graph, tmp_path, note):
    recipe = replace(RECIPE, optimizer=AdamW(), schedule=(Linear(epochs=4, lr=0.003),))
    whole, drawn = on_gpu(recipe, graph)
    file = tmp_path / "last.ckpt"
    with pytest.raises(KeyboardInterrupt):
        on_gpu(recipe, graph, lambda learn: learn.add_cbs([Checkpoint(file), Stops()]))
    found = read(file)

    def go_on(learn):
        prepare(learn, found, 1)
        learn.add_cb(Checkpoint(file, found))

    resumed, also = on_gpu(recipe, graph, go_on)
    apart = (losses(whole) - losses(resumed)).abs().max().item()
    weights, where = distance(resumed.model.state_dict(), whole.model.state_dict())
    note(f"graph {graph}: losses differ by {apart:.2g}, weights by {weights:.2g} ({where})")
    assert also == drawn
    assert apart < 2e-3
    assert weights < 2e-2


def test_whitening_and_tta(note):
    recipe = smoked(replace(speedrun, precision="fp32"))
    recipe = replace(recipe, model=replace(recipe.model, settings={"widths": (8, 16, 16)}))
    recipe = replace(recipe, schedule=(replace(speedrun.schedule[0], epochs=4),))
    ordinary, _ = on_gpu(recipe, "off")
    graphed, _ = on_gpu(recipe, "on")
    apart = (losses(ordinary) - losses(graphed)).abs().max().item()
    names = [name for name in graphed.history.row if "tta" in name]
    note(f"losses differ by {apart:.2g}; {names} measured")
    assert graphed.stepper.graph.notes == []
    assert names
    assert apart < 0.1  # Muon's momentum is noise at first


def test_several_learners_take_turns_in_one_process(note):
    recipes = [RECIPE, replace(RECIPE, optimizer=Adam(), seed=1)]
    expected = [losses(on_gpu(recipe, "off")[0]) for recipe in recipes]
    learns = []
    for recipe in recipes:
        learns.append(learner(replace(recipe, step=replace(recipe.step, graph="on")), device=GPU))
    for turn in range(2):
        for place, (recipe, learn) in enumerate(zip(recipes, learns, strict=True)):
            torch.manual_seed(turn)
            recipe.schedule[0](learn)
            assert learn.stepper.graph.replayed == 15 * (turn + 1), place
    for learn, alone in zip(learns, expected, strict=True):
        # Another seed, but the same training.
        assert abs(float(losses(learn)[10:15].mean() - alone[10:15].mean())) < 0.5
        assert losses(learn)[15:].mean() < losses(learn)[:15].mean()
    note(f"memory after them {torch.cuda.memory_allocated() / 1e6:.1f} MB")


def test_host_images_are_copied_from_pinned_memory():
    loader = learner(replace(RECIPE, data=replace(RECIPE.data, cache="cpu")), device=GPU).dls.train
    places = torch.tensor([3, 0, 5])
    images, labels = loader.gathered(places)
    plain, also = loader.decoded.batch(places)
    assert images.is_pinned()
    assert labels.is_pinned()
    assert torch.equal(images, plain)
    assert torch.equal(labels, also)


def test_fp32_is_fp32(note):
    cuda.prepare()
    torch.manual_seed(0)
    x, kernel = torch.randn(8, 64, 16, 16), torch.randn(64, 64, 3, 3)
    exact = nn.functional.conv2d(x.double(), kernel.double())
    errors = [
        ((nn.functional.conv2d(x.cuda(), kernel.cuda()).cpu() - exact).norm() / exact.norm()),
        ((x[0, 0].cuda() @ x[0, 1].cuda()).cpu() - x[0, 0] @ x[0, 1]).norm(),
    ]
    note(f"relative error of a convolution {float(errors[0]):.1e}; {environment(GPU, 'fp32')}")
    assert max(map(float, errors)) < 1e-4  # of TF32 it is 3e-4 or more


class Reads(ResidualLike):
    def forward(self, x):
        return super().forward(x) * float(x.mean() > -100)


class FailsInCapture(ResidualLike):
    def forward(self, x):
        if self.training and torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()  # forbidden while capturing, and not seen before
        return super().forward(x)


def test_net_that_waits_for_the_device_trains_the_ordinary_way():
    recipe = replace(RECIPE, model=FromScratch(net=Reads))
    ordinary, drawn = on_gpu(recipe, "off")
    tried, also = on_gpu(recipe, "try")
    assert tried.stepper.graph.replayed == 0
    assert tried.stepper.graph.notes[0].startswith("capturing the training step failed")
    assert also == drawn
    assert float((losses(tried) - losses(ordinary)).abs().max()) < 2e-3


def fail_and_go_on():
    """In a process of its own: a capture that fails, and what comes after it."""
    recipe = replace(RECIPE, model=FromScratch(net=FailsInCapture))
    ordinary, drawn = on_gpu(recipe, "off")
    tried, also = on_gpu(recipe, "try")
    after, _ = on_gpu(RECIPE, "try")
    found = {
        "apart": float((losses(tried) - losses(ordinary)).abs().max()),
        "same_draws": also == drawn,
        "notes": [tried.stepper.graph.notes, after.stepper.graph.notes],
    }
    CudaGraphs.unusable = None  # is it as bad as it is said to be?
    try:
        forced, _ = on_gpu(RECIPE, "on")
        found["forced"] = float((losses(forced) - losses(after)).abs().max())
    except (ValueError, RuntimeError) as error:
        found["forced"] = str(error)
    print(json.dumps(found))


def test_failed_capture_leaves_an_ordinary_training_and_no_further_captures(note):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import test_gpu; test_gpu.fail_and_go_on()"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().rpartition("\n")[2])
    note(f"a capture after a failed one, forced: {found['forced']}")
    failed, after = found["notes"]
    assert failed[0].startswith("capturing the training step failed")
    assert after == ["a capture failed in this process; a new one can capture"]
    assert found["same_draws"]
    assert found["apart"] < 2e-3
