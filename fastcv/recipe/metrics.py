"""The names of what a run measures and a report states."""

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

# The metric that represents an experiment: the first of these that is reported, else measured.
HEADLINES = (
    "test_accuracy",
    "best_test_accuracy",
    "valid_accuracy",
    "best_valid_accuracy",
    "train_accuracy",
)

# Test accuracy with test-time augmentation: measured only where a recipe asks for it.
TTA_ACCURACY = "tta_accuracy"
MEASURES = (*METRICS, TTA_ACCURACY)
