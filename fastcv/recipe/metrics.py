"""The names of the metrics that a run measures and a report states.

The metrics of `Recipe.metrics` come on top, as valid_NAME and test_NAME.
"""

# In the order in which tables show them.
METRICS = (
    "train_accuracy",
    "valid_accuracy",
    "best_valid_accuracy",
    "test_accuracy",
    "best_test_accuracy",
    "train_loss",
    "valid_loss",
    "test_loss",
    "parameters",
)

# The metric that represents an experiment: the first of these that is reported, or else measured.
HEADLINES = (
    "test_accuracy",
    "best_test_accuracy",
    "valid_accuracy",
    "best_valid_accuracy",
    "train_accuracy",
)

# Accuracy with test-time augmentation, measured if a stage has the callback TTA: on the test
# images, or without any on the validation images.
TTA_ACCURACY = "tta_accuracy"
MEASURES = (*METRICS, TTA_ACCURACY)

# Ends of the names of metrics that should fall: scikit-learn's rule, and what fastai adds to it.
_FALLS = ("loss", "error", "error_rate", "deviance", "perplexity")


def should_fall(monitor: str) -> bool:
    """Whether a metric is better when it is lower, by its name."""
    return monitor.endswith(_FALLS)
