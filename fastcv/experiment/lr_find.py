"""The LR finder for a recipe: what `fastcv lr-find` runs."""

from collections.abc import Callable
from numbers import Real
from pathlib import Path

from fastcv import files, interpret
from fastcv.experiment.building import SMOKE_NOTE, learner, smoked
from fastcv.learning.lr_finder import Rates
from fastcv.learning.stages.stage import rates_for
from fastcv.recipe.values import Recipe


def find_learning_rate(
    recipe: Recipe,
    *,
    out: str | Path = ".",
    device: str | None = None,
    smoke: bool = False,
    write: Callable[[str], None] = print,
) -> Rates:
    """Raise the learning rate batch by batch, and suggest rates for the recipe's first stage.

    Layers are frozen, rates spread over layers, images augmented and resized, and gradients
    accumulated as in that stage. Writes lr_find.png and lr_find.csv (of a smoke run,
    lr_find_smoke.png and .csv), and prints the suggestions. Figure and lines mark the rate that the
    first stage takes.

    Args:
        recipe: the experiment; it is not trained.
        out: the folder for the two files; made if it does not exist.
        device: as in `learner`.
        smoke: use toy images and random weights.
        write: called with each line to print.
    """
    if smoke:
        recipe = smoked(recipe)
        write(SMOKE_NOTE)
    learn = learner(recipe, device=device)
    stage = recipe.schedule[0] if recipe.schedule else None
    with learn.epoch_lines.doing("finding a learning rate"):
        found = rates_for(stage, learn)
    rate = getattr(stage, "lr", None)
    taken = rate if isinstance(rate, str | Real) else None
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    plot = folder / ("lr_find_smoke.png" if smoke else "lr_find.png")
    figure = interpret.lr_find(
        found.rates, found.losses, found.suggestions, taken=taken, smoke=smoke
    )
    interpret.save(figure, plot)
    table = plot.with_suffix(".csv")
    pairs = zip(found.rates, found.losses, strict=True)
    files.write_csv(table, [{"learning_rate": rate, "loss": loss} for rate, loss in pairs])
    for name, (rate, loss) in found.suggestions.items():
        mark = "  <- the recipe takes this one" if name == taken else ""
        write(f"{name:<8} {rate:.2e}  (loss there {loss:.4f}){mark}")
    if isinstance(taken, Real):
        write(f"the recipe's own rate is {taken:.2e}")
    write(str(plot))
    write(str(table))
    return found
