import random
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import SuggestionMethod, minimum, slide, steep, valley
from fastai.callback.tracker import SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner as StockLearner
from fastai.learner import Metric
from fastai.metrics import accuracy
from fastai.optimizer import Adam, OptimWrapper
from matplotlib import pyplot
from torch import nn

from fastcv.learning.learner import Learner
from fastcv.learning.lr_finder import find_rates, largest
from fastcv.learning.snapshot import snapshot_rng

SGD = partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=0.9, fused=True))


def noisy(x):
    """Augment images, not labels, with all three generators that a transform may draw from."""
    if not x.is_floating_point():
        return x
    return x + 0.1 * (random.random() + np.random.rand()) * torch.randn_like(x)


def toy_learner(path, *, n=64, opt_func=SGD, seed=3, **keywords):
    """A net with dropout and BatchNorm on 4 features of 2 classes, batches of 8, shuffled."""
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
    x = torch.randn(n, 4)
    items = list(zip(x, (x.sum(1) > 0).long(), strict=True))
    dls = DataLoaders.from_dsets(
        items, items[:16], bs=8, device="cpu", after_batch=noisy, path=path, num_workers=0
    )
    net = nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2)
    )
    keywords = {"loss_func": nn.CrossEntropyLoss(), "metrics": accuracy, "path": path} | keywords
    learn = Learner(dls, net, opt_func=opt_func, **keywords)
    learn.remove_cbs(learn.progress)
    learn.logger = lambda *_: None
    return learn


def stock_lr_find(learn, **keywords):
    """Run fastai's own finder, which numpy 2 warns about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return StockLearner.lr_find(learn, show_plot=False, **keywords)


def numbers(learn):
    """Everything that a training leaves: losses, rates, weights, optimizer, random states."""
    state = {
        "values": [list(row) for row in learn.recorder.values],
        "losses": [loss.item() for loss in learn.recorder.losses],
        "rates": list(learn.recorder.lrs),
        "weights": {key: v.tolist() for key, v in learn.model.state_dict().items()},
        "draws": (random.random(), np.random.rand(), torch.rand(3).tolist()),
        "loaders": [loader.rng.getstate() for loader in learn.dls.loaders],
    }
    for i, group in enumerate(learn.opt.param_lists):
        for j, p in enumerate(group):
            held = (
                learn.opt.opt.state[p]
                if isinstance(learn.opt, OptimWrapper)
                else learn.opt.state[p]
            )
            for key, value in held.items():
                state[i, j, key] = value.tolist() if isinstance(value, torch.Tensor) else value
    return state


@pytest.mark.parametrize("opt_func", [SGD, Adam], ids=["torch fused", "fastai"])
def test_lr_find_before_and_between_fits_changes_no_number(tmp_path, opt_func):
    def trained(*, find):
        learn = toy_learner(tmp_path, opt_func=opt_func)
        for rate in (0.05, 0.01):
            if find:
                learn.lr_find(num_it=20, show_plot=False)
            learn.fit(2, rate)
        return numbers(learn)

    plain = trained(find=False)
    assert trained(find=True) == plain
    assert trained(find=False) == plain  # the oracle itself is repeatable
    assert list(tmp_path.iterdir()) == []


def test_stock_lr_find_does_change_the_fit(tmp_path):
    """Guards the test above: with fastai's finder the very same comparison fails."""
    plain, disturbed = toy_learner(tmp_path), toy_learner(tmp_path)
    stock_lr_find(disturbed, num_it=20)
    plain.fit(1, 0.05)
    disturbed.fit(1, 0.05)
    assert numbers(disturbed) != numbers(plain)


def test_lr_find_before_one_cycle_and_after_freezing_changes_no_number(tmp_path):
    def trained(*, find):
        groups = lambda net: [list(net[:2].parameters()), list(net[4:].parameters())]  # noqa: E731
        learn = toy_learner(tmp_path, splitter=groups)
        learn.freeze()
        if find:
            learn.lr_find(num_it=20, show_plot=False)
        learn.fit_one_cycle(1, 0.05)
        if find:
            learn.lr_find(num_it=20, show_plot=False)
        learn.unfreeze()
        if find:
            learn.lr_find(start_lr=[1e-8, 1e-7], end_lr=[1, 10], num_it=20, show_plot=False)
        learn.fit_one_cycle(1, slice(1e-3, 0.05))
        return numbers(learn)

    assert trained(find=True) == trained(find=False)


def test_lr_find_leaves_the_learner_as_it_was(tmp_path):
    learn = toy_learner(tmp_path)
    learn.model.eval()
    before, callbacks = dict(vars(learn)), list(learn.cbs)
    recorder = dict(vars(learn.recorder))
    learn.lr_find(num_it=20, show_plot=False)
    assert vars(learn) == before
    assert learn.opt is None
    assert list(learn.cbs) == callbacks
    assert vars(learn.recorder) == recorder
    assert not any(module.training for module in learn.model.modules())
    assert all(p.grad is None for p in learn.model.parameters())
    assert not hasattr(learn, "lr_finder")


def test_lr_find_after_a_fit_keeps_the_recorder_whole(tmp_path):
    learn = toy_learner(tmp_path)
    learn.fit(2)
    kept = learn.recorder.losses
    learn.lr_find(num_it=20, show_plot=False)
    assert learn.recorder.losses == kept
    assert len(learn.recorder.values) == 2


def test_lr_find_restores_state_held_by_callbacks_and_metrics(tmp_path):
    class Counting(Metric):
        def __init__(self):
            self.seen, self.log, self.best = 0, [1], torch.zeros(2)

        def accumulate(self, learn):
            self.seen += 1

        value = 0.0

    class Averaging(Callback):
        def __init__(self):
            self.rows, self.mean = {"batches": [0]}, torch.zeros(4)
            self.rng = np.random.default_rng(0)

        def before_fit(self):
            self.hook = self.learn.model[0].register_forward_hook(lambda *_: None)

        def after_batch(self):
            self.rows["batches"].append(self.rng.random())
            self.rows["new"] = 1
            self.mean += 1
            self.learn.extra = 1

    averaging, counting = Averaging(), Counting()
    learn = toy_learner(tmp_path, cbs=averaging, metrics=counting)
    state = averaging.rng.bit_generator.state
    learn.lr_find(num_it=20, show_plot=False)
    assert averaging.rows == {"batches": [0]}
    assert averaging.mean.tolist() == [0] * 4
    assert averaging.rng.bit_generator.state == state
    assert counting.seen == 0
    assert "extra" not in vars(learn)
    assert not learn.model[0]._forward_hooks
    learn.fit(1)
    assert len(averaging.rows["batches"]) == 1 + 8 + 2  # the callback did run, then and now


def test_lr_find_with_saving_callback_writes_nothing(tmp_path):
    learn = toy_learner(tmp_path, n=24, cbs=SaveModelCallback(monitor="train_loss"))
    learn.lr_find(num_it=20, show_plot=False)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, OSError])
def test_lr_find_interrupted_changes_no_number(tmp_path, stop):
    class Interrupting(Callback):
        armed = False

        def after_backward(self):
            if Interrupting.armed and self.train_iter == 12:
                raise stop("stop")

    def trained(*, find):
        learn = toy_learner(tmp_path, cbs=Interrupting())
        learn.fit(1, 0.05)
        if find:
            Interrupting.armed = True
            with pytest.raises(stop):
                learn.lr_find(num_it=20, show_plot=False)
            Interrupting.armed = False
            assert not hasattr(learn, "lr_finder")
            assert all(p.grad is None for p in learn.model.parameters())
        learn.fit(1, 0.01)
        return numbers(learn)

    assert trained(find=True) == trained(find=False)


def test_lr_find_interrupted_leaves_autocast(tmp_path):
    class HalfPrecision(Callback):
        def before_batch(self):
            self.cast = torch.autocast("cpu", torch.bfloat16)
            self.cast.__enter__()

        def after_pred(self):
            raise KeyboardInterrupt

    learn = toy_learner(tmp_path, cbs=HalfPrecision())
    with pytest.raises(KeyboardInterrupt):
        learn.lr_find(num_it=20, show_plot=False)
    assert not torch.is_autocast_enabled("cpu")
    assert torch.autocast_increment_nesting() == 1
    assert torch.autocast_decrement_nesting() == 0


def test_lr_find_suggests_what_fastai_suggests(tmp_path):
    methods = (valley, slide, minimum, steep)
    ours = toy_learner(tmp_path).lr_find(num_it=60, show_plot=False, suggest_funcs=methods)
    stock = stock_lr_find(toy_learner(tmp_path), num_it=60, suggest_funcs=methods)
    assert tuple(ours) == tuple(stock)
    assert ours._fields == stock._fields == ("valley", "slide", "minimum", "steep")


def test_lr_find_default_is_valley(tmp_path):
    found = toy_learner(tmp_path).lr_find(show_plot=False)
    assert type(found).__name__ == "SuggestedLRs"
    assert found._fields == ("valley",)
    stock = stock_lr_find(toy_learner(tmp_path))
    assert found.valley == stock.valley


def test_lr_find_without_methods_returns_none(tmp_path):
    assert toy_learner(tmp_path).lr_find(num_it=20, show_plot=False, suggest_funcs=None) is None


def test_lr_find_accepts_partial_and_method_classes(tmp_path):
    methods = (partial(slide, lr_diff=10), SuggestionMethod.Steep)
    found = toy_learner(tmp_path).lr_find(num_it=60, show_plot=False, suggest_funcs=methods)
    assert found._fields == ("slide", "steep")


def test_find_rates_records_fastais_curve(tmp_path):
    stock = toy_learner(tmp_path)
    stock_lr_find(stock, num_it=60)
    found = find_rates(toy_learner(tmp_path), num_it=60)
    assert list(found.rates) == stock.recorder.lrs
    assert list(found.losses) == [loss.item() for loss in stock.recorder.losses]
    assert list(found.suggestions) == ["valley", "steep", "slide", "minimum", "largest"]
    for rate, loss in found.suggestions.values():
        assert 1e-7 < rate < 10
        assert min(found.losses) <= loss <= max(found.losses)


# Of 100 steps from 1e-7 to 10, as the finder keeps them: without the first 10 and the last 5.
SWEPT = 10 ** torch.linspace(-7, 1, 101)[10:95]


def test_largest_is_not_misled_by_the_first_batches_of_a_trained_net():
    losses = torch.full_like(SWEPT, 1.40)
    losses[:5] = 1.37  # few batches, an easy one among them
    losses[SWEPT > 2e-3] = 1.39 + 10 * SWEPT[SWEPT > 2e-3]
    losses[(SWEPT > 1.2e-3) & (SWEPT <= 2e-3)] = 1.38
    rate, (there, loss) = largest(SWEPT, losses, 100)
    assert 1.2e-3 < rate == there <= 2e-3
    assert loss == pytest.approx(1.38)


def test_largest_is_below_an_explosion_wherever_that_is():
    losses = 2.3 - 0.1 * torch.log10(SWEPT / SWEPT[0])
    losses[SWEPT > 1e-4] = 2.5 + 1e4 * SWEPT[SWEPT > 1e-4]
    assert largest(SWEPT, losses, 100)[0] == pytest.approx(1e-4, rel=0.2)
    short = slice(0, 28)  # stopped before half of the steps
    assert largest(SWEPT[short], losses[short], 100)[0] == pytest.approx(float(SWEPT[27]))


def test_largest_is_the_rate_of_the_lowest_loss(tmp_path):
    found = find_rates(toy_learner(tmp_path))
    kept = slice(10, len(found.losses) - 5)
    lowest = int(np.argmin(found.losses[kept]))
    rate, loss = found.suggestions["largest"]
    assert rate == pytest.approx(found.rates[kept][lowest])
    assert loss == pytest.approx(found.losses[kept][lowest])
    assert rate == pytest.approx(10 * found.suggestions["minimum"][0])
    assert toy_learner(tmp_path).lr_find(suggest_funcs=largest, show_plot=False).largest == rate


def test_find_rates_with_fewer_batches_than_steps_goes_round(tmp_path):
    learn = toy_learner(tmp_path, n=16)
    assert len(learn.dls.train) == 2
    found = find_rates(learn, num_it=30, stop_div=False, end_lr=1e-3)
    expected = 1e-7 * (1e-3 / 1e-7) ** (np.arange(30) / 30)
    np.testing.assert_allclose(found.rates, expected, rtol=1e-12)


def test_find_rates_ends_at_a_loss_that_is_not_finite(tmp_path):
    class Exploding(Callback):
        def after_loss(self):
            if self.train_iter == 30:
                self.learn.loss = self.learn.loss * float("nan")

    explode = {"num_it": 60, "stop_div": False}
    found = find_rates(toy_learner(tmp_path, cbs=Exploding()), **explode)
    assert len(found.losses) == 30
    assert np.isfinite(found.losses).all()
    stock = stock_lr_find(toy_learner(tmp_path, cbs=Exploding()), suggest_funcs=valley, **explode)
    assert found.suggestions["valley"][0] == stock.valley


def test_find_rates_stops_when_the_loss_quadruples(tmp_path):
    found = find_rates(toy_learner(tmp_path), num_it=60, end_lr=1e4, suggest_funcs=())
    best = min(found.losses)
    assert found.losses[-1] > 4 * best
    assert max(found.losses[:-1]) <= 4 * best
    longer = find_rates(
        toy_learner(tmp_path), num_it=60, end_lr=1e4, suggest_funcs=(), stop_div=False
    )
    assert len(longer.losses) > len(found.losses)


def test_find_rates_with_too_few_losses_says_so_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"slide needs at least 16 .* got 13: raise num_it"):
        find_rates(toy_learner(tmp_path), num_it=20, suggest_funcs=[slide])

    class Nothing(Callback):
        def after_loss(self):
            self.learn.loss = self.learn.loss * float("nan")

    for method in (valley, minimum, steep):
        with pytest.raises(ValueError, match=f"{method.__name__} needs .* got 0: raise num_it"):
            find_rates(toy_learner(tmp_path, cbs=Nothing()), suggest_funcs=[method])


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize(
    ("method", "fewest"), [(slide, 16), (steep, 2), (valley, 1), (minimum, 1), (largest, 1)]
)
def test_methods_need_as_many_losses_as_we_ask_for(method, fewest):
    rates, losses = torch.logspace(-5, 0, fewest), torch.linspace(2, 1, fewest)
    method(rates, losses, 100)
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        method(rates[1:], losses[1:], 100)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"start_lr": 0}, "start_lr=0 and end_lr=10"),
        ({"start_lr": 1, "end_lr": 0.1}, "must grow"),
        ({"num_it": 5}, "num_it must be at least 6 steps, got 5"),
    ],
)
def test_lr_find_with_wrong_arguments_is_a_value_error(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words):
        toy_learner(tmp_path).lr_find(show_plot=False, **wrong)


def test_lr_find_without_a_batch_is_a_value_error(tmp_path):
    with pytest.raises(ValueError, match="at least one batch"):
        toy_learner(tmp_path, n=4).lr_find(show_plot=False)


def test_lr_find_draws_only_when_asked(tmp_path):
    pyplot.close("all")
    learn = toy_learner(tmp_path)
    found = learn.lr_find(num_it=60, show_plot=False)
    assert pyplot.get_fignums() == []
    learn.lr_find(num_it=60)
    (axes,) = pyplot.gcf().axes
    curve, mark = axes.lines
    assert len(curve.get_xdata()) == len(find_rates(learn, num_it=60).rates) - 5
    assert list(mark.get_xdata()) == [found.valley]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["valley"]
    pyplot.close("all")


def test_untouched_randomness_restores_states_after_a_batch(tmp_path):
    learn = toy_learner(tmp_path)
    draws = lambda: (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: E731
    with snapshot_rng(learn.dls):
        first, seen = learn.dls.one_batch(), draws()
    with snapshot_rng(learn.dls):
        again = learn.dls.one_batch()
        assert torch.equal(again[0], first[0])
        assert draws() == seen


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_lr_find_on_cuda_restores_its_generator_and_weights(tmp_path):
    learn = toy_learner(tmp_path)
    learn.dls.to("cuda")
    torch.cuda.manual_seed(5)
    before = {key: value.clone() for key, value in learn.model.state_dict().items()}
    expected = torch.cuda.get_rng_state()
    learn.lr_find(num_it=20, show_plot=False)
    assert torch.equal(torch.cuda.get_rng_state(), expected)
    for key, value in learn.model.state_dict().items():
        assert torch.equal(value.cpu(), before[key]), key
    assert next(learn.model.parameters()).device.type == "cpu"
