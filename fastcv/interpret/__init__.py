"""Figures of a training and of a trained net: functions of plain data, without pyplot.

Each takes the figure's title, and `smoke`, which marks it as a smoke run's.
"""

from fastcv.interpret.activations import FeatureMaps, activations, feature_maps
from fastcv.interpret.confusion import confusion_matrix
from fastcv.interpret.images import prediction_grid, top_losses
from fastcv.interpret.multi_label import average_precisions
from fastcv.interpret.predicted import Predictions, predictions
from fastcv.interpret.style import save
from fastcv.interpret.training import curves, lr_find, schedule

__all__ = [
    "FeatureMaps",
    "Predictions",
    "activations",
    "average_precisions",
    "confusion_matrix",
    "curves",
    "feature_maps",
    "lr_find",
    "prediction_grid",
    "predictions",
    "save",
    "schedule",
    "top_losses",
]
