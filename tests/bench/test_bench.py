import json
import subprocess
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from fastai.learner import Recorder
from torch import nn

from fastcv import bench as package
from fastcv.augment import (
    Affine,
    ColorJitter,
    Gamma,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Rotation,
)
from fastcv.bench import bench, captured, equivalents, memory, parts, rounds, table, tiny_step
from fastcv.bench.parts import PARTS, BareTraining, FastTraining, without
from fastcv.bench.plain_pytorch import Pictures, PlainLoader, PlainTraining
from fastcv.bench.rounds import Clock
from fastcv.bench.stock_fastai import StockTraining, stock_loaders
from fastcv.data import CIFAR10_STATS, Toy, digits
from fastcv.data.images import Images
from fastcv.experiment import building
from fastcv.experiment.building import learner
from fastcv.learning import cuda
from fastcv.learning.cuda_graph import stepper
from fastcv.learning.losses import CrossEntropy
from fastcv.learning.models import FromScratch
from fastcv.learning.optimizers import SGD, Adam, AdamW
from fastcv.recipe import Recipe

CPU = torch.device("cpu")
SIZE = 12
IMAGES = Images(
    source=Toy(classes=4, size=SIZE, train=8, test=2),
    size=SIZE,
    batch_size=8,
    augment=(RandomCrop(padding=2), HorizontalFlip()),
    normalize=CIFAR10_STATS,
)
RECIPE = Recipe(
    data=IMAGES,
    model=FromScratch(net=tiny_step.TinyNet),
    optimizer=SGD(weight_decay=5e-4, nesterov=True),
    loss=CrossEntropy(label_smoothing=0.1, weights="balanced"),
    schedule=(),
    name="bench_toy",
)
DIGITS = Recipe(
    data=Images(source=digits, size=8, channels=1, batch_size=16, holdout=0.2, train_per_class=10),
    model=FromScratch(net=tiny_step.TinyNet),
    optimizer=AdamW(),
    loss=CrossEntropy(),
    schedule=(),
    name="bench_digits",
)


@pytest.fixture
def one_process(monkeypatch):
    """Load in this process: starting others takes most of a short round."""
    from fastcv.bench import plain_pytorch

    make = plain_pytorch.DataLoader

    def in_process(*given, **settings):
        return make(*given, **settings | {"num_workers": 0, "persistent_workers": False})

    monkeypatch.setattr(plain_pytorch, "DataLoader", in_process)
    monkeypatch.setattr("fastai.data.core.defaults.cpus", 0)


class Ticks(Clock):
    """A clock that ends a round after so many batches."""

    def __init__(self, batches):
        super().__init__(CPU, 1.0)
        self.left = batches
        self.sizes = []

    def tick(self, images):
        self.sizes.append(images)
        self.left -= 1
        return self.left == 0


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("recipe", [RECIPE, DIGITS], ids=["color", "gray"])
def test_bench_gives_json_and_a_table_that_names_everything(recipe):
    said = []
    result = bench(
        replace(recipe, precision="bf16"),
        device="cpu",
        rounds=2,
        seconds_per_round=0.02,
        write=said.append,
    )
    assert json.loads(json.dumps(result)) == result
    three = {"plain_pytorch", "stock_fastai", "fastcv"}
    used = [part for part in PARTS if part.name not in ("compile", "graph")]
    lesser = {f"without_{part.name}" for part in used}
    assert len(lesser) == 4
    assert set(result["loader"]) == three
    assert set(result["training"]) == three | {"ceiling"} | lesser
    assert set(result["step"]) == {"bare", "stock_fastai", "fastcv"}
    assert set(result["brings"]) == {part.name for part in used}
    for kind in ("loader", "training", "step", "start"):
        assert set(result["spread"][kind]) == set(result[kind])
        for name, value in result[kind].items():
            low, high = result["spread"][kind][name]
            assert 0 < low <= value <= high
    assert result["machine"]["precision"] == "bf16"
    assert {"processor", "gpu", "cpu_bf16", "cpu_cores", "threads"} <= set(result["machine"])
    table = "\n".join(said)
    for name in result["training"] | result["step"] | result["loader"]:
        assert f"{name} " in table
    assert all(part.says in table for part in used)
    assert result["recipe"] in table
    assert result["machine"]["processor"] in table


def test_brings_is_the_ratio_of_the_medians(monkeypatch):
    speeds = {"plain_pytorch": 2.0, "stock_fastai": 1.0, "fastcv": 12.0, "without_cache": 4.0}
    contenders = {name: lambda speed=speed: speed for name, speed in speeds.items()}
    monkeypatch.setattr(package, "_contenders", lambda *_: (contenders, contenders))
    monkeypatch.setattr(tiny_step, "contenders", lambda *_: {"fastcv": lambda: 1.0})
    said = []
    result = bench(RECIPE, device="cpu", rounds=1, write=said.append)
    assert result["training"] == speeds
    assert result["brings"] == {"cache": 3.0}
    assert any("plain_pytorch" in line and "6.00 times" in line for line in said)


def test_images_limits_what_every_contender_sees(monkeypatch):
    seen = {}

    def contenders(recipe, learn, device, seconds, write):
        seen["train"] = len(learn.dls.train_ds)
        one = {"fastcv": lambda: 1.0}
        return one, one

    monkeypatch.setattr(package, "_contenders", contenders)
    monkeypatch.setattr(tiny_step, "contenders", lambda *_: {"fastcv": lambda: 1.0})
    result = bench(RECIPE, device="cpu", rounds=1, images=12, write=lambda line: None)
    assert seen["train"] == result["images"] == 12


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": replace(IMAGES, augment=(Gamma(),))}, "got Gamma: take another recipe"),
        ({"data": replace(IMAGES, augment=(Affine(degrees=3),))}, "got Affine"),
        ({"data": lambda device=None: None}, "data are Images"),
        ({"optimizer": torch.optim.SGD}, "SGD, Adam and AdamW"),
    ],
)
def test_bench_of_what_the_others_lack_is_an_error(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        bench(replace(RECIPE, **change), device="cpu", write=lambda line: None)


@pytest.mark.parametrize("numbers", [{"rounds": 0}, {"seconds_per_round": 0}, {"images": 5}])
def test_bench_of_too_little_is_an_error(numbers):
    with pytest.raises(ValueError, match="at least"):
        bench(RECIPE, device="cpu", write=lambda line: None, **numbers)


def _all_samples(data, tmp_path, kind):
    dls = data(CPU)
    samples = list(dls.train_ds.items)
    if kind == "files":
        from PIL import Image

        for number, sample in enumerate(samples):
            file = tmp_path / f"{number}.png"
            Image.fromarray(sample.image).save(file)
            samples[number] = sample._replace(image=file)
    return dls, samples


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("kind", ["arrays", "files"])
@pytest.mark.parametrize(
    "data",
    [
        replace(IMAGES, augment=()),
        replace(IMAGES, augment=(), size=8, resize=10),
        replace(DIGITS.data, augment=(), batch_size=7),
    ],
    ids=["color", "resized", "gray"],
)
def test_all_contenders_get_the_same_images(data, kind, tmp_path):
    dls, samples = _all_samples(data, tmp_path, kind)
    ours = dls.train.new(shuffle=False, drop_last=False).one_batch()
    plain = Pictures(samples, dls.vocab, data)
    bs = data.batch_size
    x = torch.stack([plain[place][0] for place in range(bs)])
    y = torch.tensor([plain[place][1] for place in range(bs)])
    assert x.is_contiguous()
    torch.testing.assert_close(x, ours[0].as_subclass(torch.Tensor), rtol=0, atol=2e-6)
    assert torch.equal(y, ours[1].as_subclass(torch.Tensor))

    stock = stock_loaders(samples, dls.vocab, data, CPU).train
    theirs = stock.new(shuffle=False).one_batch()
    assert theirs[0].shape == ours[0].shape
    assert torch.equal(theirs[1].as_subclass(torch.Tensor), y)
    if data.resize is None:  # fastai crops at random places of training images, and resizes so
        torch.testing.assert_close(theirs[0].as_subclass(torch.Tensor), x, rtol=0, atol=2e-6)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    "augment",
    [
        (RandomCrop(padding=2, padding_mode="reflect"), HorizontalFlip()),
        (
            Rotation(degrees=5),
            HorizontalFlip(),
            RandomCrop(padding=2),
            ColorJitter(brightness=0.2, hue=0.1),
        ),
        (RandomResizedCrop(size=SIZE, scale=(0.5, 1.0)), HorizontalFlip(p=1.0)),
        (RandomCrop(padding=0, size=10), ColorJitter(contrast=(0.5, 1.2), saturation=0.3)),
    ],
)
def test_augmented_batches_have_the_same_shape_and_range(augment):
    size = 10 if augment[0] == RandomCrop(padding=0, size=10) else SIZE
    data = replace(IMAGES, augment=augment, size=size, resize=SIZE, batch_size=32)
    dls, samples = _all_samples(data, None, "arrays")
    loaders = {
        "fastcv": dls.train,
        "plain": PlainLoader(Pictures(samples, dls.vocab, data), 32, CPU),
        "stock": stock_loaders(samples, dls.vocab, data, CPU).train,
    }
    found = {
        name: next(iter(loader))[0].as_subclass(torch.Tensor) for name, loader in loaders.items()
    }
    for x in found.values():
        assert x.shape == (32, 3, size, size)
        assert x.dtype == torch.float32
        assert (x - found["fastcv"]).mean().abs() < 0.2
        assert abs(x.std() - found["fastcv"].std()) < 0.3


def test_equivalents_have_the_strength_of_the_recipes():
    augment = (
        Rotation(degrees=(-5, 10)),
        HorizontalFlip(p=0.3),
        RandomCrop(padding=2, padding_mode="reflect"),
        ColorJitter(brightness=0.2, saturation=(0.5, 1.1), hue=0.1),
        RandomResizedCrop(size=8, scale=(0.3, 0.9)),
    )
    data = replace(IMAGES, augment=augment, size=8, resize=SIZE)
    turn, flip, crop, jitter, resized, *_ = equivalents.torchvision_transform(
        data, resized=True
    ).transforms
    assert turn.degrees == [-5, 10]
    assert flip.p == 0.3
    assert (crop.size, crop.padding, crop.padding_mode) == ((SIZE, SIZE), 2, "reflect")
    assert jitter.brightness == (0.8, 1.2)
    assert jitter.saturation == (0.5, 1.1)
    assert jitter.hue == (-0.1, 0.1)
    assert (resized.size, resized.scale) == ((8, 8), (0.3, 0.9))
    items, batches = equivalents.fastai_transforms(data, resized=False)
    assert [type(item).__name__ for item in items] == [
        "Resize",
        "CropPad",
        "RandomCrop",
        "RandomResizedCrop",
    ]
    assert sorted(item.order for item in items) == [item.order for item in items]
    assert [type(each).__name__ for each in batches][-1] == "Normalize"


@pytest.mark.parametrize("optimizer", [SGD(), Adam(weight_decay=0.1), AdamW()])
def test_torch_and_fastai_optimizers_step_as_the_recipes_do(optimizer):
    nets = [nn.Linear(3, 2) for _ in range(3)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    steppers = [
        optimizer(list(nets[0].parameters()), 0.1),
        equivalents.torch_optimizer(optimizer)(nets[1].parameters(), lr=0.1),
        equivalents.fastai_optimizer(optimizer)(list(nets[2].parameters()), lr=0.1),
    ]
    torch.manual_seed(0)
    for _ in range(3):
        x = torch.randn(4, 3)
        for net, optimizer in zip(nets, steppers, strict=True):
            net(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for net in nets[1:]:
        torch.testing.assert_close(net.weight, nets[0].weight, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("one_process")
def test_every_loop_trains():
    learn = learner(RECIPE, device="cpu")
    samples, vocab = list(learn.dls.train_ds.items), learn.dls.vocab
    pictures = Pictures(samples, vocab, IMAGES)
    nets = [learner(RECIPE, device="cpu").model for _ in range(2)]
    loops = {
        "plain": PlainTraining(
            PlainLoader(pictures, 8, CPU),
            nets[0],
            nn.CrossEntropyLoss(),
            equivalents.torch_optimizer(RECIPE.optimizer)(nets[0].parameters(), lr=0.01),
        ),
        "stock": StockTraining(
            stock_loaders(samples, vocab, IMAGES, CPU),
            nets[1],
            nn.CrossEntropyLoss(),
            equivalents.fastai_optimizer(RECIPE.optimizer),
        ),
        "fastcv": FastTraining(learn),
        "ceiling": BareTraining(learner(tiny_step.RECIPE, device="cpu"), nn.CrossEntropyLoss()),
    }
    trained = [*nets, learn.model, loops["ceiling"].net]
    for (name, loop), net in zip(loops.items(), trained, strict=True):
        before = [parameter.detach().clone() for parameter in net.parameters()]
        clock = Ticks(7)  # over the end of an epoch of four batches, without validation
        loop(clock)
        assert len(clock.sizes) == 7, name
        moved = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
        assert any(moved), name


def test_both_others_have_a_process_for_every_core():
    dls = IMAGES(CPU)
    samples = list(dls.train_ds.items)
    plain = PlainLoader(Pictures(samples, dls.vocab, IMAGES), 8, CPU).loader
    stock = stock_loaders(samples, dls.vocab, IMAGES, CPU).train
    assert plain.num_workers == stock.fake_l.num_workers > 0
    assert plain.persistent_workers


def test_stock_learner_is_fastais_own():
    dls = tiny_step.RECIPE.data(CPU)
    stock = StockTraining(dls, nn.Identity(), nn.CrossEntropyLoss(), None).learn
    assert type(stock).__module__ == "fastai.learner"
    names = {type(callback).__name__ for callback in stock.cbs}
    assert {"TrainEvalCallback", "Recorder", "ProgressCallback"} <= names
    assert stock.recorder.__class__ is Recorder


class NeverCaptures:
    def warm_up(self, program):
        raise RuntimeError("no GPU")


def test_without_a_part_is_without_that_part_alone(monkeypatch):
    """Also on a machine with a GPU, and with a compiler: both are stand-ins here."""
    monkeypatch.setattr(stepper, "compiled", lambda net: net.__call__)
    graphs = partial(stepper.Stepper, backend=NeverCaptures())
    monkeypatch.setattr(building, "Stepper", graphs)
    recipe = replace(RECIPE, precision="bf16", step=stepper.Step(compile=True, graph="try"))
    learn = learner(recipe, device="cpu")
    lesser = without(recipe, learn, CPU)
    assert set(lesser) == {f"without_{part.name}" for part in PARTS}
    whole = _features(learn)
    assert whole == {part.name for part in PARTS}
    for name, other in lesser.items():
        part = name.removeprefix("without_")
        assert _features(other) == whole - {part}, name


def _features(learn):
    """What a Learner has, seen from a batch that it trains."""
    has = set()
    FastTraining(learn)(Ticks(1))
    loader = learn.dls.train
    has |= {"cache"} if loader.decoded is not None else set()
    has |= {"bf16"} if learn.precision.precision == "bf16" else set()
    weight = next(learn.model.parameters())
    has |= {"channels_last"} if weight.is_contiguous(memory_format=torch.channels_last) else set()
    has |= {"fused_optimizer"} if learn.opt.opt.param_groups[0]["fused"] else set()
    has |= {"compile"} if learn.stepper.net(learn) is not learn.model else set()
    has |= {"graph"} if "no GPU" in str(learn.stepper.used(learn)["graph_notes"]) else set()
    return has


def test_without_bf16_is_not_measured_where_there_is_none():
    recipe = replace(RECIPE, precision="fp32", data=replace(IMAGES, cache="off"))
    assert set(without(recipe, learner(recipe, device="cpu"), CPU)) == {
        "without_channels_last",
        "without_fused_optimizer",
    }


def test_interleaved_takes_turns():
    order = []
    contenders = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    measured = rounds.interleaved(contenders, 4)
    turns = ["".join(order[start : start + 3]) for start in range(0, 12, 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) > 1
    assert measured == {
        name: [place for place, each in enumerate(order, 1) if each == name] for name in "abc"
    }


def test_quartiles_are_numpys():
    values = [3.0, 9.0, 1.0, 4.0, 7.0]
    assert rounds.median(values) == np.median(values)
    assert rounds.quartiles(values) == np.percentile(values, [25, 75]).tolist()
    assert rounds.quartiles([2.0]) == [2.0, 2.0]


def test_clock_leaves_warm_up_out_and_repeats_the_first_rounds_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: now[0])
    clock = Clock(CPU, seconds=3.0)
    for seconds, expected in ((1.0, 8.0), (0.5, 16.0)):
        clock.start()
        batches = 0
        over = False
        while not over:
            # The first two batches are slow, and would show.
            now[0] += 10.0 if batches < 2 else seconds
            over = clock.tick(8)
            batches += 1
        assert batches == 2 + 3
        assert clock.rate == pytest.approx(expected)


def test_memory_is_compared_in_processes_of_their_own(monkeypatch):
    asked = []

    def run(command, *, input, **settings):
        asked.append(json.loads(input))
        peak = 100.0 * len(asked)
        return subprocess.CompletedProcess(command, 0, stdout=f"said\n{peak}\n", stderr="")

    monkeypatch.setattr(memory.subprocess, "run", run)
    found = memory.peaks(RECIPE, CPU, (3, SIZE, SIZE), 4)
    assert found == {"synthetic": 100.0, "fastcv": 200.0, "above": 100.0}
    from fastcv.recipe import unflat

    bare, whole = (unflat(each["recipe"], trust=True) for each in asked)
    assert whole == RECIPE
    assert (bare.data.shape, bare.data.classes, bare.data.batch_size) == ((3, SIZE, SIZE), 4, 8)
    assert replace(bare, data=IMAGES) == RECIPE


def test_both_kinds_of_memory_measurement_train():
    for recipe in (RECIPE, tiny_step.RECIPE):
        memory.train(recipe, CPU, 0.01)
    assert 50 < memory.peak() < 50_000


def test_a_process_that_fails_says_why(monkeypatch):
    failed = subprocess.CompletedProcess(
        [], 1, stdout="", stderr="Traceback\nValueError: too bad\n"
    )
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match="exit with 0, got: ValueError: too bad"):
        memory.peaks(RECIPE, CPU, (3, SIZE, SIZE), 4)


def test_parts_have_different_names():
    assert len({part.name for part in parts.PARTS}) == len(parts.PARTS)


class Records:
    """Stands in for CUDA graphs: it runs the program again."""

    def __init__(self, device=None):
        self.captures = 0

    def warm_up(self, program):
        program()

    def capture(self, program):
        self.captures += 1
        return program

    def wait(self):
        pass


@pytest.fixture
def graphs(monkeypatch):
    made = Records()
    monkeypatch.setattr(captured, "backend", lambda device: made)
    monkeypatch.setattr(building, "Stepper", partial(stepper.Stepper, backend=made))
    return made


def test_where_there_are_graphs_bench_tells_whether_they_train_alike(graphs):
    found = captured.compared(RECIPE, learner(RECIPE, device="cpu").dls, CPU)
    assert (found["steps"], found["replayed"], found["notes"]) == (50, 50, [])
    assert found["largest_loss_difference"] == 0
    assert found["warmup_seconds"] > 0
    said = list(table.lines({**bench_result(), "graph": found}))
    assert "  losses differ by at most 0 from those without it" in said


def bench_result():
    kinds = ("loader", "training", "step")
    return {
        **{kind: {"fastcv": 2.0, "with_graph": 3.0} for kind in kinds},
        "spread": {kind: {"fastcv": [1.0, 4.0], "with_graph": [1.0, 4.0]} for kind in kinds},
        "recipe": "toy",
        "images": 32,
        "batch_size": 8,
        "rounds": 1,
        "brings": {"graph": 1.5},
        "start": {"fastcv": 0.1},
        "machine": table.describe(CPU, "fp32"),
    }


def test_where_there_are_graphs_two_more_contenders_use_them(graphs):
    recipe = replace(RECIPE, loss=CrossEntropy())
    learn = learner(recipe, device="cpu")
    _, training = package._contenders(recipe, learn, CPU, 0.01, print)
    assert {"with_graph", "ceiling_with_graph"} < training.keys()
    assert graphs.captures == 1  # the other one captures when it trains
    before = graphs.captures
    assert training["with_graph"]() > 0
    assert graphs.captures == before + 1


def test_captured_ceiling_trains_as_the_bare_one_does(graphs):
    nets = []
    for kind in (BareTraining, partial(captured.CapturedTraining, graphs=graphs)):
        learn = learner(tiny_step.RECIPE, device="cpu")
        start = {name: each.clone() for name, each in learn.model.state_dict().items()}
        run = kind(learn, nn.CrossEntropyLoss())
        learn.model.load_state_dict(start)  # the warm-up has trained it
        run.optimizer.state.clear()
        run(Ticks(5))
        nets.append(learn.model.state_dict())
    for name, value in nets[0].items():
        torch.testing.assert_close(nets[1][name], value, msg=name)


def test_other_contenders_run_with_torchs_own_settings_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = []
    package._as_usual(lambda clock: seen.append(cuda.settings()))(None)
    assert (seen[0]["tf32_convolutions"], seen[0]["cudnn_benchmark"]) == (True, False)
    now = cuda.settings()
    assert (now["tf32_convolutions"], now["cudnn_benchmark"]) == (False, True)
