import json
import shutil
from dataclasses import replace

import pytest
import torch
from fastai.callback.core import Callback
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from fastcv.augment import ColorJitter, HorizontalFlip
from fastcv.cli import app
from fastcv.data import CIFAR10_STATS, Toy
from fastcv.data.images import Images
from fastcv.experiment.building import learner
from fastcv.experiment.train import train
from fastcv.learning.callbacks.freeze_first import FreezeFirst
from fastcv.learning.cuda_graph import stepper as module
from fastcv.learning.losses import CrossEntropy
from fastcv.learning.models import FromScratch
from fastcv.learning.optimizers import SGD, Adam, AdamW
from fastcv.learning.stages.schedules import Constant, OneCycle
from fastcv.recipe import Recipe, flat, override, unflat
from fastcv.recipe.values import Step

CPU = torch.device("cpu")


class Two(nn.Sequential):
    """Two children, so that the first can be frozen."""

    def __init__(self, *, classes, channels, size):
        body = (nn.Conv2d(channels, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        super().__init__(
            nn.Sequential(*body),
            nn.Sequential(nn.Flatten(), nn.Linear(4 * (size // 2) ** 2, classes)),
        )


RECIPE = Recipe(
    data=Images(
        source=Toy(classes=3, size=8, train=8, test=3),  # 9 validate: a last batch of one
        size=8,
        batch_size=8,
        augment=(HorizontalFlip(), ColorJitter(brightness=0.2)),
        normalize=CIFAR10_STATS,
    ),
    model=FromScratch(net=Two),
    optimizer=SGD(weight_decay=5e-4),
    loss=CrossEntropy(),
    schedule=(Constant(epochs=2, lr=0.05),),
    precision="fp32",
    name="step_toy",
)


def test_step_is_part_of_a_recipe():
    recipe = replace(RECIPE, step=Step(compile=True, graph="off", channels_last=False))
    assert unflat(flat(recipe), trust=True) == recipe
    assert flat(RECIPE)["step.graph"] == "auto"
    changed = override(RECIPE, "step.compile=True", "step.graph=off", "step.channels_last=False")
    assert changed == recipe


def test_command_line_compiles_where_it_is_told_to():
    for asked, given in (([], "False"), (["--compile"], "True")):
        said = CliRunner().invoke(app, ["recipe", "digits", "--dry-run", *asked])
        assert said.exit_code == 0, said.output
        assert f"step.compile={given}\n" in said.output


def test_unknown_graph_setting_is_refused():
    with pytest.raises(ValueError, match="one of auto, try, on, off, got 'maybe'"):
        override(RECIPE, "step.graph=maybe")


@pytest.mark.parametrize("optimizer", [SGD, Adam, AdamW])
@pytest.mark.parametrize("fused", [True, False])
def test_optimizers_are_fused_or_as_torch_has_them(optimizer, fused):
    steps = []
    for each in (optimizer(fused=fused), optimizer()):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        stepper = each(list(net.parameters()), 0.1)
        for _ in range(2):
            net(torch.randn(4, 3)).square().mean().backward()
            stepper.step()
            stepper.zero_grad()
        steps.append((stepper.opt.param_groups[0]["fused"], net.weight.detach()))
    assert steps[0][0] is (True if fused else None)
    torch.testing.assert_close(steps[0][1], steps[1][1])


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_and_weights_lie_as_asked(channels_last):
    learn = learner(replace(RECIPE, step=Step(channels_last=channels_last)), device="cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    seen = []

    class Looks(Callback):
        def after_batch(self):
            seen.append(self.learn.xb[0].is_contiguous(memory_format=layout))

    learn.add_cb(Looks())
    RECIPE.schedule[0](learn)
    assert seen
    assert all(seen)
    assert learn.model[0][0].weight.is_contiguous(memory_format=layout)


def test_layouts_train_alike_within_rounding():
    losses = []
    for channels_last in (True, False):
        learn = learner(replace(RECIPE, step=Step(channels_last=channels_last)), device="cpu")
        RECIPE.schedule[0](learn)
        losses.append([each["loss"] for each in learn.history.steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_processor_without_compiling_needs_no_warm_up(capsys):
    learn = learner(RECIPE, device="cpu")
    RECIPE.schedule[0](learn)
    assert learn.stepper.warmup_seconds == 0.0
    assert learn.stepper.used(learn) == {
        "compile": False,
        "graph": False,
        "graph_notes": ["the device is cpu, not cuda"],
        "channels_last": True,
        "fused": True,
    }
    assert "warm-up" not in capsys.readouterr().out


def test_switched_off_graph_says_so():
    learn = learner(replace(RECIPE, step=Step(graph="off")), device="cpu")
    used = learn.stepper.used(learn)
    assert used["graph_notes"] == ["it is switched off"]
    assert used["fused"] is None  # no optimizer yet


def _never(device=None):
    raise AssertionError("the data must not be loaded")


def test_graph_is_off_on_a_gpu_unless_asked_for():
    gpu, backend = torch.device("cuda"), object()
    learn = learner(RECIPE, device="cpu")
    graphs = {}
    for setting in ("auto", "off", "try", "on"):
        stepper = module.Stepper(Step(graph=setting), gpu, backend=backend)
        graphs[setting] = stepper.graph is not None
    assert graphs == {"auto": module.PROVEN, "off": False, "try": True, "on": True}
    if not module.PROVEN:
        used = module.Stepper(Step(), gpu, backend=backend).used(learn)
        assert used["graph_notes"] == ["it is not proven yet: step.graph=try uses it"]


def test_graph_that_is_insisted_on_needs_cuda_and_says_it_before_anything_is_loaded():
    recipe = replace(RECIPE, data=_never, step=Step(graph="on"))
    with pytest.raises(ValueError, match="graph='on' needs a CUDA device, got 'cpu'"):
        learner(recipe, device="cpu")


def test_stepper_does_not_travel_with_the_learner(tmp_path):
    learn = learner(RECIPE, device="cpu")
    assert "stepper" in vars(learn)
    assert "stepper" not in learn.__getstate__()


def pretended(net):
    """What stands in for torch.compile where only the way to it is tested."""
    pretended.calls = []

    def call(x):
        assert net.training
        pretended.calls.append(tuple(x.shape))
        return net(x)

    return call


def test_only_training_is_compiled_after_a_warm_up_without_a_trace(monkeypatch, tmp_path, capsys):
    plain = learner(RECIPE, device="cpu")
    RECIPE.schedule[0](plain)
    monkeypatch.setattr(module, "compiled", pretended)
    recipe = replace(RECIPE, step=Step(compile=True))
    run = train(recipe, out=tmp_path, wandb="off", device="cpu")
    assert pretended.calls == [(8, 3, 8, 8)] * (1 + 2 * 3)
    assert (
        load_file(run.path / "model.safetensors").keys()
        == Two(classes=3, channels=3, size=8).state_dict().keys()
    )
    for name in ("train_loss", "train_accuracy", "valid_accuracy"):
        assert run.summary[name] == plain.history.row[name]
    assert run.summary["warmup_seconds"] > 0
    assert run.summary["step"]["compile"] is True
    said = capsys.readouterr().out
    assert "warm-up" in said
    assert "net compiled" in said
    assert json.loads((run.path / "recipe.json").read_text())["flat"]["step.compile"] is True


def test_each_kind_of_step_is_compiled_before_the_first_epoch(monkeypatch):
    """A first layer that will rest, and an epoch's smaller last batch."""
    calls, epochs = [], []

    def noting(net):
        def call(x):
            calls.append((len(x), net[0][0].weight.requires_grad))
            return net(x)

        return call

    class Begins(Callback):
        def before_train(self):
            epochs.append(len(calls))

    monkeypatch.setattr(module, "compiled", noting)
    recipe = replace(
        RECIPE,
        data=replace(RECIPE.data, batch_size=7, drop_last=False),
        schedule=(Constant(epochs=3, lr=0.05, callbacks=(FreezeFirst(after=2),)),),
        step=Step(compile=True),
    )
    learn = learner(recipe, device="cpu")
    learn.add_cb(Begins())
    recipe.schedule[0](learn)
    assert calls[: epochs[0]] == [(7, True), (7, False), (3, True), (3, False)]
    assert set(calls[epochs[0] :]) == set(calls[: epochs[0]])
    plain = learner(replace(recipe, step=Step()), device="cpu")
    recipe.schedule[0](plain)
    assert plain.history.steps == learn.history.steps


def test_compiler_that_fails_is_one_sentence(monkeypatch):
    class CompilerError(RuntimeError):
        pass

    CompilerError.__module__ = "torch._inductor.exc"

    def broken(net):
        def call(x):
            raise CompilerError("\nno working C++ compiler\nand much more")

        return call

    monkeypatch.setattr(module, "compiled", broken)
    learn = learner(replace(RECIPE, step=Step(compile=True)), device="cpu")
    with pytest.raises(ValueError, match=r"torch.compile .* got 'no working C\+\+ compiler'"):
        RECIPE.schedule[0](learn)


def split(net):
    return [list(child.parameters()) for child in net.children()]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_equals_the_ordinary_one_within_rounding(monkeypatch):
    """The real compiler: frozen, unfrozen, found rates, ragged validation, predictions."""
    asked, compile_ = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **how: asked.append(how) or compile_(f, **how))
    schedule = (
        Constant(epochs=1, lr=0.05, frozen=True),
        OneCycle(epochs=2, lr="valley"),
    )
    learns = []
    for compile in (False, True):
        recipe = replace(RECIPE, step=Step(compile=compile), schedule=schedule)
        learn = learner(recipe, device="cpu")
        learn.splitter = split
        for stage in schedule:
            stage(learn)
        learns.append(learn)
    ordinary, compiled = learns
    losses = [[each["loss"] for each in learn.history.steps] for learn in learns]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    names = ordinary.model.state_dict().keys()
    assert compiled.model.state_dict().keys() == names
    for name, value in compiled.model.state_dict().items():
        torch.testing.assert_close(value, ordinary.model.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert [how["dynamic"] for how in asked] == [False]
    assert compiled.stepper.warmup_seconds > 0.5  # seconds: nothing is compiled in less
    assert compiled.get_preds()[0].shape == (9, 3)
