import subprocess
import sys

from fastai.callback.core import Callback
from fastai.learner import Learner as FastaiLearner
from fastai.learner import Recorder
from fastai.torch_core import set_seed

from fastcv.recipe import learner
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
