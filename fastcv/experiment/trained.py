"""From a recipe to the description of what it trained: model.json."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from fastcv.experiment.directory import Run
from fastcv.predict.predictor import Predictor
from fastcv.predict.trained import NAME, TrainedModel
from fastcv.recipe import Recipe


def describe(
    recipe: Recipe,
    classes: Sequence[str],
    *,
    precision: str,
    thresholds: tuple[float, ...] | None = None,
) -> TrainedModel:
    """Describe the net that a recipe trains, for model.json.

    Args:
        recipe: its `data` says how images become the net's input, its `model` what builds the net.
        classes: names, in the order of the logits.
        precision: "fp32" or "bf16", in which the net was validated.
        thresholds: of several labels an image, from which probability each holds.

    Raises:
        ValueError: the recipe's `data` or `model` does not describe itself so.
    """
    data, model = recipe.data, recipe.model
    missing = [
        f"{slot}.{name}"
        for slot, value, names in (
            ("data", data, ("size", "resize", "channels", "normalize")),
            ("model", model, ("parts",)),
        )
        for name in names
        if not hasattr(value, name)
    ]
    if missing:
        raise ValueError(
            f"to be loaded without its recipe, a model must be described by its recipe, which "
            f"lacks {', '.join(missing)}: take Images, and FromScratch or Pretrained"
        )
    net, settings = model.parts(classes=len(classes), channels=data.channels, size=data.size)
    return TrainedModel(
        name=recipe.name,
        net=net,
        settings=settings,
        classes=tuple(map(str, classes)),
        channels=data.channels,
        size=data.size,
        resize=data.resize or data.size,
        mean=data.normalize.mean if data.normalize else (0.0,),
        std=data.normalize.std if data.normalize else (1.0,),
        upright=getattr(data, "upright", False),
        decode_size=data.decoding.via if hasattr(data, "decoding") else None,
        precision=precision,
        thresholds=thresholds,
        # Of a file the name alone: its folder is nobody else's business.
        weights=getattr(model, "weights", None) and Path(model.weights).name,
        weights_license=_license(recipe),
    )


def _license(recipe: Recipe) -> str | None:
    """Return the license of the weights that training began from, as far as it is known."""
    try:
        origin = recipe.model.origin()
    except (AttributeError, ValueError):  # another kind of model; a file that is gone
        return None
    return origin and origin.license


def load(run: str | PathLike, *, device: str | None = None, trust: bool = False) -> Predictor:
    """Load what a run trained, ready to predict; neither its data nor its recipe file is needed.

        predictor = fastcv.load("runs/digits/20260101-120000-seed0")
        predictor("three.png").label

    A run of an older fastcv, which wrote no model.json, is described by its recipe.json.

    Args:
        run: a run directory, or any folder that holds its model.json and model.safetensors.
        device: "cpu", "cuda", "mps"; None takes a GPU if there is one.
        trust: as in `Run`; a net that your own recipe file defines needs it, and that file.

    Raises:
        ValueError: there is no trained model, or it cannot be read.
    """
    folder = Path(run)
    return Predictor.of(trained_model(Run(folder, trust=trust)), folder, device)


def trained_model(run: Run) -> TrainedModel:
    """Return the description of what a run trained; of an older run made from its recipe.

    Raises:
        ValueError: there is no trained model, or it cannot be read.
    """
    if not (run.path / NAME).is_file() and (run.path / "classes.json").is_file():
        return describe(run.recipe, run.classes, precision=run.environment["precision"])
    if run.trust:
        run.load_own()
    return TrainedModel.read(run.path, trust=run.trust)
