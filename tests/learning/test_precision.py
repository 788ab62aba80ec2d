import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.torch_core import set_seed
from torch import nn

from fastcv.learning.callbacks import precision
from fastcv.learning.callbacks.history import History
from fastcv.learning.callbacks.precision import Precision, cpu_has_bf16, resolve
from fastcv.learning.learner import Learner
from fastcv.learning.losses import CrossEntropyLoss
from fastcv.learning.optimizers import SGD

CPU = torch.device("cpu")


class Watching(nn.Module):
    """A small net that notes in which type and layout it computes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 2)
        self.seen = []

    def forward(self, x):
        y = self.conv(x)
        self.seen.append((y.dtype, x.is_contiguous(memory_format=torch.channels_last)))
        return self.head(y.mean((2, 3)))


def make_learner(kind):
    set_seed(0)
    x = torch.randn(16, 3, 8, 8)
    items = list(zip(x, (x.mean((1, 2, 3)) > 0).long(), strict=True))
    loaders = DataLoaders(DataLoader(items, bs=8, shuffle=True), DataLoader(items, bs=8))
    cbs = [History(), Precision(kind)]
    return Learner(
        loaders, Watching(), loss_func=CrossEntropyLoss(), opt_func=SGD(), lr=0.01, cbs=cbs
    )


@pytest.mark.parametrize(("kind", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_net_computes_in_the_asked_type_channels_last(kind, dtype):
    learn = make_learner(kind)
    learn.fit(1)
    learn.get_preds()
    assert learn.model.seen
    assert set(learn.model.seen) == {(dtype, True)}
    assert all(p.dtype == torch.float32 for p in learn.model.parameters())
    assert learn.model.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_autocast_on_a_gpu_is_the_same_in_every_step(monkeypatch):
    """A compiled net is compiled anew where it changes, which a capture does not allow."""
    given = []
    monkeypatch.setattr(
        torch, "autocast", lambda *_, cache_enabled, **__: given.append(cache_enabled)
    )
    for capturing in (False, True):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda now=capturing: now)
        Precision("bf16").scope(torch.device("cuda"))
    assert given == [False, False]


def test_bf16_trains_like_fp32_within_its_precision():
    losses = []
    for kind in ("fp32", "bf16"):
        learn = make_learner(kind)
        learn.fit(3)
        losses.append([step["loss"] for step in learn.history.steps])
    assert losses[0] == pytest.approx(losses[1], abs=0.02)  # bf16 keeps 8 bits
    assert losses[0] != losses[1]


def test_autocast_is_left_when_the_net_raises():
    learn = make_learner("bf16")
    learn.model.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        learn.fit(1)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("has_it", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_asks_the_processor(monkeypatch, has_it, chosen):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has_it)
    assert resolve("auto", CPU) == chosen
    assert resolve("fp32", CPU) == "fp32"
    assert resolve("bf16", CPU) == "bf16"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_f": True}, False),
        ({}, False),
    ],
)
def test_bf16_is_read_from_the_processor(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert cpu_has_bf16() is expected


def test_older_torch_is_answered_by_the_system(monkeypatch, tmp_path):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    asked = []

    def fake_open(name, *args, **kwargs):
        asked.append(name)
        (tmp_path / "cpuinfo").write_text("model name\t: X\nflags\t\t: fpu avx512_bf16\n")
        return (tmp_path / "cpuinfo").open()

    monkeypatch.setattr(precision, "open", fake_open, raising=False)
    assert cpu_has_bf16() is True
    assert asked == ["/proc/cpuinfo"]


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="one of auto, fp32, bf16, got 'fp8'"):
        resolve("fp8", CPU)


@pytest.mark.parametrize(
    ("conv", "breaks"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), True),
        (nn.Conv2d(16, 16, 1, stride=2, groups=4), True),
        (nn.Conv2d(8, 8, 1, stride=2), False),
        (nn.Conv2d(4, 8, 1), False),
        (nn.Conv2d(4, 8, 3, stride=2), False),
    ],
)
def test_net_that_onednn_would_break_is_not_trained_channels_last(conv, breaks):
    learn = make_learner("fp32")
    learn.model.conv = nn.Sequential(nn.Conv2d(3, conv.in_channels, 3, padding=1), conv)
    learn.model.head = nn.Linear(conv.out_channels, 2)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert [last for _, last in learn.model.seen] == [not breaks] * 4
