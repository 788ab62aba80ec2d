from itertools import pairwise

import pytest
import torch
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.torch_core import set_seed
from torch import nn
from torch.optim.lr_scheduler import LinearLR

from fastcv.learning.callbacks.freeze_first import FreezeFirst
from fastcv.learning.callbacks.history import History
from fastcv.learning.learner import Learner
from fastcv.learning.losses import CrossEntropyLoss
from fastcv.learning.optimizers import SGD
from fastcv.learning.stages.schedules import Linear, triangle


def make_learner(batches=5):
    set_seed(0)
    x = torch.randn(batches * 4, 6)
    items = list(zip(x, (x.sum(1) > 0).long(), strict=True))
    loaders = DataLoaders(DataLoader(items, bs=4, shuffle=True), DataLoader(items, bs=4))
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    learn = Learner(
        loaders, net, loss_func=CrossEntropyLoss(), opt_func=SGD(momentum=0.9), cbs=History()
    )
    learn.remove_cb(ProgressCallback)
    return learn


def torchs(steps, **settings):
    """The rates of torch's LinearLR from a rate of 0.4."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    rule = LinearLR(optimizer, total_iters=steps, **settings)
    for _ in range(steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        rule.step()


def rates(learn):
    return [step["lr"] for step in learn.history.steps]


def test_falling_line_equals_torchs():
    learn = make_learner()
    Linear(epochs=3, lr=0.4, end=0.25)(learn)
    assert rates(learn) == pytest.approx(list(torchs(15, start_factor=1.0, end_factor=0.25)))


def test_default_ends_one_step_above_zero_and_leaves_the_momentum():
    learn = make_learner()
    Linear(epochs=2, lr=0.4)(learn)
    assert rates(learn) == pytest.approx([0.4 * (1 - step / 10) for step in range(10)])
    assert {step["momentum"] for step in learn.history.steps} == {0.9}


def test_triangle_equals_torchs_lines_one_after_the_other():
    learn = make_learner()
    Linear(epochs=4, lr=0.4, pct_start=0.25, start=0.2, end=0.07)(learn)
    rising = list(torchs(5, start_factor=0.2, end_factor=1.0))
    falling = list(torchs(15, start_factor=1.0, end_factor=0.07))
    assert rates(learn) == pytest.approx(rising + falling)


def test_triangle_takes_every_step_of_every_epoch():
    curve = triangle(0.5, 0.0, 0.0)
    found = [curve(step, step // 4, 4, 2)[0] for step in range(8)]
    assert found == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25])


def test_fraction_outside_its_bounds_is_refused():
    with pytest.raises(ValueError, match=r"from 0 to below 1, got 1\.0"):
        Linear(epochs=1, lr=0.1, pct_start=1.0)


def test_first_child_rests_from_its_epoch_on_and_is_free_afterwards():
    learn = make_learner()
    weights = []
    learn.history.on_epoch = lambda row, steps: weights.append(
        [p.detach().clone() for p in learn.model.parameters()]
    )
    Linear(epochs=4, lr=0.1, callbacks=(FreezeFirst(after=2),))(learn)

    def moved(index):
        return [not torch.equal(a[index], b[index]) for a, b in pairwise(weights)]

    assert moved(0) == [True, False, False]
    assert moved(2) == [True, True, True]
    assert all(p.requires_grad for p in learn.model.parameters())


def test_rest_leaves_frozen_what_was_frozen():
    learn = make_learner()
    learn.create_opt()
    learn.model[0].bias.requires_grad_(False)
    learn.fit(1, cbs=FreezeFirst(after=1)())
    assert not learn.model[0].bias.requires_grad
    assert learn.model[0].weight.requires_grad
