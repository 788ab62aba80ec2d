"""The Learner of every recipe: fastai's, with a finder that leaves no trace and a fit to resume."""

from collections import namedtuple
from collections.abc import Callable, Sequence
from contextlib import nullcontext

# Imported for what they add: `summary` to a Learner; `show_results`, `plot_top_losses` to images.
import fastai.callback.hook
import fastai.vision.learner  # noqa: F401
from fastai import learner as fastai_learner
from fastai.callback.core import Callback, CancelEpochException
from fastai.callback.schedule import SuggestionMethod
from fastcore.basics import tuplify
from torch import Tensor

from fastcv.learning.lr_finder import Rates, find_rates
from fastcv.learning.precision import Precision


class Learner(fastai_learner.Learner):
    """fastai's Learner; a seeded fit after `lr_find` is the fit without it, and a fit can resume.

    Attributes:
        first_epoch: epochs of the running fit that a stopped run has done; set while a fit begins,
            which fastai's own `start_epoch` cannot do without breaking callbacks.
    """

    first_epoch = 0

    @property
    def borrowed(self) -> bool:
        """Whether the LR finder or a prediction uses the loop: nothing of it is training."""
        return hasattr(self, "lr_finder") or hasattr(self, "gather_preds")

    def _call_one(self, event_name: str) -> None:
        """Let the callbacks handle an event; what they raise for the user keeps its sentence."""
        try:
            for callback in self._handlers(event_name):
                callback(event_name)
        except (ValueError, FloatingPointError) as error:
            # fastai puts "Exception occured in `History` when calling event ..." in front.
            error.args = (str(error.args[0]).rpartition("`:\n\t")[2],)
            raise

    def _handlers(self, event_name: str) -> list[Callback]:
        """The callbacks that do something at an event, in order.

        fastai asks every callback at every event, and each that has no method for it looks through
        the whole Learner and its net for one: more than a small net's step takes itself.
        """
        if getattr(self, "_handled_by", None) != list(self.cbs):
            self._handled_by, self._by_event = list(self.cbs), {}
        if event_name not in self._by_event:
            self._by_event[event_name] = [
                callback
                for callback in self.cbs.sorted("order")
                if event_name in vars(callback)
                or hasattr(type(callback), event_name)
                or type(callback).__call__ is not Callback.__call__
                or event_name == "after_fit"  # it also switches callbacks on again
            ]
        return self._by_event[event_name]

    def __getstate__(self) -> dict:
        known = ("_handled_by", "_by_event")
        return {key: value for key, value in super().__getstate__().items() if key not in known}

    def _do_one_batch(self) -> None:
        # fastai's, with the forward pass in the scope of `Precision`, where there is one.
        precision = self._grab_cbs(Precision)
        with precision[0].scope(self.xb[0].device) if precision else nullcontext():
            pred = self.model(*self.xb)
        self.pred = pred.float() if isinstance(pred, Tensor) else pred
        self("after_pred")
        if len(self.yb):
            self.loss_grad = self.loss_func(self.pred, *self.yb)
            self.loss = self.loss_grad.clone()
        self("after_loss")
        if self.training and len(self.yb):
            self._do_grad_opt()

    def _do_fit(self) -> None:
        start, self.first_epoch = self.first_epoch, 0
        for epoch in range(start, self.n_epoch):
            self.epoch = epoch
            self._with_events(self._do_epoch, "epoch", CancelEpochException)

    def lr_find(
        self,
        start_lr: float | Sequence[float] = 1e-7,
        end_lr: float | Sequence[float] = 10,
        num_it: int = 100,
        stop_div: bool = True,
        show_plot: bool = True,
        suggest_funcs: Callable | Sequence[Callable] | None = SuggestionMethod.Valley,
    ):
        """Train with a growing learning rate, suggest rates, and put everything back.

        The arguments are those of fastai's; `fastcv.learning.lr_finder.find_rates` gives the
        whole curve.

        Returns:
            A named tuple SuggestedLRs with a rate for each of `suggest_funcs`; None without them.

        Raises:
            ValueError: the rates do not grow, or there is too little to learn a suggestion from.
        """
        found = find_rates(
            self,
            start_lr=start_lr,
            end_lr=end_lr,
            num_it=num_it,
            stop_div=stop_div,
            suggest_funcs=() if suggest_funcs is None else tuplify(suggest_funcs),
        )
        if show_plot:
            _plot(found)
        if suggest_funcs is None:
            return None
        suggested = namedtuple("SuggestedLRs", found.suggestions)
        return suggested(*(rate for rate, _ in found.suggestions.values()))


def _plot(found: Rates) -> None:
    """Draw as fastai does, through a recorder of its own: the learner's must not change."""
    recorder = fastai_learner.Recorder()
    recorder.lrs, recorder.losses = list(found.rates), list(found.losses)
    recorder.plot_lr_find(
        skip_end=5 if len(found.losses) > 10 else 0,
        suggestions=list(found.suggestions.values()),
        nms=list(found.suggestions),
    )
