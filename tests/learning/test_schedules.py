import math
import re

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import combined_cos
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.torch_core import set_seed
from torch import nn

from fastcv.learning.callbacks.history import History
from fastcv.learning.learner import Learner
from fastcv.learning.losses import CrossEntropyLoss
from fastcv.learning.models import parameter_groups
from fastcv.learning.optimizers import SGD, Adam, AdamW
from fastcv.learning.stages.schedules import Constant, Cosine, OneCycle, Plateau, cosine, one_cycle
from fastcv.learning.stages.stage import EarlyStop, PreviousLR


def make_learner(optimizer=None, batches=5, groups=False):
    set_seed(0)
    x = torch.randn(batches * 4, 6)
    items = list(zip(x, (x.sum(1) > 0).long(), strict=True))
    loaders = DataLoaders(DataLoader(items, bs=4, shuffle=True), DataLoader(items, bs=4))
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    learn = Learner(
        loaders,
        net,
        loss_func=CrossEntropyLoss(),
        opt_func=optimizer or SGD(momentum=0.9),
        cbs=History(),
        **({"splitter": parameter_groups} if groups else {}),
    )
    learn.remove_cb(ProgressCallback)
    return learn


def rates(learn):
    return [step["lr"] for step in learn.history.steps]


def test_one_cycle_curve_equals_fastai():
    steps, epochs = 13, 4
    ours = one_cycle(0.25, 25.0, 1e5, (0.95, 0.85, 0.95))
    lr, momentum = combined_cos(0.25, 1 / 25, 1, 1e-5), combined_cos(0.25, 0.95, 0.85, 0.95)
    for step in range(steps * epochs):
        expected = lr(step / (steps * epochs)), momentum(step / (steps * epochs))
        assert ours(step, step // steps, steps, epochs) == pytest.approx(expected, rel=1e-5)


def test_one_cycle_fit_equals_fastai_fit_one_cycle():
    ours, fastai = make_learner(), make_learner()
    OneCycle(epochs=3, lr=0.2)(ours)
    fastai.fit_one_cycle(3, 0.2)
    assert rates(ours) == pytest.approx(fastai.recorder.hps["lr"], rel=1e-5)
    momenta = [step["momentum"] for step in ours.history.steps]
    assert momenta == pytest.approx(fastai.recorder.hps["mom"], rel=1e-5)
    for a, b in zip(ours.model.parameters(), fastai.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("period", [7, 200])
def test_cosine_per_batch_equals_torch_beyond_its_period(period):
    curve = cosine(period, per_batch=True)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=period)
    for step in range(3 * period):
        expected = optimizer.param_groups[0]["lr"]
        assert 0.01 * curve(step, 0, 1000, 1)[0] == pytest.approx(expected, abs=1e-9)
        optimizer.step()
        reference.step()


def test_cosine_per_epoch_is_constant_within_an_epoch_and_ends_above_zero():
    learn = make_learner()
    Cosine(epochs=4, lr=0.1)(learn)
    expected = [0.1 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates(learn) == pytest.approx([rate for rate in expected for _ in range(5)])


def test_cosine_of_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="'epoch' or 'batch', got 'week'"):
        Cosine(epochs=1, lr=0.1, per="week")(make_learner())


def test_plateau_cuts_the_rate_as_torch_does():
    learn = make_learner()
    Plateau(epochs=9, lr=1e-12, patience=2, factor=0.5)(learn)  # too small a rate to improve
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-12)
    rule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, eps=1e-8)
    expected = []
    for row in learn.history.rows:
        expected.append(optimizer.param_groups[0]["lr"])
        rule.step(row["valid_loss"])
    assert [row["lr"] for row in learn.history.rows] == expected


def test_plateau_really_cuts():
    learn = make_learner()
    Plateau(epochs=8, lr=1e-3, patience=1)(_with_stuck_loss(learn))
    seen = [row["lr"] for row in learn.history.rows]
    assert seen == pytest.approx([1e-3] * 3 + [1e-4] * 2 + [1e-5] * 2 + [1e-6])


def _with_stuck_loss(learn):
    learn.history.on_epoch = lambda row, steps: row.update(valid_loss=0.5)
    return learn


def test_constant_frozen_trains_the_last_group_alone():
    learn = make_learner(groups=True)
    before = [p.detach().clone() for p in learn.model.parameters()]
    Constant(epochs=1, lr=0.1, frozen=True)(learn)
    moved = [not torch.equal(a, b) for a, b in zip(before, learn.model.parameters(), strict=True)]
    assert moved == [False, False, True, True]
    Constant(epochs=1, lr=0.1)(learn)
    moved = [not torch.equal(a, b) for a, b in zip(before, learn.model.parameters(), strict=True)]
    assert moved == [True] * 4


def test_frozen_needs_more_than_one_group():
    with pytest.raises(ValueError, match="more than one parameter group, got one group"):
        Constant(epochs=1, lr=0.1, frozen=True)(make_learner())


def test_rate_is_spread_over_the_groups_down_from_the_last():
    learn = make_learner(groups=True)
    Constant(epochs=1, lr=1e-3, lr_mult=100)(learn)
    found = [group["lr"] for group in learn.opt.opt.param_groups]
    assert found == pytest.approx([1e-5, 1e-3])


def test_lr_mult_below_one_is_refused():
    with pytest.raises(ValueError, match=r"lr_mult must be at least 1, got 0\.5"):
        Constant(epochs=1, lr=1e-3, lr_mult=0.5)


def test_named_rate_is_what_the_finder_suggests():
    learn = make_learner(batches=30)
    Constant(epochs=1, lr="valley")(learn)
    suggested = learn.history.found[0][1].suggestions["valley"][0]
    assert rates(learn) == [suggested] * 30


def test_named_rate_is_found_with_the_groups_spread_as_in_training():
    learn = make_learner(batches=30, groups=True)
    seen = []

    class Watch(Callback):
        order = 70  # after what sets the rates

        def before_batch(self):
            seen.append([group["lr"] for group in self.opt.opt.param_groups])

    learn.add_cb(Watch())
    Constant(epochs=1, lr="valley", lr_mult=100)(learn)
    assert len(seen) > 40  # the finder's steps, then the epoch's 30
    assert all(last == pytest.approx(100 * first) for first, last in seen)
    found = learn.history.found[0][1]
    assert found.rates[:9] == pytest.approx([last for _, last in seen[:9]])
    assert seen[-1][1] == pytest.approx(found.suggestions["valley"][0])


@pytest.mark.parametrize("lr", [0.3, "valley"])
def test_rate_of_the_previous_stage_is_divided(lr):
    learn = make_learner(batches=30)
    for stage, given in enumerate((lr, PreviousLR(divided_by=4), PreviousLR(divided_by=0.5))):
        learn.history.stage = stage
        Constant(epochs=1, lr=given)(learn)
    first = learn.history.found[0][1].suggestions[lr][0] if lr == "valley" else lr
    assert rates(learn) == pytest.approx([first] * 30 + [first / 4] * 30 + [first / 2] * 30)
    assert len(learn.history.found) == (lr == "valley")  # no sweep for the others


def test_rate_of_a_previous_stage_that_is_none_is_refused():
    learn = make_learner()
    stage = Constant(epochs=1, lr=PreviousLR(divided_by=4))
    with pytest.raises(ValueError, match="must follow a Stage on the same Learner"):
        stage(learn)
    Constant(epochs=1, lr=0.3)(learn)
    learn.history.stage = 2  # stage 1 was one whose rate is not known
    with pytest.raises(ValueError, match="got none right before it"):
        stage(learn)
    with pytest.raises(ValueError, match="divided_by must be above 0, got 0"):
        PreviousLR(divided_by=0)


@pytest.mark.parametrize("lr", ["best", (1e-5, 1e-3), slice(1e-5, 1e-3), None])
def test_rate_that_is_no_number_nor_a_name_is_refused(lr):
    names = "one of valley, steep, slide, minimum, largest"
    with pytest.raises(ValueError, match=re.escape(f"{names}, got {lr!r}: for rates that grow")):
        Constant(epochs=1, lr=lr)


def test_early_stop_ends_after_patience_and_keeps_the_best_weights():
    learn = make_learner()
    kept = {}

    def remember(row, steps):
        kept[row["epoch"]] = learn.model.state_dict()["0.weight"].clone()
        row["valid_accuracy"] = {1: 0.3, 2: 0.9}.get(row["epoch"], 0.5)

    learn.history.on_epoch = remember
    Constant(epochs=20, lr=0.1, early_stop=EarlyStop(patience=3, monitor="valid_accuracy"))(learn)
    assert len(learn.history.rows) == 5
    assert torch.equal(learn.model.state_dict()["0.weight"], kept[2])
    assert not torch.equal(kept[5], kept[2])


def test_early_stop_needs_an_epoch_to_wait_for():
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        EarlyStop(patience=0)


def test_gradient_clip_bounds_the_step():
    learn = make_learner(SGD(momentum=0.0), batches=1)
    before = torch.cat([p.detach().flatten().clone() for p in learn.model.parameters()])
    Constant(epochs=1, lr=1.0, clip=1e-3)(learn)
    after = torch.cat([p.detach().flatten() for p in learn.model.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_clip_value_bounds_every_element_of_the_step():
    def step(limit):
        learn = make_learner(SGD(momentum=0.0), batches=1)
        before = [p.detach().clone() for p in learn.model.parameters()]
        Constant(epochs=1, lr=1.0, clip_value=limit)(learn)
        return [b - p.detach() for b, p in zip(before, learn.model.parameters(), strict=True)]

    whole, clipped = step(None), step(0.05)
    assert any(each.abs().max() > 0.05 for each in whole)
    for free, bounded in zip(whole, clipped, strict=True):
        torch.testing.assert_close(bounded, free.clamp(-0.05, 0.05), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (
            SGD(momentum=0.9, weight_decay=1e-2, nesterov=True),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
        ),
        (Adam(weight_decay=1e-2), lambda p: torch.optim.Adam(p, 0.1, weight_decay=1e-2)),
        (AdamW(weight_decay=1e-2), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=1e-2)),
    ],
)
def test_optimizers_step_as_plain_torch(ours, torchs):
    learn = make_learner(ours)
    reference = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    reference.load_state_dict(learn.model.state_dict())
    optimizer = torchs(reference.parameters())
    learn.create_opt()
    learn.opt.set_hypers(lr=0.1)
    x = torch.randn(4, 6)
    for _ in range(3):
        for net, opt in ((learn.model, learn.opt), (reference, optimizer)):
            net(x).square().mean().backward()
            opt.step()
            opt.zero_grad()
    for a, b in zip(learn.model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_stages_start_with_a_fresh_optimizer():
    learn = make_learner()
    Constant(epochs=1, lr=0.1)(learn)
    first = learn.opt
    Constant(epochs=1, lr=0.1)(learn)
    assert learn.opt is not first


@pytest.mark.parametrize(
    "make", [EarlyStop, lambda monitor: Plateau(epochs=1, lr=1, monitor=monitor)]
)
def test_unknown_monitor_is_refused_before_anything_runs(make):
    with pytest.raises(
        ValueError, match=r"train_ or valid_ and .* such as valid_loss, got 'val_loss'"
    ):
        make(monitor="val_loss")


def test_a_stage_has_at_least_one_epoch():
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        Constant(epochs=0, lr=0.1)
