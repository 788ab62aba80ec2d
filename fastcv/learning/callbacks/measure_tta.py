"""Test-time augmentation measured at the end of a training."""

from fastai.callback.core import Callback

from fastcv.learning.tta import TTA, accuracy


class MeasureTTA(Callback):
    """After the last epoch, measure the accuracy through views on the last loader's images.

    That is the test set, or the validation set where there is no other. `history.also` then holds
    it as "tta_accuracy", for the epoch's row.

    Args:
        views: what to average over.
    """

    order, run_valid = 54, True  # before History writes the row

    def __init__(self, views: TTA):
        self.views = views

    def after_epoch(self) -> None:
        """Measure once, at the end."""
        learn = self.learn
        if learn.epoch + 1 < learn.n_epoch or learn.borrowed:
            return
        learn.model.eval()
        loader = learn.dls.loaders[-1]
        with learn.precision.scope(learn.dls.device):
            measured = accuracy(learn.model, loader, self.views)
        learn.history.also = {"tta_accuracy": measured}
