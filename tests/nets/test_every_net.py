"""What holds for every net that fastcv.nets exports, with its default settings."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastcv import nets

NETS = [
    net
    for _, net in sorted(inspect.getmembers(nets, inspect.isclass))
    if issubclass(net, nn.Module)
]
CLASSES = 7
every_net = pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)


def smallest_size(net):
    with pytest.raises(ValueError, match="size must be at least") as error:
        net(classes=CLASSES, size=1)
    return int(re.search(r"at least (\d+) pixels", str(error.value))[1])


def built(net, *, seed=0, **settings):
    torch.manual_seed(seed)
    return net(classes=CLASSES, size=smallest_size(net), **settings)


def images(net, *, batch=8):
    size = smallest_size(net)
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_nets_are_all_found():
    assert {net.__name__ for net in NETS} == set(nets.__all__)


@every_net
def test_logits_default_size_shape_and_finite(net):
    model = net(classes=CLASSES).eval()
    size = inspect.signature(net).parameters["size"].default
    with torch.inference_mode():
        logits = model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, CLASSES)
    assert logits.isfinite().all()


@every_net
def test_channels_one_is_taken(net):
    size = smallest_size(net)
    model = net(classes=CLASSES, channels=1, size=size).eval()
    assert model(torch.randn(2, 1, size, size)).shape == (2, CLASSES)


@every_net
def test_gradient_reaches_every_parameter(net):
    model = built(net).train()
    F.cross_entropy(model(images(net)), torch.arange(8) % CLASSES).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if parameter.ndim > 1:  # a bias before a batch norm has a gradient of exactly zero
            assert parameter.grad.abs().max() > 0, name


@every_net
def test_eval_same_result_twice(net):
    droppable = "dropout" in inspect.signature(net).parameters
    model, x = built(net, **({"dropout": 0.5} if droppable else {})).eval(), images(net)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        assert torch.equal(model(x), model(x))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@every_net
def test_state_dict_round_trip_same_logits(net):
    model, other, x = built(net).train(), built(net, seed=1).eval(), images(net)
    model(x)  # the running statistics travel too
    model.eval()
    with torch.inference_mode():
        assert not torch.equal(other(x), model(x))
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(x), model(x))


@every_net
def test_size_below_smallest_is_an_error_at_build(net):
    smallest = smallest_size(net)
    with pytest.raises(ValueError, match=f"at least {smallest} pixels .*got {smallest - 1}"):
        net(classes=CLASSES, size=smallest - 1)


@every_net
def test_odd_size_is_taken(net):
    size = smallest_size(net) + 5
    model = net(classes=CLASSES, size=size).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 3, size, size)).shape == (2, CLASSES)


@every_net
def test_channels_last_same_logits(net):
    model, x = built(net).eval(), images(net)
    with torch.inference_mode():
        expected = model(x)
        model.to(memory_format=torch.channels_last)
        logits = model(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


@every_net
def test_bf16_autocast_close_to_fp32(net):
    model, x = built(net).eval(), images(net, batch=2)
    with torch.inference_mode():
        expected = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(x)
    assert (logits.float() - expected).abs().max() < 0.1 * expected.abs().max()


@every_net
def test_compile_traces_one_whole_graph(net):
    model, x = built(net).eval(), images(net, batch=2)
    keys = list(model.state_dict())
    expected = model(x)
    model.compile(fullgraph=True, backend="eager")
    torch.testing.assert_close(model(x), expected)
    assert list(model.state_dict()) == keys


def test_imports_are_torch_and_the_standard_library():
    allowed = sys.stdlib_module_names | {"torch", "fastcv"}
    for file in Path(nets.__file__).parent.glob("[!_]*.py"):  # the room's door is lazy
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
                assert not node.module.startswith("fastcv") or node.module.startswith("fastcv.nets")
            assert {name.split(".")[0] for name in names} <= allowed, file.name
