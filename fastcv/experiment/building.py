"""From a recipe to a Learner: untrained, thinned for a smoke run, or with trained weights."""

from collections.abc import Callable
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.torch_core import default_device, set_seed
from fastcore.basics import noop

from fastcv import ranks
from fastcv.learning import cuda, losses
from fastcv.learning import weights as weight_files
from fastcv.learning.callbacks.history import Accuracy, History
from fastcv.learning.callbacks.mixing import Alternation, Mixing
from fastcv.learning.callbacks.precision import Precision, resolve
from fastcv.learning.callbacks.progress import Progress
from fastcv.learning.cpu import keep_freed_memory
from fastcv.learning.cuda_graph.stepper import Stepper
from fastcv.learning.frozen_features import FrozenFeatures
from fastcv.learning.learner import Learner
from fastcv.learning.metrics import average_precision, columns
from fastcv.learning.origins import Origin
from fastcv.learning.parallel import share
from fastcv.learning.stages.stage import fresh
from fastcv.predict.device import named_device
from fastcv.recipe.bounds import is_instance_of, shown
from fastcv.recipe.values import Recipe

SMOKE_NOTE = "SMOKE RUN: toy images, random weights, one epoch a stage; its numbers mean nothing"


def learner(recipe: Recipe, *, device: str | torch.device | None = None) -> Learner:
    """Build the recipe's Learner: seeded, on its device, in its precision, not yet trained.

    It is a fastai Learner (`show_batch`, `lr_find`, `fit_one_cycle`, `get_preds`, `predict`, ...)
    whose `history` also gathers training accuracy and images per second.

    Args:
        recipe: what to build.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes the best there is.

    Raises:
        ValueError: a mistake that a user can mend, such as images that the model's pretrained
            weights were not trained for.
    """
    refuse_other_images(recipe)
    return built(recipe, device=device)


def built(recipe: Recipe, *, device: str | torch.device | None = None) -> Learner:
    """Build a Learner as `learner` does, for whatever images the recipe has."""
    device = find_device(device)
    stepper = Stepper(recipe.step, device)
    if device.type == "cuda":
        cuda.prepare()
    set_seed(recipe.seed)
    loaders = _made("data", recipe.data(device=device), DataLoaders)
    kind = resolve(recipe.precision, device)
    precision = Precision(kind, channels_last=recipe.step.channels_last)
    history = History()
    metrics = recipe.metrics
    if getattr(loaders, "multi_label", False) and average_precision not in metrics:
        metrics = (average_precision, *metrics)
    callbacks = [history, Progress(), precision, Alternation()]
    if mixing := getattr(loaders, "mixing", ()):
        callbacks.append(Mixing(mixing, len(loaders.vocab)))
    learn = recipe.model(
        loaders,
        loss_func=_loss(recipe, loaders),
        opt_func=recipe.optimizer,
        metrics=[Accuracy(history), *columns(metrics, history)],
        cbs=callbacks + fresh(recipe.callbacks),
    )
    _made("model", learn, Learner)
    learn.remove_cb(ProgressCallback)  # Progress shows more, and reads nothing from the device
    learn.logger = noop  # nor does the Recorder print its row
    learn.model.to(device)
    if ranks.count() > 1:
        share(learn.model, sync_batch_norm=recipe.step.sync_batch_norm)
        history.keeps_predictions = history.keeps_predictions or bool(recipe.metrics)
    learn.stepper = stepper
    learn.frozen_features = FrozenFeatures(recipe.step.cache_features)
    if device.type == "cpu":
        keep_freed_memory()
    return learn


def _made(slot: str, made: Any, kind: type) -> Any:
    """Return what a slot of a recipe has made, if it is of a kind.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(made, kind):
        name = f"{kind.__module__.partition('.')[0]}'s {kind.__name__}"
        raise ValueError(f"{slot} must return {name} when it is called, it returned {shown(made)}")
    return made


def _loss(recipe: Recipe, loaders: DataLoaders) -> Callable:
    """Build the loss function for the data.

    Raises:
        ValueError: `recipe.loss` needs arguments, as a loss function itself does.
    """
    try:
        loss = losses.build(recipe.loss, loaders)
    except TypeError as error:
        raise ValueError(
            f"loss must build a loss function when it is called without arguments, got "
            f"{shown(recipe.loss)}: {error}"
        ) from error
    if not callable(loss) or is_instance_of(loss, ("fastai", "Callback")):
        raise ValueError(f"loss must build a loss function, {shown(recipe.loss)} returned {loss}")
    return loss


def origin_of(recipe: Recipe) -> Origin | None:
    """Return where the model's pretrained weights come from; None if it has none or says nothing.

    Raises:
        ValueError: there are no such weights.
    """
    origin = getattr(recipe.model, "origin", None)
    return origin() if callable(origin) else None


def refuse_other_images(recipe: Recipe) -> str | None:
    """Refuse images that the model's pretrained weights were not trained for.

    An experiment of a report normalizes as the report did: there it is only returned what differs.

    Raises:
        ValueError: the weights expect other statistics, or the net another size.
    """
    origin, data = origin_of(recipe), recipe.data
    if origin is None or not all(hasattr(data, name) for name in ("normalize", "size", "channels")):
        return None
    origin.check_size(data.size)
    if data.channels != 3:  # statistics of gray images are others
        return None
    mean, std = (0.0,), (1.0,)
    if data.normalize:
        mean, std = data.normalize.mean, data.normalize.std
    said = origin.contradiction(mean, std)
    if said and (recipe.reported is None or recipe.reported.to_beat):
        raise ValueError(said)
    return said


def find_device(name: str | torch.device | None) -> torch.device:
    """Return a device of this machine by its name; None: the best there is.

    Raises:
        ValueError: there is no such device.
    """
    number = ranks.local()
    if number is not None and str(name or default_device().type) == "cuda":
        return torch.device("cuda", ranks.gpu_of(number))
    if name is None:
        return default_device()
    if number is not None and str(name).partition(":")[0] != "cpu":
        raise ValueError(
            f"on several ranks, device must be cpu or cuda, as each takes its own GPU, got {name!r}"
        )
    return named_device(name)


def smoked(recipe: Recipe) -> Recipe:
    """Return a recipe that runs in seconds: toy images, random weights, one epoch a stage."""
    slots = (recipe.data, recipe.model, *recipe.schedule)
    data, model, *stages = (slot.smoke() if hasattr(slot, "smoke") else slot for slot in slots)
    return replace(recipe, data=data, model=model, schedule=tuple(stages))


def trained_learner(
    recipe: Recipe, weights: Path, *, smoke: bool, device: str | torch.device | None
) -> Learner:
    """Build the recipe's Learner with the weights of a finished run; no others are fetched.

    Of a smoke run, the net is the thinner one.

    Raises:
        ValueError: the weights are not those of this recipe's net.
    """
    if smoke:
        recipe = smoked(recipe)
    if is_dataclass(recipe.model) and hasattr(recipe.model, "weights"):
        recipe = replace(recipe, model=replace(recipe.model, weights=None))
    learn = built(recipe, device=device)
    weight_files.load(learn.model, weights)
    return learn
