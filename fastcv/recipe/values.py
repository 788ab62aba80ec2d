"""The recipe, a frozen value, and the numbers of the report that it reproduces."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from fastcv.recipe.bounds import (
    check_each,
    check_flags,
    check_number,
    check_takes,
    check_whole,
    is_instance_of,
    shown,
)
from fastcv.recipe.metrics import METRICS

GRAPHS = ("auto", "try", "on", "off")
PRECISIONS = ("auto", "fp32", "bf16")
# With what the slots of a recipe are called: in order, and by name.
CALLS = {
    "data": ((), ("device",)),
    "model": (("dls",), ("loss_func", "opt_func", "metrics", "cbs")),
    "optimizer": (("params",), ("lr",)),
    "loss": ((), ()),
}
UNNAMED = "experiment"  # the name of a recipe without one


class Partial(partial):
    """A `functools.partial` that compares by value."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, partial):
            return NotImplemented
        ours = (self.func, self.args, self.keywords)
        return ours == (other.func, other.args, other.keywords)

    def __hash__(self) -> int:
        """Hash what is called; its arguments may not be hashable."""
        return hash(self.func)


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a recipe's training steps are executed.

    All settings give the same results, up to rounding; with `compile`, dropout masks differ.

    Args:
        compile: let `torch.compile` fuse the net's forward and backward pass in training. It takes
            half a minute or more before the first epoch, and again when layers are frozen or
            unfrozen. Validation and predictions are not compiled, since each batch size would need
            its own compilation.
        graph: replay the training step from a captured CUDA graph: "try" does so if the step can
            be captured, "on" makes it an error if it cannot, "off" does not, and "auto" leaves it
            to fastcv: off, until graphs are proven on a GPU.
        channels_last: store the channels of a pixel of images and weights side by side.
        cache_features: where a stage trains the head alone, on images that are not augmented,
            compute the features of each image once instead of in every epoch.
        sync_batch_norm: where several ranks train, let batch norm normalize by the whole batch, as
            one process does; if False, each rank normalizes by its own images.
    """

    compile: bool = False
    graph: str = "auto"
    channels_last: bool = True
    cache_features: bool = True
    sync_batch_norm: bool = False

    def __post_init__(self):
        check_flags(self, "compile", "channels_last", "cache_features", "sync_batch_norm")
        if self.graph not in GRAPHS:
            raise ValueError(
                f"step.graph must be one of {', '.join(GRAPHS)}, got {shown(self.graph)}"
            )


@dataclass(frozen=True, kw_only=True)
class Reported:
    """The numbers that a report states for its experiment; None where it states none.

    Accuracies are fractions 0-1. `best_...` is the best over the epochs, the others are those of
    the final weights; training numbers are measured while the epoch trains. A measured accuracy is
    within tolerance if it is at most `tolerance` away, a loss if it differs by at most
    `loss_tolerance` of the reported one; parameters must be equal.

    Args:
        source: the place in the report, such as "003 table 1".
        train_accuracy: of the training images, a fraction.
        valid_accuracy: of the validation images, after the last epoch.
        best_valid_accuracy: of the validation images, after the best epoch.
        test_accuracy: of the test images, by the final weights.
        best_test_accuracy: of the test images, after the best epoch.
        train_loss: mean cross-entropy of a training image.
        valid_loss: of a validation image.
        test_loss: of a test image.
        parameters: their number, of the whole net.
        tolerance: absolute, a fraction.
        loss_tolerance: relative to the reported loss, a fraction.
        to_beat: whether the recipe means to beat the number, by another method, instead of
            reproducing it.
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

    def __post_init__(self):
        if not isinstance(self.source, str):
            raise ValueError(f"source must be text, as '003, table 1', got {shown(self.source)}")
        for name, number in self.numbers().items():
            if name == "parameters":
                check_whole(name, number)
            else:
                most = {"most": 1} if name.endswith("accuracy") else {}
                check_number(name, number, least=0, **most)
        check_number("tolerance", self.tolerance, least=0)
        check_number("loss_tolerance", self.loss_tolerance, least=0)
        check_flags(self, "to_beat")

    def numbers(self) -> dict[str, float]:
        """Return the numbers that the report states, by the name of their metric."""
        stated = {name: getattr(self, name) for name in METRICS}
        return {name: value for name, value in stated.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment: everything that decides its result.

    The slots are callables, so that a new kind of data, net or schedule is a new value:
    `data(device=None)` returns fastai DataLoaders, `model(dls, **keywords)` a fastai Learner, each
    stage of `schedule` takes that Learner and trains it, `optimizer(params, lr)` returns a fastai
    optimizer, and `loss()` a loss function.

    Args:
        data: the images, their splits, their augmentation and their batches.
        model: the net, its weights and its parameter groups.
        schedule: the stages of the training, run in order; each starts with a fresh optimizer.
        optimizer: SGD, Adam, AdamW or Muon of `fastcv.learning`.
        loss: `CrossEntropy(...)` of `fastcv.learning`.
        callbacks: fastai callbacks for the whole training, as a stage's `callbacks` are for the
            stage: each is called without arguments and returns a fresh one (`CSVLogger`,
            `functools.partial(SaveModelCallback, monitor="accuracy")`).
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
        ValueError: a part that cannot be called, a schedule that is no tuple, an unknown precision,
            a negative or too large seed, a name that cannot name a folder, or a callback or metric
            that is an instance.
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
        check_parts("callbacks", self.callbacks)
        check_parts("metrics", self.metrics)
        for slot, (taken, by_name) in CALLS.items():
            check_built_later(slot, getattr(self, slot))
            check_takes(slot, getattr(self, slot), *taken, **dict.fromkeys(by_name))
        check_each(
            "schedule", self.schedule, "fastcv.learning", example="OneCycle(...)", argument="learn"
        )
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {shown(self.precision)}"
            )
        for slot, kind in (("step", Step), ("reported", Reported)):
            value = getattr(self, slot)
            if not isinstance(value, kind) and (slot == "step" or value is not None):
                raise ValueError(f"{slot} must be a {kind.__name__}(...), got {shown(value)}")
        check_whole("seed", self.seed)
        check_name(self.name)


def check_built_later(slot: str, value: Callable) -> None:
    """Raise a ValueError if a part of a recipe is a module or an optimizer that is built already.

    A recipe says how they are built: each run starts with fresh ones.
    """
    if is_instance_of(value, ("torch", "Module"), ("torch", "Optimizer"), ("fastai", "Optimizer")):
        kind = type(value).__name__
        instead = {
            "loss": f"give CrossEntropy(...) of fastcv.learning, or the class {kind} itself",
            "model": "give FromScratch(net=...) or Pretrained(...) of fastcv.learning",
            "optimizer": "give SGD(...), Adam(...), AdamW(...) or Muon(...) of fastcv.learning",
        }.get(slot, "give what builds it")
        raise ValueError(f"{slot} must build a fresh one for each run, got a {kind}: {instead}")


def check_parts(name: str, parts: tuple[Callable, ...]) -> None:
    """Raise a ValueError if callbacks or metrics could not be built fresh for each training."""
    if not isinstance(parts, tuple):
        raise ValueError(f"{name} must be a tuple, as {name}=(..., ), got {parts!r}")
    for part in parts:
        kind = type(part).__name__
        built = (("fastai", "Callback"), ("fastai", "Metric"), ("torchmetrics", "Metric"))
        if is_instance_of(part, *built):
            raise ValueError(
                f"{name} must be classes or partials, since each stage starts with fresh ones, got "
                f"an instance of {kind}: give {kind} itself or functools.partial({kind}, ...)"
            )
        if not callable(part):
            raise ValueError(
                f"{name} must be classes, functions or values that can be called, got {part!r}"
            )


def check_name(name: str) -> None:
    """Raise a ValueError if a recipe's name cannot be the name of a folder of runs."""
    part = r"\w[\w .,+()-]*"
    if not isinstance(name, str) or len(name) > 200 or not re.fullmatch(f"{part}(/{part})?", name):
        raise ValueError(
            "a recipe's name must be NAME or NAME/VARIANT, of letters, digits, spaces and _.,+()-, "
            f"got {shown(name)}"
        )


def named(recipe: Recipe, **variants: Recipe) -> dict[str, Recipe]:
    """Name each variant after its recipe, as NAME/VARIANT.

    A recipe file binds `variants = named(recipe, one_cycle=replace(recipe, ...))`.
    """
    base = recipe.name.partition("/")[0]
    return {variant: replace(each, name=f"{base}/{variant}") for variant, each in variants.items()}
