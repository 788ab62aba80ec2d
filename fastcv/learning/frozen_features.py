"""The features of a frozen body, computed once instead of in every epoch.

Where the head alone trains, on images that are not augmented, its input for an image is the same in
every epoch. `FrozenFeatures` then computes it once, before the first epoch, and the steps train the
head on the stored features: the same images in the same order, the same random numbers, the same
events. Where an epoch draws only some of the images, those that the fit's epochs will draw are
computed. What a net computes between its input and its head need not be known: the head is found by
what trains, and its input is noted while the head lets it pass. A dropout right before the head, as
timm's nets have, is skipped then, and drawn in every step.

Whether an image's features can change is decided cautiously, in three ways:

- before a fit, by what is known: frozen parameters, batch norm, augmentation, callbacks, hooks;
- while the features are computed, by what happens: the net must return its head's output itself,
  draw no random numbers, and stay as it is;
- before each epoch, by whether everything is still as it was then, the body's weights included.

Where it does not hold, or no longer, steps are ordinary ones. Predictions, `validate` and test-time
augmentation always use the whole net.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from fastai.callback.core import Callback, TrainEvalCallback, _inner_loop
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import TerminateOnNaNCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.learner import Learner, Recorder
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from fastcv import ranks
from fastcv.data.loader import AugmentBatch, ImageDL
from fastcv.learning.callbacks.precision import Precision
from fastcv.learning.cuda_graph.program import as_in_training
from fastcv.learning.learner import plain
from fastcv.learning.memory import free_bytes
from fastcv.learning.parallel import whole_dropout
from fastcv.learning.snapshot import random_states, snapshot

_DROPOUT = signature(F.dropout)
SHARE = 4  # features may fill one part in so many of the free memory
# fastai's callbacks that act on batches, but look at neither images nor layers.
BLIND = (
    *(TrainEvalCallback, Recorder, ParamScheduler),
    *(GradientAccumulation, GradientClip, TerminateOnNaNCallback),
)


class Changing(Exception):
    """The features cannot be stored; says why."""


@dataclass(eq=False)
class Stored:
    """The features of one loader's images, and what they were computed with.

    Attributes:
        loader: of the images.
        head: takes the features.
        dropout: fraction of the features dropped before the head in training.
        features: (K, ...), on the net's device.
        rows: (N,), int64, the row in `features` of each image, by its place in the loader; -1 for
            one without.
        conditions: what they depend on besides the body's weights, from `_conditions`.
        digest: of the body's weights and buffers.
        versions: of the same, when they last had that digest; None: to be compared.
    """

    loader: ImageDL
    head: nn.Module
    dropout: float
    features: Tensor
    rows: Tensor
    conditions: tuple
    digest: bytes
    versions: list | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through an epoch as the loader does, but yield features in place of images."""
        device = self.features.device
        for places in self.loader.places():
            labels = self.loader.decoded.labels[places]
            yield self.features.index_select(0, self.rows[places].to(device)), labels.to(device)

    def lacking(self, places: Tensor) -> Tensor:
        """Return those of some places whose features are not stored, in as many as fill a batch."""
        lacks = self.rows[places] < 0
        if not lacks.any():
            return places[:0]
        filling = max(self.loader.bs - int(lacks.sum()), 0)
        return torch.cat([places[lacks], places[~lacks][:filling]])

    def add(self, other: "Stored") -> None:
        """Take over the features of more images."""
        new = other.rows >= 0
        self.rows[new] = other.rows[new] + len(self.features)
        self.features = torch.cat([self.features, other.features])

    def logits(self, features: Tensor) -> Tensor:
        """Return what the net would return for the images of a batch of features."""
        return self.head(whole_dropout(features, self.dropout) if self.dropout else features)

    def hold(self, learn: Learner) -> bool:
        """Return whether the net as it is now would compute the same features."""
        if not _same(self.conditions, _conditions(learn, self.loader, self.head)):
            return False
        body = _tensors(_body(learn.model, self.head))
        versions = _versions(body)
        if versions != self.versions:
            # Also after weights were put back, as the LR finder does.
            if _digest(body) != self.digest:
                return False
            self.versions = versions
        return True


class FrozenFeatures:
    """Stores the features of a Learner's training and validation images, where they are constant.

    Args:
        on: whether to store any.

    Attributes:
        images: how many features were computed and used, in all fits.
        seconds: the time that this took.
        notes: each reason why a head that trained alone did not train on stored features.
    """

    def __init__(self, on: bool = True):
        self.on = on
        self.images, self.seconds = 0, 0.0
        self.notes: list[str] = []
        self._stored: dict[bool, Stored] = {}  # of training and validation

    def begin(self, learn: Learner) -> bool:
        """Compute the features for the fit that begins, without a trace.

        Returns:
            whether its steps will train on stored features.
        """
        if trained_alone(learn.model) is None:
            self.end()
            return False
        # In a single epoch every image is seen once.
        if not self._stored and learn.n_epoch - learn.epoch < 2:
            return False
        if not self.on:
            self._note("it is switched off")
            return False
        start, before = time.perf_counter(), self.images
        try:
            if reason := obstacle(learn):
                raise Changing(reason)
            with snapshot(learn):
                as_in_training(learn)
                self._store(learn, learn.dls.train, learn.n_epoch - learn.epoch)
                if not learn.borrowed:  # the LR finder does not validate
                    learn.model.eval()
                    with torch.no_grad():
                        self._store(learn, learn.dls.valid, 1)
        except Changing as change:
            self.end()
            self.images = before
            reason = str(change)
            if reason not in self.notes:
                _say(learn, f"features of the frozen body: computed in every epoch, as {reason}")
            self._note(reason)
            return False
        if count := self.images - before:
            seconds = time.perf_counter() - start
            self.seconds += seconds
            _say(
                learn,
                f"features of the frozen body: computed once, {count:,} images, {seconds:.1f} s",
            )
        return True

    def stored(self, learn: Learner) -> Stored | None:
        """Return the features of the images of `learn.dl`, if an epoch of a fit can use them."""
        found = self._stored.get(learn.training)
        if found is None or found.loader is not learn.dl:
            return None
        if not learn.fitting or "gather_preds" in vars(learn):
            return None
        if trained_alone(learn.model) is found.head and not obstacle(learn) and found.hold(learn):
            try:
                # Usually none are lacking, but a resumed epoch draws other images than the next.
                self._complete(learn, found, 1)
                return found
            except Changing:
                self.end()
                return None
        if learn.training:  # what trains now may change the body
            self.end()
        return None

    def end(self) -> None:
        """Release the features."""
        self._stored.clear()

    def used(self) -> dict[str, Any]:
        """Return what was stored, for the summary of a run."""
        return {
            "features": self.images > 0,
            "features_notes": list(self.notes),
            "features_seconds": self.seconds,
        }

    def _note(self, reason: str) -> None:
        if reason not in self.notes:
            self.notes.append(reason)

    def _store(self, learn: Learner, loader: Any, epochs: int) -> None:
        training = learn.model.training
        if not training and not (_gathers(loader) and len(loader)):
            return
        head = trained_alone(learn.model)
        if head is None:
            raise Changing("other layers train too")
        before = self._stored.pop(training, None)
        holds = before is not None and before.loader is loader and before.hold(learn)
        if any(ranks.any_of(not holds)):
            before = computed(learn, loader, head, loader.coming(epochs))
            self.images += len(before.features)
        else:
            self._complete(learn, before, epochs)
        self._stored[training] = before

    def _complete(self, learn: Learner, stored: Stored, epochs: int) -> None:
        """Compute the features of images that the next epochs show, and that are not stored.

        Raises:
            Changing: what `computed` raises.
        """
        if len(lacking := stored.lacking(stored.loader.coming(epochs))):
            stored.add(computed(learn, stored.loader, stored.head, lacking))
            self.images += len(lacking)


def trained_alone(net: nn.Module) -> nn.Module | None:
    """Return the outermost module inside `net` that has all parameters that train and no others.

    None: the whole net trains, or layers do that have no such module of their own, or share
    parameters with a frozen layer.
    """
    trained = {each for each in net.parameters() if each.requires_grad}
    for head in net.modules():
        if head is not net and trained and set(head.parameters()) == trained:
            return head if trained.isdisjoint(_parameters(_body(net, head))) else None
    return None


def obstacle(learn: Learner) -> str | None:
    """Return what may change the features from epoch to epoch, or needs the images in a step."""
    net, step = learn.model, getattr(learn.stepper, "step", None)
    loader = learn.dls.train
    if step is not None and (step.compile or step.graph == "on"):
        return "step.compile or step.graph='on' executes the whole net's steps"
    if not _gathers(loader):
        return "training batches are not decoded images that only fastcv transforms"
    if any(isinstance(each, AugmentBatch) for each in loader.after_batch.fs):
        return "training images are augmented"
    if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return "several devices compute the training step"
    for module in net.modules():
        if _is_hooked(module):
            return f"{type(module).__name__} has a hook, or is compiled"
    for callback in learn.cbs:
        if event := _looks_at(learn, callback):
            return f"{type(callback).__name__} may look at the images or layers, at {event}"
    for metric in learn.metrics:
        if _origin(metric) not in ("fastai", "fastcv"):
            return f"{type(metric).__name__} may look at the images or layers"
    return None


def computed(learn: Learner, loader: ImageDL, head: nn.Module, chosen: Tensor) -> Stored:
    """Compute the features of a loader's images at some places, in the mode that the net is in.

    Batches are as large as those that they stand for, since rounding may depend on the size; ranks
    share them.

    Raises:
        Changing: the body's batch norm follows the batches, the net does not return its head's
            output, draws random numbers or changes, or the features need too much memory.
    """
    net, device = learn.model, torch.device(learn.dls.device)
    precision = vars(learn).get("precision")
    modules = _body(net, head)
    for module in modules:
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise Changing("its batch norm follows the batches")
    body = _tensors(modules)
    count, size = len(chosen), loader.bs
    chosen = chosen.to(loader.decoded.rows.device)
    features: Tensor | None = None
    before = random_states(device), _versions(body)
    loader.before_iter()
    loader.part = None  # no rank's part of a batch
    spans = [(first, min(first + size, count)) for first in range(0, count, size)]
    if net.training:
        spans[-1] = (max(count - size, 0), count)
    lines = vars(learn).get("epoch_lines")
    own = spans[ranks.rank() :: ranks.count()]
    if len(spans) < ranks.count():
        own = spans
    for start, last in own if lines is None else lines.over(own, "features"):
        x = plain(loader.batch(chosen[start:last])[0])
        if precision is not None:
            x = precision.laid_out(x)
        with nullcontext() if precision is None else precision.scope(x.device):
            out, dropout = _input_of(head, net, x)
        if (random_states(device), _versions(body)) != before:
            raise Changing("it draws random numbers, as dropout does, or changes")
        if features is None:
            _check_memory(out, count)
            features = out.new_empty((count, *out.shape[1:]))
        features[start:last] = out
    if len(own) < len(spans):
        for number, (start, last) in enumerate(spans):
            ranks.copy_from(number % ranks.count(), [features[start:last]])
    conditions = _conditions(learn, loader, head)
    rows = torch.full((len(loader.decoded.rows),), -1, device=chosen.device)
    rows[chosen] = torch.arange(count, device=chosen.device)
    return Stored(loader, head, dropout, features, rows, conditions, _digest(body))


def _input_of(head: nn.Module, net: nn.Module, x: Tensor) -> tuple[Tensor, float]:
    """Return the head's input for a batch of images, and the dropout right before the head.

    Raises:
        Changing: the net does not return what its head returns, on one input.
    """
    with _passing(head) as passed, _Undropped() as skipped:
        out = net(x)
    inputs, keywords, version = passed[0] if len(passed) == 1 else ((), {}, 0)
    same = len(inputs) == 1 and not keywords and out is inputs[0] and type(out) is Tensor
    if not same or out._version != version or len(out) != len(x) or out.requires_grad:
        raise Changing("the net does not return the output of its head, on one input")
    if not skipped.dropped:
        return out, 0.0
    ((dropped, fraction), *others) = skipped.dropped
    if others or dropped is not out:
        raise Changing("it draws random numbers, as dropout does, or changes")
    return out, fraction


class _Undropped(TorchFunctionMode):
    """Leaves dropout out within the block.

    Attributes:
        dropped: what each dropout returned, and its fraction.
    """

    def __init__(self):
        super().__init__()
        self.dropped: list[tuple[Tensor, float]] = []

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.dropout:
            return func(*args, **kwargs)
        bound = _DROPOUT.bind(*args, **kwargs)
        bound.apply_defaults()
        x, fraction = bound.arguments["input"], bound.arguments["p"]
        if not bound.arguments["training"] or not fraction:
            return func(*args, **kwargs)
        out = x.view_as(x)  # another object, so that it is known where it goes
        self.dropped.append((out, fraction))
        return out


def _check_memory(out: Tensor, count: int) -> None:
    needed = count * out[0].numel() * out.element_size()
    free = free_memory(out.device)
    if out.device.type == "cpu":  # ranks of one machine share it
        needed *= ranks.count()
    if any(ranks.any_of(needed > free / SHARE)):
        raise Changing(
            f"those of {count:,} images need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
            f"free, of which they may take a quarter"
        )


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device; on systems that do not say, half of all."""
    if (free := free_bytes(device)) is not None:
        return free
    if not hasattr(os, "sysconf"):  # Windows
        return 4 * 2**30
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@contextmanager
def _passing(head: nn.Module) -> Iterator[list[tuple]]:
    """Let a module return its input within the block; yield the list that notes its calls."""
    passed: list[tuple] = []

    def forward(*inputs: Any, **keywords: Any) -> Any:
        version = inputs[0]._version if inputs and isinstance(inputs[0], Tensor) else 0
        passed.append((inputs, keywords, version))
        return inputs[0] if inputs else None

    head.forward = forward
    try:
        yield passed
    finally:
        del head.forward


def _gathers(loader: Any) -> bool:
    return isinstance(loader, ImageDL) and loader.makes_plain_batches


def _body(net: nn.Module, head: nn.Module) -> list[nn.Module]:
    """Return the modules outside of the head."""
    inside = set(head.modules())
    return [module for module in net.modules() if module not in inside]


def _parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [each for module in modules for each in module.parameters(recurse=False)]


def _tensors(modules: list[nn.Module]) -> list[Tensor]:
    """Return the modules' own parameters and buffers."""
    buffers = [each for module in modules for each in module.buffers(recurse=False)]
    return [*_parameters(modules), *buffers]


def _versions(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """Return what differs after any of the tensors was written to or moved."""
    return [(each.data_ptr(), each._version) for each in tensors]


def _digest(tensors: list[Tensor]) -> bytes:
    digest = hashlib.blake2b()
    for each in tensors:
        flat = each.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.digest()


def _conditions(learn: Learner, loader: ImageDL, head: nn.Module) -> tuple:
    """Return what features depend on besides weights: objects, and values of them."""
    steps = [
        each
        for each in loader.after_batch.fs
        if each.split_idx in (None, loader.after_batch.split_idx)
    ]
    precision = vars(learn).get("precision")
    objects = [learn.model, loader.decoded, precision, *steps]
    values = [(getattr(each, "size", None), getattr(each, "normalize", None)) for each in steps]
    values.append((getattr(precision, "precision", None), getattr(precision, "layout", None)))
    modes = [module.training for module in _body(learn.model, head)]
    return objects, values, modes


def _same(ours: tuple, theirs: tuple) -> bool:
    return list(map(id, ours[0])) == list(map(id, theirs[0])) and ours[1:] == theirs[1:]


def _is_hooked(module: nn.Module) -> bool:
    hooks: list[Any] = [
        *(module._forward_hooks, module._forward_pre_hooks),
        *(module._backward_hooks, module._backward_pre_hooks),
    ]
    return any(hooks) or module._compiled_call_impl is not None or "forward" in vars(module)


def _looks_at(learn: Learner, callback: Callback) -> str | None:
    """Return the event of a batch at which a callback may look at, or change, images or layers."""
    if getattr(callback, "only_rates", False):
        return None
    origin = _origin(callback)
    if isinstance(callback, Precision) or (origin == "fastai" and isinstance(callback, BLIND)):
        return None
    for event in _inner_loop:
        acts = any(each is callback for each, _ in learn._handlers(event))
        if acts and (event == "before_batch" or origin != "fastcv"):
            return event
    return None


def _origin(thing: Callable | object) -> str:
    return type(thing).__module__.partition(".")[0]


def _say(learn: Learner, text: str) -> None:
    if lines := vars(learn).get("epoch_lines"):
        lines.line(text)
