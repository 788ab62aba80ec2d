"""The net's first child frozen after some epochs."""

from dataclasses import dataclass

from fastai.callback.core import Callback

from fastcv.recipe.bounds import check_whole


@dataclass(frozen=True, kw_only=True)
class FreezeFirst:
    """Freeze the net's first child after some epochs, which also saves its backward pass.

    One of the `callbacks` of a stage. The child trains again in the next stage.

    Args:
        after: epochs of the stage in which the first child still trains, 0 or more.
    """

    after: int

    def __post_init__(self):
        check_whole("after", self.after)

    def __call__(self) -> "FirstChildFrozen":
        """Build the callback."""
        return FirstChildFrozen(self.after)


class FirstChildFrozen(Callback):
    """Freeze the net's first child after some epochs of the fit."""

    order, run_valid = 61, False

    def __init__(self, after: int):
        self.after = after

    def before_fit(self) -> None:
        """Find the parameters of the first child that train at all."""
        first = next(self.learn.model.children())
        self.trained = [p for p in first.parameters() if p.requires_grad]

    def before_epoch(self) -> None:
        """Freeze or unfreeze the first child, whichever epoch a resumed fit starts in."""
        self._train(self.learn.epoch < self.after)

    def after_fit(self) -> None:
        """Let the first child train in whatever comes next."""
        self._train(True)

    def _train(self, trained: bool) -> None:
        for parameter in self.trained:
            parameter.requires_grad_(trained)
