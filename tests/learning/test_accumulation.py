"""Gradients accumulated over several batches, beside large batches and plain gradient descent."""

from dataclasses import replace

import pytest
import torch
from fastai.callback.core import Callback
from tape import Tape
from torch import nn
from torch.nn import functional as F

from fastcv.data import Images, LongTail, Toy
from fastcv.experiment.building import learner
from fastcv.learning import EMA, SGD, Constant, CrossEntropy, FromScratch
from fastcv.learning.cuda_graph.stepper import Stepper
from fastcv.recipe import Recipe
from fastcv.recipe.values import Step


class Line(nn.Sequential):
    def __init__(self, *, classes, channels, size):
        super().__init__(nn.Flatten(), nn.Linear(channels * size * size, classes))


# 30 images in batches of 8: three whole ones and one of 6.
STAGE = Constant(epochs=3, lr=0.02, accumulate=4)
RECIPE = Recipe(
    data=Images(
        source=LongTail(source=Toy(classes=4, size=8, train=16, test=3), ratio=8),
        size=8,
        batch_size=8,
        drop_last=False,
    ),
    model=FromScratch(net=Line),
    optimizer=SGD(momentum=0.9),
    loss=CrossEntropy(weights="balanced", label_smoothing=0.1),
    schedule=(STAGE,),
    precision="fp32",
    name="accumulation_toy",
)


def fitted(recipe, backend=None):
    learn = learner(recipe, device="cpu")
    learn.stepper = Stepper(Step(graph="try"), torch.device("cpu"), backend=backend)
    for stage in recipe.schedule:
        stage(learn)
    return learn


@pytest.mark.parametrize(
    "settings", [{}, {"clip": 0.05}, {"clip_value": 1e-3}, {"callbacks": (EMA(),)}]
)
def test_batches_step_as_one_batch_of_all_their_images(settings):
    stage = replace(STAGE, **settings)
    accumulated = fitted(replace(RECIPE, schedule=(stage,)))
    whole = replace(RECIPE, data=replace(RECIPE.data, batch_size=30))
    at_once = fitted(replace(whole, schedule=(replace(stage, accumulate=1),)))
    torch.testing.assert_close(
        accumulated.model.state_dict(), at_once.model.state_dict(), rtol=1e-4, atol=1e-6
    )
    assert accumulated.updates == at_once.updates == 3
    for ours, theirs in zip(accumulated.history.rows, at_once.history.rows, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
        assert ours["valid_loss"] == pytest.approx(theirs["valid_loss"], rel=1e-4)


def test_the_last_step_of_an_epoch_takes_the_batches_that_are_left():
    recipe = replace(RECIPE, optimizer=SGD(momentum=0.0), loss=CrossEntropy())
    recipe = replace(recipe, schedule=(replace(STAGE, epochs=2, accumulate=3),))
    learn = learner(recipe, device="cpu")
    net = learner(recipe, device="cpu").model
    batches = []

    class Noted(Callback):
        run_valid = False

        def before_batch(self):
            batches.append((self.learn.xb[0], self.learn.yb[0]))

    learn.add_cb(Noted())
    recipe.schedule[0](learn)
    assert [len(y) for _, y in batches] == 2 * [8, 8, 8, 6]
    for group in (batches[:3], batches[3:4], batches[4:7], batches[7:]):
        x, y = (torch.cat(each) for each in zip(*group, strict=True))
        grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(net.parameters(), grads, strict=True):
                parameter -= 0.02 * grad
    torch.testing.assert_close(learn.model.state_dict(), net.state_dict(), rtol=1e-4, atol=1e-6)
    assert learn.updates == 4
    assert len(learn.history.steps) == 8


def test_no_gradient_is_left_for_the_next_stage():
    once = fitted(replace(RECIPE, schedule=(STAGE,)))
    assert all(each.grad is None for each in once.model.parameters())
    for parameter in once.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    again = fitted(replace(RECIPE, schedule=(STAGE,)))
    STAGE(once)
    STAGE(again)
    theirs = again.model.state_dict()
    assert all(torch.equal(each, theirs[key]) for key, each in once.model.state_dict().items())


def test_the_finder_takes_as_many_steps_from_more_batches():
    learn = fitted(replace(RECIPE, schedule=(replace(STAGE, lr="valley", accumulate=2),)))
    ((_, rates),) = learn.history.found
    assert 100 < len(rates.rates) <= 200
    assert learn.updates == 3 * 2


def test_a_graph_is_excluded_by_name(capsys):
    tape = Tape()
    fitted(replace(RECIPE, step=Step(cache_features=False)), tape)
    assert tape.replays == 0
    assert "no CUDA graph: Accumulation acts within the training step" in capsys.readouterr().out


def test_accumulate_is_a_number_of_batches():
    with pytest.raises(ValueError, match="accumulate must be at least 1, got 0"):
        replace(STAGE, accumulate=0)
