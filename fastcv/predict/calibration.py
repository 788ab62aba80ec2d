"""Temperature scaling, so that a net's confidence matches its accuracy."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

RANGE = (0.05, 20.0)  # of temperatures that are tried


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature that makes held-out labels likeliest; classes stay as they are.

    Fit it on validation images, never on those that a number is reported for.

    Args:
        logits: (N, classes).
        targets: (N,), indices of the true classes.

    Raises:
        ValueError: there is no image.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    if not len(targets):
        raise ValueError("a temperature must be fitted on at least one image, got none")
    logits, places = np.asarray(logits, np.float64), np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[places, targets].mean())

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(RANGE)), method="bounded").x))
