"""The recipe: a frozen value, and the numbers its report gives."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from fastcv.recipe.metrics import METRICS

GRAPHS = ("auto", "on", "off")
UNNAMED = "experiment"  # the name of a recipe that was given none


class Partial(partial):
    """A class or function with some of its arguments, as `functools.partial`, compared by value."""

    def __eq__(self, other: object) -> bool:
        """Whether both call the same with the same arguments."""
        if not isinstance(other, partial):
            return NotImplemented
        ours = (self.func, self.args, self.keywords)
        return ours == (other.func, other.args, other.keywords)

    def __hash__(self) -> int:
        """Hash what is called; its arguments may be of any kind."""
        return hash(self.func)


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a recipe's training steps are computed.

    Each choice gives the same results but for rounding; with `compile` a net that drops features
    out drops others.

    Args:
        compile: let `torch.compile` fuse the net's forward and backward pass in training: half a
            minute or more before the first epoch, and again where layers are frozen or unfrozen.
            Validation and predictions are computed as ever, as every other size of batch would
            take a compilation of its own.
        graph: replay the training step from a captured CUDA graph: "on", "off", or "auto": on a
            CUDA device where the step can be captured. "on" makes it an error if it can't.
        channels_last: lay images and weights out with a pixel's channels side by side.
    """

    compile: bool = False
    graph: str = "auto"
    channels_last: bool = True

    def __post_init__(self):
        if self.graph not in GRAPHS:
            raise ValueError(f"step.graph must be one of {', '.join(GRAPHS)}, got {self.graph!r}")


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a report says of its experiment; None where it gives no number.

    Accuracies are fractions 0-1. `best_...` is the best over the epochs, else the final weights
    count; training numbers are those of the epoch that made them. A measured accuracy is within
    tolerance where it lies at most `tolerance` away; losses are within tolerance at a relative
    difference of `loss_tolerance`; parameters must be equal.

    Args:
        source: where it is said, as "003 table 1".
        tolerance: absolute, a fraction.
        loss_tolerance: relative to the reported loss, a fraction.
        to_beat: whether the recipe sets out to beat the number, in its own way, rather than to
            reproduce it.
    """

    source: str
    train_accuracy: float | None = None
    valid_accuracy: float | None = None
    best_valid_accuracy: float | None = None
    test_accuracy: float | None = None
    best_test_accuracy: float | None = None
    train_loss: float | None = None
    valid_loss: float | None = None
    test_loss: float | None = None
    parameters: int | None = None
    tolerance: float = 0.02
    loss_tolerance: float = 0.25
    to_beat: bool = False

    def numbers(self) -> dict[str, float]:
        """The numbers the report gives, by the name of their metric."""
        stated = {name: getattr(self, name) for name in METRICS}
        return {name: value for name, value in stated.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment: everything that decides its result.

    The slots are callables, so that a new kind of data, net or schedule is a new value:
    `data(device=None)` gives fastai DataLoaders, `model(dls, **keywords)` a fastai Learner, each
    stage of `schedule` takes that Learner and trains it, `optimizer(params, lr)` gives a fastai
    optimizer, `loss()` a loss function.

    Args:
        data: the images, their splits, their augmentation and their batches.
        model: the net, its weights and its parameter groups.
        schedule: the stages of the training, run in order; each starts with a fresh optimizer.
        optimizer: SGD, Adam, AdamW or Muon of `fastcv.learning`.
        loss: `CrossEntropy(...)` of `fastcv.learning`.
        callbacks: fastai callbacks for the whole training, as a stage's `callbacks` are for the
            stage: each is called without arguments and returns a fresh one (`CSVLogger`,
            `functools.partial(GradientAccumulation, n_acc=256)`).
        metrics: what to measure on the whole validation set after every epoch, beside loss and
            accuracy; each becomes a column valid_NAME that a stage can monitor. A function of
            logits (N, classes) and class numbers (N,), as fastai and torchmetrics have them; a
            function of y_true and y_pred or y_score, as scikit-learn has them; a class of fastai's
            or torchmetrics'; or a `functools.partial(f1_score, average="macro")` of any of these.
        precision: "fp32", "bf16", or "auto": bf16 where the processor computes it natively.
        step: how a training step is executed (compiled, as a CUDA graph, channels-last).
        seed: of the initial weights, the order of the images and their augmentation.
        reported: the report's numbers; None for your own experiments.
        name: the file's name, then "/" and the variant's; decides where runs are written.

    Raises:
        ValueError: a negative seed, a name that cannot name a folder, or a callback or metric that
            is an instance.
    """

    data: Callable
    model: Callable
    schedule: tuple[Callable, ...]
    optimizer: Callable
    loss: Callable
    callbacks: tuple[Callable, ...] = ()
    metrics: tuple[Callable, ...] = ()
    precision: str = "auto"
    step: Step = field(default_factory=Step)
    seed: int = 0
    reported: Reported | None = None
    name: str = UNNAMED

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")
        check_parts("callbacks", self.callbacks)
        check_parts("metrics", self.metrics)
        check_name(self.name)


def check_parts(name: str, parts: tuple[Callable, ...]) -> None:
    """Refuse callbacks or metrics that could not be built fresh for each training.

    Raises:
        ValueError: not a tuple, or one of them is not callable, or is an instance already.
    """
    if not isinstance(parts, tuple):
        raise ValueError(f"{name} must be a tuple, as {name}=(..., ), got {parts!r}")
    for part in parts:
        kind = type(part).__name__
        # By name: plain values import neither fastai nor torchmetrics.
        built = {(each.__module__.partition(".")[0], each.__name__) for each in type(part).__mro__}
        if built & {("fastai", "Callback"), ("fastai", "Metric"), ("torchmetrics", "Metric")}:
            raise ValueError(
                f"{name} must be classes or partials, since each stage starts with fresh ones, got "
                f"an instance of {kind}: give {kind} itself or functools.partial({kind}, ...)"
            )
        if not callable(part):
            raise ValueError(
                f"{name} must be classes, functions or values that can be called, got {part!r}"
            )


def check_name(name: str) -> None:
    """Refuse a recipe name that could not name a folder of runs.

    Raises:
        ValueError: it is not NAME or NAME/VARIANT, of letters, digits and the like.
    """
    if not re.fullmatch(r"[\w][\w .,+()-]*(/[\w][\w .,+()-]*)?", name) or len(name) > 200:
        raise ValueError(
            f"a recipe's name must be NAME or NAME/VARIANT, of letters, digits, spaces and _.+-, "
            f"got {name!r}"
        )


def named(recipe: Recipe, **variants: Recipe) -> dict[str, Recipe]:
    """Name each variant after the recipe that it varies, NAME/VARIANT.

    A recipe file binds `variants = named(recipe, one_cycle=replace(recipe, ...))`.
    """
    base = recipe.name.partition("/")[0]
    return {variant: replace(each, name=f"{base}/{variant}") for variant, each in variants.items()}
