"""The statistics of batch norm kept as they are."""

from fastai.callback.core import Callback
from fastai.callback.training import TrainEvalCallback
from torch.nn.modules.batchnorm import _BatchNorm


class FixedStatistics(Callback):
    """Normalize with the running statistics in training too, and leave them unchanged.

    The weights of batch norm train as those of other layers do.
    """

    run_after, run_valid = TrainEvalCallback, False

    def before_train(self) -> None:
        """Switch batch norm to evaluation after the net was switched to training."""
        for module in self.learn.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
