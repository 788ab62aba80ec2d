import subprocess
import sys

import pytest
import torch
from fastai.callback.core import (
    Callback,
    CancelBackwardException,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
    CancelValidException,
)
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import CastToTensor, Recorder
from fastai.learner import Learner as FastaiLearner
from fastai.optimizer import OptimWrapper
from fastai.torch_core import TensorCategory, TensorImage, set_seed
from torch import Tensor, nn

from fastcv.experiment.building import learner
from fastcv.learning.learner import Learner
from fastcv.learning.optimizers import SGD
from fastcv.recipes.digits import recipe


class Everything(Callback):
    """Takes down every event it is asked to handle."""

    def __init__(self):
        self.events = []

    def __call__(self, event_name):
        self.events.append(event_name)
        return super().__call__(event_name)


class Batches(Callback):
    def __init__(self):
        self.count = 0

    def after_batch(self):
        self.count += 1


def test_every_event_comes_as_often_as_in_fastai():
    heard = []
    for call_one in (None, FastaiLearner._call_one):
        learn = learner(recipe, device="cpu")
        if call_one is not None:
            learn._call_one = call_one.__get__(learn)
        everything = Everything()
        set_seed(0)
        learn.fit(1, cbs=everything)
        heard.append(everything.events)
    assert heard[0] == heard[1]
    assert len(heard[0]) > 400


def test_callbacks_added_and_removed_in_between_are_noticed():
    learn = learner(recipe, device="cpu")
    first, second = Batches(), Batches()
    learn.fit(1, cbs=first)
    learn.fit(1, cbs=second)
    assert first.count == second.count > 0
    learn.remove_cb(Recorder)
    learn.validate()
    assert first.count == second.count


def test_callback_with_a_method_of_its_own_is_asked():
    learn = learner(recipe, device="cpu")
    heard = []
    learn.fit(1, cbs=Callback())
    callback = Callback()
    callback.after_epoch = lambda: heard.append(learn.epoch)
    learn.fit(2, cbs=callback)
    assert heard == [0, 1]


def test_callback_that_switched_itself_off_is_on_again_after_the_fit():
    learn = learner(recipe, device="cpu")
    batches = Batches()
    batches.run = False
    learn.add_cb(batches)
    learn.fit(1)
    assert batches.count == 0
    learn.fit(1)
    assert batches.count > 0


def test_interpretation_and_summary_are_there_without_another_import():
    code = (
        "import sys; from fastcv.learning.learner import Learner; "
        "assert hasattr(Learner, 'summary'); assert 'fastai.vision.learner' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def small_learner(kind=Learner, *, batches=None, **keywords):
    """A linear net on 5 batches of 8; `batches` replaces them."""
    set_seed(0)
    x = torch.randn(40, 4)
    items = list(zip(x, (x.sum(1) > 0).long(), strict=True))
    train = DataLoader(items, bs=8, shuffle=True) if batches is None else batches
    settings = {"loss_func": nn.CrossEntropyLoss(), "opt_func": SGD(), "lr": 0.1}
    loaders = DataLoaders(train, DataLoader(items[:16], bs=8))
    learn = kind(loaders, nn.Linear(4, 2), **settings | keywords)
    learn.remove_cbs(learn.progress)
    learn.logger = lambda row: None
    return learn


def weights(learn):
    return [p.tolist() for p in learn.model.parameters()]


class Cancelling(Callback):
    """Raises an exception at every other time that an event of training comes."""

    run_valid = False

    def __init__(self, event_name, exception):
        self.heard, self.times = [], 0
        setattr(self, event_name, self.cancel)
        self.exception = exception

    def cancel(self):
        self.times += 1
        if self.times % 2:
            raise self.exception

    def __call__(self, event_name):
        self.heard.append(event_name)
        return super().__call__(event_name)


@pytest.mark.parametrize(
    ("event_name", "exception"),
    [
        ("before_batch", CancelBatchException),
        ("after_pred", CancelBatchException),
        ("before_backward", CancelBackwardException),
        ("before_step", CancelStepException),
        ("after_batch", CancelTrainException),
        ("before_validate", CancelValidException),
        ("after_train", CancelEpochException),
        ("after_loss", CancelFitException),
    ],
)
def test_cancelling_does_what_it_does_in_fastai(event_name, exception):
    found = []
    for kind in (Learner, FastaiLearner):
        learn = small_learner(kind)
        cancelling = Cancelling(event_name, exception)
        learn.fit(3, cbs=cancelling)
        assert cancelling.times > 0
        found.append((cancelling.heard, weights(learn), len(learn.recorder.losses)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "callback", [lambda: GradientClip(0.01), lambda: GradientAccumulation(n_acc=16)]
)
def test_fastais_callbacks_of_the_step_work_as_in_fastai(callback):
    found = []
    for kind in (Learner, FastaiLearner):
        learn = small_learner(kind, cbs=callback())
        learn.fit(2)
        found.append((weights(learn), [loss.item() for loss in learn.recorder.losses]))
    assert found[0] == found[1]
    plain = small_learner()
    plain.fit(2)
    assert weights(plain) != found[0][0]


@pytest.mark.parametrize(("settings", "expected"), [({}, [5, 2]), ({"run_valid": False}, [5, 0])])
def test_callbacks_run_where_they_say(settings, expected):
    counted = {True: 0, False: 0}

    def count(callback):
        counted[callback.learn.training] += 1

    callback = Callback(after_pred=count)
    for name, value in settings.items():
        setattr(callback, name, value)
    small_learner(cbs=callback).fit(1)
    assert list(counted.values()) == expected


@pytest.mark.parametrize("kind", [tuple, list])
def test_callbacks_get_plain_tensors(kind):
    batches = [
        kind((TensorImage(torch.randn(8, 4)), TensorCategory(torch.zeros(8).long())))
        for _ in range(2)
    ]
    seen = []

    def look(callback):
        learn = callback.learn
        seen.append({type(each) for each in (*learn.xb, *learn.yb)})

    learn = small_learner(batches=batches, cbs=CastToTensor)
    assert not any(isinstance(callback, CastToTensor) for callback in learn.cbs)
    learn.fit(1, cbs=Callback(before_batch=look, after_batch=look))
    assert len(seen) == 2 * (2 + 2)  # with validation
    assert set().union(*seen) == {Tensor}


def test_batches_that_lie_elsewhere_are_brought_to_the_net():
    learn = small_learner()
    learn.model.to("meta")
    elsewhere = (torch.randn(2, 4), (torch.randn(2), [TensorImage(torch.randn(2))]))
    x, (first, (second,)) = learn._set_device(elsewhere)
    assert x.device == first.device == second.device == torch.device("meta")
    assert type(x) is type(first) is type(second) is Tensor


def test_number_of_inputs_is_the_loaders():
    x, y = torch.randn(8, 4), torch.zeros(8).long()
    learn = small_learner(batches=[(x, x, y), (x, x, y), (x, y)])
    learn.remove_cbs(list(learn.cbs))
    learn.dl, heard = learn.dls.train, []
    learn._do_one_batch = lambda: heard.append((len(learn.xb), len(learn.yb)))
    learn.all_batches()  # without `n_inp` the last element is the target
    learn.dls.n_inp = 1
    learn.all_batches()
    assert heard == [(2, 1), (2, 1), (1, 1), (1, 2), (1, 2), (1, 1)]


def test_optimizer_of_ones_own_takes_its_own_steps():
    class Counting(OptimWrapper):
        steps = zeroed = 0

        def step(self):
            self.steps += 1
            self.opt.step()

        def zero_grad(self):
            self.zeroed += 1
            self.opt.zero_grad()

    learn = small_learner(opt_func=lambda params, lr: Counting(params, torch.optim.SGD, lr=lr))
    learn.fit(2)
    assert (learn.opt.steps, learn.opt.zeroed) == (10, 10)


def test_misspelt_event_is_an_error():
    with pytest.raises(ValueError, match="one of fastai's, got 'after_bach'"):
        small_learner()("after_bach")


def test_callbacks_error_keeps_its_sentence_and_its_kind():
    def fail(callback):
        raise ValueError("must be said", 2)

    for event_name in ("before_batch", "before_epoch"):
        with pytest.raises(ValueError, match="must be said") as error:
            small_learner().fit(1, cbs=Callback(**{event_name: fail}))
        assert error.value.args[0] == "must be said"
