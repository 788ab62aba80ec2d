"""What a schedule is made of: stages, each of which trains a Learner for some epochs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Protocol, Self

from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from fastai.learner import Learner

from fastcv.learning.callbacks.accumulation import Accumulation
from fastcv.learning.callbacks.anneal import Anneal, Curve
from fastcv.learning.callbacks.clipping import ClipElements
from fastcv.learning.callbacks.keep_best import KeepBest, StopEarly
from fastcv.learning.callbacks.monitor import check_monitor
from fastcv.learning.lr_finder import SUGGESTIONS, Rates, find_rates
from fastcv.learning.models import last_children
from fastcv.recipe.bounds import check_number, check_whole, shown, unless_none
from fastcv.recipe.values import check_parts

FINDER_STEPS = 100  # fastai's number


class StageLike(Protocol):
    """What a recipe's schedule takes: a value that trains a Learner when it is called.

    Anything with these three members is a stage. Make it a frozen dataclass of a module: runs can
    then be saved, compared and resumed. A stage whose learning rate follows a curve is shorter to
    write as a subclass of `Stage`, which also freezes, clips and stops early.

    Example, complete:

        from dataclasses import dataclass, replace
        import fastcv

        @dataclass(frozen=True, kw_only=True)
        class FlatCosine:
            epochs: int
            lr: float

            def __call__(self, learn):
                learn.create_opt()
                learn.fit_flat_cos(self.epochs, self.lr)

            def smoke(self):
                return replace(self, epochs=1)

        recipe = fastcv.get_recipe("digits")
        recipe = replace(recipe, schedule=(FlatCosine(epochs=2, lr=3e-3),))
        run = fastcv.train(recipe)
    """

    @property
    def epochs(self) -> int:
        """Passes over the training images; the printed lines and the report count them."""

    def __call__(self, learn: Learner) -> None:
        """Train `learn`, by any number of fits; a stopped run is resumed in the right one."""

    def smoke(self) -> Self:
        """Return the stage to try a recipe with: the same for one epoch."""


class Wrapper:
    """A stage around another `stage`: it trains and seeks rates within `around(learn)`."""

    stage: StageLike

    @property
    def epochs(self) -> int:
        """Passes over the training images."""
        return self.stage.epochs

    @property
    def lr(self) -> float | str | None:
        """The learning rate of the stage inside, or the suggestion that it takes."""
        return getattr(self.stage, "lr", None)

    def around(self, learn: Learner) -> AbstractContextManager[None]:
        """Return the context in which the stage inside trains."""
        raise NotImplementedError

    def __call__(self, learn: Learner) -> None:
        """Train `learn` for this stage."""
        with self.around(learn):
            self.stage(learn)

    def find_rates(self, learn: Learner) -> Rates:
        """Run the LR finder as the stage would."""
        with self.around(learn):
            return rates_for(self.stage, learn)


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """End the stage when `monitor` has not improved for `patience` epochs; keep the best weights.

    Args:
        patience: epochs without improvement, at least 1; None never stops, and only keeps the best
            weights.
        monitor: a column of metrics.csv. One that ends in loss, error, error_rate, deviance or
            perplexity should fall, any other rise.
    """

    patience: int | None = None
    monitor: str = "valid_loss"

    def __post_init__(self):
        check_monitor(self.monitor)
        unless_none(check_whole, "patience", self.patience, least=1)


@dataclass(frozen=True, kw_only=True)
class PreviousLR:
    """As a stage's `lr`: the learning rate of the stage before it, divided by a number.

    What the LR finder suggests for a new head is a base for the whole net too, whose own sweep says
    little: the loss of a net that is trained already hardly falls.

    Args:
        divided_by: above 0; fastai's `fine_tune` takes 2.

    Example:
        schedule = (
            OneCycle(epochs=1, lr="valley", frozen=True),
            OneCycle(epochs=5, lr=PreviousLR(divided_by=2), lr_mult=100),
        )
    """

    divided_by: float

    def __post_init__(self):
        check_number("divided_by", self.divided_by, above=0)

    def __str__(self):
        return f"the previous stage's / {self.divided_by:g}"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Base class of stages: a fresh optimizer, some layers frozen, and a fit with fresh callbacks.

    A subclass overrides `curve` to move the learning rate; here it stays where it is.

    Args:
        epochs: passes over the training images.
        lr: learning rate of the last parameter group. A name (valley, steep, slide, minimum,
            largest) takes what the LR finder suggests when the stage starts; "steep" and "slide"
            may lie where the loss has exploded. `PreviousLR` takes a part of the previous
            stage's rate.
        lr_mult: the first group trains at lr / lr_mult, and those between are spaced evenly, in
            ratio (fastai's `slice(lr / lr_mult, lr)`).
        frozen: True trains the head alone, a number n the last n children of the net, False all.
        clip: largest norm of the gradient; None does not limit it.
        clip_value: largest magnitude of each element of the gradient; None does not limit it.
        accumulate: batches whose gradients make one step of the optimizer, along the mean over
            their images; an epoch's last step takes what is left. Batch norm still sees each batch
            alone, and the finder trains as the stage does, on so many times its batches. More than
            1 excludes a CUDA graph.
        early_stop: when to end early; the best weights are then kept.
        callbacks: fastai callbacks for this stage. Each is called without arguments and returns
            a fresh one: a class (`CSVLogger`), a `functools.partial(SaveModelCallback,
            monitor="accuracy")`, or a value of `fastcv.learning` (`FreezeFirst`, `TTA`). A resumed
            stage restores those that have the methods `state()` and `restore(state)`, and fastai's
            trackers.

    Raises:
        ValueError: a number is outside its bounds, `lr` is none of these, or a callback is an
            instance; in training, the first stage's `lr` is a PreviousLR.
    """

    epochs: int
    lr: float | str | PreviousLR
    lr_mult: float = 1.0
    frozen: bool | int = False
    clip: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    early_stop: EarlyStop | None = None
    callbacks: tuple[Callable[[], Callback], ...] = ()

    def __post_init__(self):
        check_whole("epochs", self.epochs, least=1)
        names = [suggest.__name__ for suggest in SUGGESTIONS]
        if not isinstance(self.lr, Real | PreviousLR) and self.lr not in names:
            raise ValueError(
                f"lr must be a number or one of {', '.join(names)}, got {shown(self.lr)}: for "
                "rates that grow towards the head, set lr to the head's and lr_mult to the ratio"
            )
        if isinstance(self.lr, Real):
            check_number("lr", self.lr, above=0)
        check_number("lr_mult", self.lr_mult, least=1)
        if not isinstance(self.frozen, bool):
            check_whole("frozen", self.frozen, least=1)
        unless_none(check_number, "clip", self.clip, above=0)
        unless_none(check_number, "clip_value", self.clip_value, above=0)
        if not isinstance(self.early_stop, EarlyStop | None):
            raise ValueError(
                f"early_stop must be an EarlyStop(...) or None, got {shown(self.early_stop)}"
            )
        check_whole("accumulate", self.accumulate, least=1)
        check_parts("callbacks", self.callbacks)

    def __call__(self, learn: Learner) -> None:
        """Train `learn` for this stage."""
        callbacks = [*self._own_callbacks(), *fresh(self.callbacks)]
        with self._prepared(learn):
            learn.fit(self.epochs, lr=self._rates(learn), cbs=callbacks)

    def find_rates(self, learn: Learner) -> Rates:
        """Run the LR finder as the stage would, whether or not it takes its rate from it."""
        with self._prepared(learn):
            return self._found(learn)

    @contextmanager
    def _prepared(self, learn: Learner) -> Iterator[None]:
        """Set up what the finder trains with as well: optimizer, freezing, accumulation."""
        learn.create_opt()
        freeze(learn, self.frozen)
        with learn.added_cbs([Accumulation(self.accumulate)] if self.accumulate > 1 else []):
            yield

    def _found(self, learn: Learner) -> Rates:
        """Make as many steps with accumulated gradients as without, from more batches."""
        return find_rates(learn, lr_mult=self.lr_mult, num_it=FINDER_STEPS * self.accumulate)

    def _rates(self, learn: Learner) -> slice:
        """Return the rates as fastai's `fit` takes them; one that is no number is printed."""
        history, lines = (getattr(learn, name, None) for name in ("history", "epoch_lines"))
        lr = self.lr if isinstance(self.lr, Real) else self._derived(learn, history, lines)
        if history is not None:
            history.rates.append((history.stage, lr))
        if lines is not None and not isinstance(self.lr, Real):
            spread = f"{lr / self.lr_mult:.2g} to " if self.lr_mult > 1 else ""
            lines.line(f"learning rate {spread}{lr:.2g} ({self.lr})")
        return slice(lr / self.lr_mult, lr)

    def _derived(self, learn: Learner, history: Any, lines: Any) -> float:
        """Return a part of the previous stage's rate, or what the LR finder suggests by name.

        A resumed run reads what the finder found before it was stopped. A Learner that is not
        fastcv's has no history and no lines: None.
        """
        if isinstance(self.lr, PreviousLR):
            last = history.rates[-1:] if history is not None else []
            if not last or last[0][0] < history.stage - 1:
                raise ValueError(
                    "a stage whose lr is a PreviousLR must follow a Stage on the same Learner of "
                    "fastcv, got none right before it: give it a number, or the name of a "
                    "suggestion"
                )
            return last[0][1] / self.lr.divided_by
        if history is not None and history.resuming:
            found = next(rates for stage, rates in history.found if stage == history.stage)
        else:
            with nullcontext() if lines is None else lines.doing("finding a learning rate"):
                found = self._found(learn)
            if history is not None:
                history.found.append((history.stage, found))
        return found.suggestions[self.lr][0]

    def curve(self) -> Curve | None:
        """Return how learning rate and momentum move over the stage; None leaves both alone."""
        return None

    def smoke(self) -> Self:
        """Return the same stage for one epoch."""
        return replace(self, epochs=1)

    def _own_callbacks(self) -> list[Callback]:
        """Return what the stage's settings stand for."""
        callbacks: list[Callback] = []
        if (curve := self.curve()) is not None:
            callbacks.append(Anneal(curve))
        if self.clip is not None:
            callbacks.append(GradientClip(max_norm=self.clip))
        if self.clip_value is not None:
            callbacks.append(ClipElements(self.clip_value))
        if self.early_stop is not None:
            keep = KeepBest(self.early_stop.monitor)
            callbacks += [keep, StopEarly(keep, self.early_stop.patience)]
        return callbacks


def fresh(callbacks: Iterable[Callable[[], Callback]]) -> list[Callback]:
    """Build a callback of each: a class, a `functools.partial`, a value that can be called.

    Raises:
        ValueError: one needs arguments, or returns something else than a fastai callback.
    """
    built = []
    for make in callbacks:
        try:
            made = make()
        except TypeError as error:
            raise ValueError(
                f"each of callbacks must be callable without arguments, got {make!r} ({error}): "
                "bind its arguments with functools.partial"
            ) from error
        if not isinstance(made, Callback):
            raise ValueError(
                f"each of callbacks must return a fastai Callback when it is called, got a "
                f"{type(made).__name__} from {make!r}"
            )
        built.append(made)
    return built


def freeze(learn: Learner, frozen: bool | int) -> None:
    """Train the head alone (True), the last n children (n), or everything (False)."""
    if frozen is False:
        learn.unfreeze()
    elif frozen is not True:
        last_children(learn, frozen)
    elif len(learn.opt.param_groups) > 1:
        learn.freeze()
    else:
        raise ValueError(
            "a frozen stage must have a net with more than one parameter group, got one group: "
            "use a Pretrained model, or frozen=False"
        )


def rates_for(stage: StageLike | None, learn: Learner) -> Rates:
    """Run the LR finder as a stage would; for a stage that cannot say how, on the whole net."""
    return stage.find_rates(learn) if hasattr(stage, "find_rates") else find_rates(learn)
