"""The Learner of every recipe: fastai's, with a traceless LR finder and fits that can resume."""

import warnings
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Imported for what they patch in: `Learner.summary`; `show_results`, `plot_top_losses` of images.
import fastai.callback.hook
import fastai.vision.learner  # noqa: F401
import torch
from fastai import learner as fastai_learner
from fastai.callback.core import (
    Callback,
    CancelBackwardException,
    CancelBatchException,
    CancelEpochException,
    CancelStepException,
    TrainEvalCallback,
    _inner_loop,
    event,
)
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import SuggestionMethod
from fastai.callback.tracker import TrackerCallback
from fastai.optimizer import OptimWrapper
from fastai.torch_core import find_bs, join_path_file
from fastcore.basics import tuplify
from torch import Tensor, nn

from fastcv import ranks
from fastcv.data.loader import shared
from fastcv.learning.callbacks import recorder
from fastcv.learning.cpu import denormals_flushed
from fastcv.learning.lr_finder import Rates, find_rates
from fastcv.learning.parallel import Parallel

if TYPE_CHECKING:
    from fastcv.learning.cuda_graph.stepper import Stepper
    from fastcv.learning.frozen_features import FrozenFeatures

# What replaces the callbacks that fastai adds to every Learner, with the same interface.
LEAN = {
    fastai_learner.Recorder: recorder.Recorder,
    TrainEvalCallback: recorder.TrainEvalCallback,
}


class Learner(fastai_learner.Learner):
    """fastai's Learner, whose fits can resume and are the same with and without `lr_find` before.

    Events, exceptions and attributes are fastai's; callbacks see batches of plain tensors. A step
    does little besides the net's own work, and does not wait for the device.

    Attributes:
        first_epoch: the epoch at which the next fit starts, for a resumed run. fastai's own
            `start_epoch` breaks callbacks.
        fitting: whether `fit` is running; `validate` sends callbacks the same events.
        stepper: executes training steps compiled, or by replaying a captured graph; None executes
            them as fastai does.
        frozen_features: stores the features of a frozen body, on which the head then trains; None
            computes them in every step.
        updates: how often the optimizer has changed the weights, over all fits; with accumulated
            gradients, not every batch does.
    """

    first_epoch = 0
    updates = 0
    fitting = False
    stepper: "Stepper | None" = None
    _passing: tuple[int, Callable[[], None]] | None = None  # of `begin_at`
    frozen_features: "FrozenFeatures | None" = None
    # Takes the place of the net while batches are stored features.
    _head: Callable[[Tensor], Tensor] | None = None
    # Looked up once for all batches of a loader; None between loaders.
    _net_device: torch.device | None = None
    _inputs: tuple[int, int] | None = None  # elements of a batch, and how many are inputs
    _handled_by: list[Callback] | None = None
    # The net as several ranks train it, and what it was made for.
    _parallel: tuple[tuple, Parallel] | None = None
    reduces = True  # whether the next backward pass averages gradients over the ranks

    @property
    def images(self) -> tuple[int, int]:
        """How many images of the running batch are this process's, and how many all ranks have."""
        part = getattr(self.dl, "part", None) if ranks.count() > 1 else None
        if part is None:
            size = find_bs(self.yb)
            return size, size
        return part.own, part.count

    @property
    def borrowed(self) -> bool:
        """Whether the LR finder or a prediction is using the training loop."""
        own = vars(self)  # `hasattr` would also look through the net
        return "lr_finder" in own or "gather_preds" in own

    @contextmanager
    def no_bar(self) -> Iterator["Learner"]:
        """Show no bars while the block runs, as fastai's; an epoch still has its line."""
        lines = vars(self).get("epoch_lines")
        with nullcontext() if lines is None else lines.without_bar():
            yield self

    def to_fp32(self) -> "Learner":
        """Compute in fp32 from now on."""
        return self._in_precision("fp32")

    def to_bf16(self) -> "Learner":
        """Compute the net in bf16 from now on; loss and optimizer stay in fp32."""
        return self._in_precision("bf16")

    def to_fp16(self, **scaler: Any) -> "Learner":
        """Compute the net in fp16 from now on, with a scaled loss, as fastai does; on CUDA only.

        Args:
            scaler: settings of torch's GradScaler.

        Raises:
            ValueError: the Learner is on another device.
        """
        device = torch.device(self.dls.device)
        if device.type != "cuda":
            raise ValueError(
                f"fp16 needs a CUDA device, this Learner is on {str(device)!r}: use to_bf16() or "
                "to_fp32()"
            )
        return self._in_precision("fp32").add_cb(MixedPrecision(**scaler))

    def _in_precision(self, precision: str) -> "Learner":
        if "precision" not in vars(self):  # a Learner without fastcv's callback
            kind = super()
            return kind.to_fp32() if precision == "fp32" else kind.to_bf16()
        self.precision.use(precision)
        return self.remove_cb(MixedPrecision)

    def __getattr__(self, name: str) -> Any:
        # fastai's Recorder sets it at every step, which waits for the device.
        if name == "smooth_loss" and "recorder" in vars(self):
            return self.recorder.smooth_loss.value
        # What fastai's callbacks draw into. Outside of a fit its `tta` would print bars there.
        if name == "progress" and self.fitting and "epoch_lines" in vars(self):
            return self.epoch_lines
        return super().__getattr__(name)

    def add_cb(self, cb: Callback | type[Callback]) -> "Learner":
        """Add a callback, or one of a class; `LEAN` replaces fastai's own."""
        if cb is fastai_learner.CastToTensor:
            return self  # batches are plain tensors already
        return super().add_cb(LEAN.get(cb, cb) if isinstance(cb, type) else cb)

    def __call__(self, event_name: str | Sequence[str]) -> None:
        """Let the callbacks handle an event, or several in turn."""
        for name in (event_name,) if isinstance(event_name, str) else event_name:
            self._call_one(name)

    def _call_one(self, event_name: str, aside: tuple[type, ...] = ()) -> None:
        """Let the callbacks, except those of classes `aside`, handle an event.

        Errors keep their message, for which fastai's `Callback.__call__` puts its own.
        """
        try:
            for callback, directly in self._handlers(event_name):
                if aside and isinstance(callback, aside):
                    continue
                if not directly:
                    callback(event_name)
                    continue
                in_part = callback.run_train if self.training else callback.run_valid
                handles = event_name in vars(callback) or hasattr(type(callback), event_name)
                if callback.run and handles and (in_part or event_name not in _inner_loop):
                    getattr(callback, event_name)()
                if event_name == "after_fit":
                    callback.run = True
        except (ValueError, FloatingPointError) as error:
            # fastai puts "Exception occured in `History` when calling event ..." in front.
            if error.args:
                error.args = (str(error.args[0]).rpartition("`:\n\t")[2], *error.args[1:])
            raise

    def _handlers(self, event_name: str) -> list[tuple[Callback, bool]]:
        """Return the callbacks that act at an event, in order.

        fastai calls every callback at every event, and one without a method for it searches the
        whole Learner and its net for one: that takes longer than the step of a small net. With each
        comes whether its method can be called directly, which spares `Callback.__call__`.
        """
        if self._handled_by != self.cbs.items:
            self._handled_by, self._by_event = list(self.cbs), {}
        if event_name not in self._by_event:
            if not hasattr(event, event_name):
                raise ValueError(f"an event must be one of fastai's, got {event_name!r}")
            inherits = {cb: type(cb).__call__ is Callback.__call__ for cb in self.cbs}
            self._by_event[event_name] = [
                (callback, inherits[callback])
                for callback in self.cbs.sorted("order")
                if event_name in vars(callback)
                or hasattr(type(callback), event_name)
                or not inherits[callback]
                or event_name == "after_fit"  # fastai switches callbacks on again there
            ]
        return self._by_event[event_name]

    def __getstate__(self) -> dict:
        passing = (
            *("_handled_by", "_by_event", "stepper", "frozen_features", "fitting"),
            *("_net_device", "_inputs", "_head", "_passing", "_parallel"),
        )
        return {key: value for key, value in super().__getstate__().items() if key not in passing}

    def validate(self, ds_idx: int = 1, dl: Any = None, cbs: Any = None) -> Any:
        """Return loss and metrics on a loader; the arguments are those of fastai's.

        fastai's loggers and trackers take no part: they would treat it as a fit, and overwrite
        their files.
        """
        with self.removed_cbs(self._grab_cbs(TrackerCallback | CSVLogger)):
            return super().validate(ds_idx, dl, cbs)

    def save(self, file: str | Path, **keywords: Any) -> Path:
        """Save the weights as fastai does; the history then knows which epoch they are of."""
        path = super().save(file, **keywords)  # of several ranks, the first one's
        if (history := vars(self).get("history")) is not None and history.rows:
            history.saved[str(path)] = history.row["epoch"]
        return path

    def load(self, file: str | Path, **keywords: Any) -> "Learner":
        """Load weights as fastai does, but without unpickling objects; see `save`."""
        with warnings.catch_warnings():  # fastai looks into numpy.core
            warnings.filterwarnings("ignore", "numpy.core is deprecated", DeprecationWarning)
            if ranks.rank() == 0:  # other ranks have saved nothing
                super().load(file, **keywords | {"weights_only": True})
        ranks.copy_from(0, self.model.state_dict().values())
        if (history := vars(self).get("history")) is not None:
            path = join_path_file(file, self.path / self.model_dir, ext=".pth")
            history.kept = history.saved.get(str(path))
        return self

    def begin_at(self, batch: int, go_on: Callable[[], None]) -> None:
        """Let the training part that follows pass over some batches, and call `go_on` after them.

        They are made, as their making draws random numbers, but not trained on.
        """
        self._passing = batch, go_on

    def _rest(self, loader: Iterable, passed: int, go_on: Callable[[], None]) -> None:
        """Train on the batches of a loader that follow the first `passed` ones."""
        self.n_iter = len(self.dl)
        batches = iter(shared(loader) if loader is self.dl else loader)
        for _ in range(passed):
            if next(batches, None) is None:
                raise ValueError(f"an epoch must have more than {passed} batches to go on in it")
        go_on()
        for number, batch in enumerate(batches, passed):
            self.one_batch(number, batch)

    def all_batches(self) -> None:
        """Train or evaluate on all batches of `self.dl`."""
        self._net_device = self._inputs = None
        features = self.frozen_features
        stored = None if features is None else features.stored(self)
        head, self._head = self._head, None if stored is None else stored.logits
        if together := ranks.count() > 1:
            self._meet(None if stored is None else stored.head)
        try:
            if self.training and self._passing is not None:
                passing, self._passing = self._passing, None
                self._rest(self.dl if stored is None else stored, *passing)
            elif stored is not None:
                self.n_iter = len(self.dl)
                for i, b in enumerate(stored):
                    self.one_batch(i, b)
            elif together:
                self.n_iter = len(self.dl)
                for i, b in enumerate(shared(self.dl)):
                    self.one_batch(i, b)
            elif self.training and self.stepper is not None and self.stepper.trains(self):
                self.n_iter = len(self.dl)
                self.stepper.train(self)
            else:
                super().all_batches()
            if together and not self.training:
                self._gather()
        finally:
            self._net_device = self._inputs = None
            self._head = head

    def _meet(self, head: nn.Module | None) -> None:
        """Prepare the net for the batches that several ranks share."""
        if not self.training:
            # Batch norm counts on each rank what that one has seen: the first one's is validated.
            ranks.copy_from(0, self.model.buffers())
            return
        if not self.fitting:
            return
        trained = tuple(each.requires_grad for each in self.model.parameters())
        made_for = (id(self.model), id(head), trained)
        if self._parallel is None or self._parallel[0] != made_for:
            net = self.model if head is None else head
            function = self._head
            if function is None:
                function = self.model if self.stepper is None else self.stepper.net(self)
            self._parallel = (made_for, Parallel(net, function))

    def _gather(self) -> None:
        """Let each rank know what all ranks have measured."""
        for each in ("history", "recorder"):
            if callback := vars(self).get(each):
                callback.gather()

    def one_batch(self, i: int, b: Sequence) -> None:
        """Train or evaluate on the batch `b`, the `i`-th of its loader."""
        self.iter = i
        self._split(self._set_device(b))
        self._with_events(self._do_one_batch, "batch", CancelBatchException)

    def _set_device(self, b: Any) -> Any:
        """Move a batch to the net's device, as plain tensors; most batches are there already."""
        if self._net_device is None:
            self._net_device = next(self.model.parameters()).device
        device = self._net_device
        if type(b) is tuple and all(isinstance(x, Tensor) and x.device == device for x in b):
            return plain(b)
        return plain(super()._set_device(b))

    def _split(self, b: Any) -> None:
        if self._inputs is None or self._inputs[0] != len(b):
            super()._split(b)
            self._inputs = len(b), len(self.xb)
        inputs = self._inputs[1]
        self.xb, self.yb = b[:inputs], b[inputs:]

    def _do_one_batch(self) -> None:
        self.pred = self.forward_pass(*self.xb)
        self("after_pred")
        if len(self.yb):
            self.loss_grad = self.loss_func(self.pred, *self.yb)
            self.loss = self.loss_grad.clone()
            if self._trains_together:
                own, every = self.images
                # The mean over the ranks is then the mean over the images of the whole batch.
                self.loss_grad = self.loss_grad * (own * ranks.count() / every)
        self("after_loss")
        if self.training and len(self.yb):
            self._do_grad_opt()

    def forward_pass(self, *xb: Tensor) -> Any:
        """Compute the logits of a batch in the Learner's precision; return them as float32."""
        if self._head is not None:
            net = self._head
        elif self.training and self.stepper is not None:
            net = self.stepper.net(self)
        else:
            net = self.model
        if self._trains_together:
            _, parallel = self._parallel
            parallel.reduce(self.reduces)
            net = partial(parallel, self.dl.part, self._own_seed())
        precision = vars(self).get("precision")
        with nullcontext() if precision is None else precision.scope(xb[0].device):
            pred = net(*xb)
        return pred.float() if isinstance(pred, Tensor) else pred

    @property
    def _trains_together(self) -> bool:
        return self.training and self._parallel is not None and ranks.count() > 1

    def _own_seed(self) -> int:
        """Return a seed for this step of this rank, the same in a resumed training."""
        rows = len(self.history.rows) if "history" in vars(self) else self.epoch
        return hash((torch.initial_seed(), ranks.rank(), rows, self.iter)) % 2**63

    def _do_grad_opt(self) -> None:
        self._with_events(self._backward, "backward", CancelBackwardException)
        self._with_events(self._step, "step", CancelStepException)
        self._optimizer.zero_grad()

    def _step(self) -> None:
        self._optimizer.step()
        self.updates += 1

    @property
    def _optimizer(self) -> Any:
        """The optimizer that steps: torch's own, without fastai's wrapper where it adds nothing."""
        return self.opt.opt if type(self.opt) is OptimWrapper else self.opt

    @denormals_flushed()
    @wraps(fastai_learner.Learner.fit)
    def fit(self, *args: Any, **keywords: Any) -> None:
        """Train as fastai does."""
        self.fitting = True
        try:
            super().fit(*args, **keywords)
        finally:
            self.fitting = False

    def _do_fit(self) -> None:
        start, self.first_epoch = self.first_epoch, 0
        try:
            if start < self.n_epoch:
                self.epoch = start
                features = self.frozen_features
                stores = features is not None and features.begin(self)
                if self.stepper is not None and not stores:
                    self.stepper.begin(self)
                ranks.wait()
            for epoch in range(start, self.n_epoch):
                self.epoch = epoch
                self._with_events(self._do_epoch, "epoch", CancelEpochException)
        finally:
            self._parallel = None
            if self.stepper is not None:
                self.stepper.end()
            # The fit after the LR finder uses the same features.
            if self.frozen_features is not None and not self.borrowed:
                self.frozen_features.end()

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

        Arguments and result are those of fastai's; `find_rates` returns the whole curve and says
        which errors there are.
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


def plain(batch: Any) -> Any:
    """Convert a batch's tensors to plain ones, also in tuples and lists: subclasses cost time."""
    if isinstance(batch, Tensor):
        return batch if type(batch) is Tensor else batch.as_subclass(Tensor)
    if isinstance(batch, tuple | list):
        kind = list if isinstance(batch, list) else tuple
        return kind(plain(each) for each in batch)
    return batch


def _plot(found: Rates) -> None:
    """Plot as fastai does, with a separate recorder: the learner's must not change."""
    drawn = fastai_learner.Recorder()
    drawn.lrs, drawn.losses = list(found.rates), list(found.losses)
    drawn.plot_lr_find(
        skip_end=5 if len(found.losses) > 10 else 0,
        suggestions=list(found.suggestions.values()),
        nms=list(found.suggestions),
    )
