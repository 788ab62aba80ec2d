"""A whole training step as one CUDA graph: augmentation, forward, backward and optimizer.

A step of a small net is hundreds of kernels of a few microseconds, which Python launches more
slowly than a GPU runs them. Captured once, they are all launched by one call.

A capture fixes four things:

- Memory addresses. Batches are copied into fixed buffers; weights, batch norm statistics and the
  optimizer's state stay in place. Before each epoch all addresses are compared with the captured
  ones, so that a newly frozen layer or a new tensor leads to another capture.
- Numbers in Python. Learning rates, and the epoch of `AlternatingFlip`, are read from tensors, so
  that they can change between replays. If momentum or weight decay change from step to step, the
  optimizer's step stays outside the graph. The numbers that modules, loss, mixing and clipping hold
  are compared before each epoch, and another one leads to another capture.
- Decisions in Python. Other augmentation that depends on the epoch stays outside; a hook, a
  callback that acts within a step (except by clipping) or may change a batch, and a net that counts
  its steps make every step an ordinary one.
- Random numbers. The device's come from torch's generator, whose state each replay reads and
  advances as an ordinary step does; a step that draws others is not captured.

Validation, the LR finder and batches of another size run as ordinary steps.
"""

import time
from collections.abc import Callable

import torch
from fastai.callback.core import CancelBatchException
from fastai.callback.schedule import ParamScheduler
from fastai.learner import Learner
from torch import Tensor, nn

from fastcv.learning.callbacks.clipping import CLIPS
from fastcv.learning.callbacks.mixing import Mixing
from fastcv.learning.callbacks.precision import Precision
from fastcv.learning.cuda_graph.capture import CudaGraphs, Outputs
from fastcv.learning.cuda_graph.feed import Feed, Raw, is_raw
from fastcv.learning.cuda_graph.fixed import Fixed, changed, fixed, hooked
from fastcv.learning.cuda_graph.program import as_in_training, step_program
from fastcv.learning.muon import OrthogonalMomentum
from fastcv.learning.snapshot import random_states, snapshot

# Events between the batch and the end of its step: a callback there is part of the step.
WITHIN = (
    "after_pred",
    "after_loss",
    "before_backward",
    "after_backward",
    "before_step",
    "after_step",
)
# The graph does what these do to a batch. Other callbacks must declare `only_rates`, which holds
# for fastai's scheduler too.
INSIDE = (Precision, Mixing)


class Graph:
    """Trains the batches of a Learner's epochs by replaying a captured step.

    Args:
        backend: what captures.
        insist: raise an error if the step cannot be captured; else it runs as an ordinary one.

    Attributes:
        reason: why steps are not replayed; None if they are.
        outside: why the optimizer's step is not in the graph; None if it is.
        replayed: number of steps, in all fits.
        notes: each reason that ever kept a step, or a part of it, from being replayed.
    """

    def __init__(self, backend: CudaGraphs, *, insist: bool = False):
        self.backend, self.insist = backend, insist
        self.reason: str | None = None
        self.outside: str | None = None
        self.replayed = 0
        self.notes: list[str] = []
        self.replay: Callable[[], Outputs] | None = None
        self.end()

    def begin(self, learn: Learner) -> None:
        """Capture the step of a fit that starts, leaving no trace.

        Raises:
            ValueError: the step cannot be captured, and `insist` is set.
        """
        self.end()
        self.feed = Feed(learn.dls.train, torch.device(learn.dls.device))
        self.outside = _optimizer_stays(learn)
        self.reason = obstacle(learn) or getattr(self.backend, "unusable", None)
        self._capture(learn)

    def end(self) -> None:
        """Release the graph and its memory."""
        self._drop()
        self.feed: Feed | None = None
        self.inputs: Raw = ()
        self.rates: list[Tensor] = []
        self.captured: tuple = ()
        self.written: set[str] = set()  # what a step itself sets in Python

    def trains(self, learn: Learner) -> bool:
        """Return whether `train` can take this epoch's batches."""
        if self.replay is None or learn.borrowed:
            return False
        self.reason = obstacle(learn)
        feed = Feed(learn.dl, torch.device(learn.dls.device))
        alike = (feed.augments, feed.gathers) == (self.feed.augments, self.feed.gathers)
        if self.feed.loader is not learn.dl or not alike:
            self.reason = "the loader of the training images, or what it does, was replaced"
        self._note()
        return self.reason is None

    def train(self, learn: Learner) -> float:
        """Train an epoch's batches, with callbacks before and after each as usual.

        Returns:
            seconds spent on another capture, which do not count as the epoch's.
        """
        self.seconds = 0.0
        for number, raw in enumerate(self.feed):
            if number == 0 and self.captured != self._state(learn):
                self._capture_again(learn, raw)
            if self.replay is None or not self._fits(raw):
                learn.one_batch(number, self.feed.make(*raw))
                continue
            learn.iter = number
            try:
                learn._call_one("before_batch", aside=INSIDE)
                self._step(learn, raw)
            except CancelBatchException:
                learn("after_cancel_batch")
            learn("after_batch")
        return self.seconds

    def _capture_again(self, learn: Learner, raw: Raw) -> None:
        self.backend.wait()
        start = time.perf_counter()
        self._capture(learn, raw)
        self.backend.wait()
        seconds = time.perf_counter() - start
        self.seconds += seconds
        learn.history.leave_out(seconds)

    def _drop(self) -> None:
        if self.replay is not None:
            self.backend.wait()
        self.replay = None

    def _fits(self, raw: Raw) -> bool:
        return all(a.shape == b.shape for a, b in zip(raw, self.inputs, strict=True))

    def _step(self, learn: Learner, raw: Raw) -> None:
        if self.outside is None and self.settings != _settings(learn):
            self.outside = "its settings change from step to step"
            self._capture_again(learn, raw)
        if self.replay is None:
            learn.xb, learn.yb = ((each,) for each in self.feed.make(*raw))
            for callback, _ in learn._handlers("before_batch"):
                if isinstance(callback, INSIDE):
                    callback("before_batch")
            learn._do_one_batch()
            return
        self._fill(raw)
        self._set_rates(learn)
        outputs = self.replay()
        self.replayed += 1
        learn.xb, learn.yb = (outputs.x,), (outputs.y,)
        # The next replay overwrites these, and callbacks may keep them.
        learn.pred, learn.loss = outputs.pred.clone(), outputs.loss.clone()
        learn.loss_grad = learn.loss
        if self.outside is not None:
            for parameter, grad in outputs.grads:
                parameter.grad = grad
            learn.opt.step()
            for parameter, _ in outputs.grads:
                parameter.grad = None
        learn.updates += 1

    def _fill(self, raw: Raw) -> None:
        for buffer, each in zip(self.inputs, raw, strict=True):
            buffer.copy_(each, non_blocking=True)

    def _make_rates(self, learn: Learner) -> None:
        device = torch.device(learn.dls.device)
        # Fused optimizers on a GPU read a float32 rate; on a CPU they are as exact as Python.
        real = torch.float32 if device.type == "cuda" else torch.float64
        groups = learn.opt.param_groups if self.outside is None else []
        self.rates = [torch.zeros((), dtype=real, device=device) for _ in groups]
        self.filled: list[float | None] = [None] * len(groups)
        self._set_rates(learn)

    def _set_rates(self, learn: Learner) -> None:
        for place, tensor in enumerate(self.rates):
            rate = learn.opt.opt.param_groups[place]["lr"]
            if rate != self.filled[place]:
                tensor.fill_(rate)
                self.filled[place] = rate

    def _capture(self, learn: Learner, raw: Raw | None = None) -> None:
        """Capture the step of a batch, by default of the next epoch's first; else set `reason`.

        Raises:
            ValueError: the step cannot be captured, and `insist` is set.
        """
        self._drop()
        if self.reason is None:
            try:
                self.replay = self._captured(learn, raw)
            except RuntimeError as error:
                self.reason = f"capturing the training step failed: {_cause(error)}"
        self._note()
        if self.replay is None and self.insist:
            raise ValueError(
                f"step.graph='on' needs a training step that can be captured, but {self.reason}: "
                f"set it to 'try' or 'off'"
            )

    def _note(self) -> None:
        notes = []
        if self.reason is not None:
            notes.append(self.reason)
        else:
            if self.outside is not None:
                notes.append(f"the optimizer's step is outside: {self.outside}")
            if not self.feed.augments:
                notes.append("augmentation is outside: it depends on the epoch or is not fastcv's")
        self.notes += [each for each in notes if each not in self.notes]

    def _captured(self, learn: Learner, raw: Raw | None) -> Callable[[], Outputs] | None:
        state, device = _optimizer_state(learn), torch.device(learn.dls.device)
        replay = None
        # Tensors left by an ordinary step belong to the stream that it ran on.
        learn.pred = learn.loss_grad = None
        if isinstance(learn.loss, Tensor):
            learn.loss = learn.loss.detach()
        with snapshot(learn):
            if raw is None:
                as_in_training(learn)
                raw = next(iter(self.feed))
            if not is_raw(raw):
                self.reason = "the batches are not images and labels"
                return None
            self.inputs = tuple(torch.empty_like(each, device=device) for each in raw)
            self._fill(raw)
            self._make_rates(learn)
            rates = self.rates if self.outside is None else None
            program = step_program(learn, self.feed, self.inputs, rates)
            before, first = random_states(device, own=False), self._fixed(learn)
            self.backend.warm_up(program)
            warm = self._fixed(learn)
            if random_states(device, own=False) == before:
                replay = self.backend.capture(program)
            else:
                self.reason = "the training step draws random numbers that are not the device's"
            then = self._fixed(learn)
            self.written = changed(first, then)
            if counted := changed(warm, then, numbers=True):
                self.reason = f"the training step changes {min(counted)} in Python"
                replay = None
            grown = {parameter: dict(each) for parameter, each in state.items()}
            self.captured = self._state(learn)
            self.settings = _settings(learn)
        for parameter, each in grown.items():
            if not state.get(parameter):
                # The state that a first step creates: the captured tensors, set back to zero.
                state[parameter] = each
                for value in filter(torch.is_tensor, each.values()):
                    value.zero_()
        return replay

    def _state(self, learn: Learner) -> tuple:
        """Return everything that must be unchanged for the captured step to be valid."""
        net = learn.model
        state = _optimizer_state(learn) if self.outside is None else {}
        held = [each for values in state.values() for each in values.values()]
        return (
            (id(net), id(learn.opt), id(learn.loss_func)),
            [(p.data_ptr(), p.requires_grad) for p in net.parameters()],
            [buffer.data_ptr() for buffer in net.buffers()],
            [each.data_ptr() for each in held if isinstance(each, Tensor)],
            [each.data_ptr() for each in self.feed.captured_tensors()],
            {name: each for name, each in self._fixed(learn).items() if name not in self.written},
        )

    def _fixed(self, learn: Learner) -> Fixed:
        inside = [each for each in learn.cbs if isinstance(each, (*INSIDE, *CLIPS))]
        return fixed(learn, [*inside, *self.feed.steps()])


def _cause(error: BaseException) -> str:
    """Return the message of the first error of a chain, which made the capture fail.

    This must be a function: a name for the exception in the frame that caught it would make a
    reference cycle, which keeps all that the capture allocated.
    """
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split())[:300]


def _settings(learn: Learner) -> list[dict]:
    """Return the optimizer's settings that a capture fixes."""
    groups = learn.opt.param_groups
    aside = ("params", "lr")
    return [{key: each for key, each in group.items() if key not in aside} for group in groups]


def _optimizer_state(learn: Learner) -> dict:
    """Return the state of torch's optimizer by parameter; {} for one of fastai's own."""
    return learn.opt.opt.state if hasattr(learn.opt, "opt") else {}


def _optimizer_stays(learn: Learner) -> str | None:
    """Return why the optimizer's step must stay outside the graph; None if it can be in it."""
    optimizer = getattr(learn.opt, "opt", None)
    if isinstance(optimizer, torch.optim.SGD | torch.optim.Adam):  # an AdamW is an Adam
        if not all(group["fused"] for group in optimizer.param_groups):
            return "it is not fused"
        if any(group.get("dampening") for group in optimizer.param_groups):
            return "its first step differs from the others"
    elif not isinstance(optimizer, OrthogonalMomentum):
        return f"{type(optimizer or learn.opt).__name__} is not known to be capturable"
    for callback in learn.cbs:
        also = isinstance(callback, ParamScheduler) and callback.scheds.keys() - {"lr"}
        if also or getattr(callback, "moves_momentum", False):
            return "its momentum changes from step to step"
    return None


def obstacle(learn: Learner) -> str | None:
    """Return what keeps a Learner's training step from being captured; None if nothing does."""
    for event in WITHIN:
        for callback, _ in learn._handlers(event):
            if not (event == "before_step" and type(callback) in CLIPS):
                return f"{type(callback).__name__} acts within the training step, at {event}"
    for callback, _ in learn._handlers("before_batch"):
        beside = isinstance(callback, ParamScheduler) or getattr(callback, "only_rates", False)
        if not isinstance(callback, INSIDE) and not beside:
            return f"{type(callback).__name__} may change the batch, at before_batch"
    if isinstance(learn.model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return "several devices compute the training step"
    return hooked(learn)
