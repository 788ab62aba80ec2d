"""Numbers, metrics and times in words, the same in every table."""

from collections.abc import Sequence

from fastcv.experiment.comparison import Experiment, Result
from fastcv.recipe.metrics import TTA_ACCURACY

NOT_RUN = "not run"


def measured(experiment: Experiment, metric: str) -> str:
    """Write mean and spread as "91.64 ± 0.12 %", else "not run" or "not measured".

    Where some seeds lack the metric, their number follows.
    """
    if not experiment.results:
        return NOT_RUN
    mean, spread = experiment.mean(metric), experiment.spread(metric)
    if mean is None:
        return "not measured"
    there, ran = len(experiment.values(metric)), len(experiment.results)
    some = "" if there == ran else f" ({there} of {ran} seeds)"
    if metric == "parameters":
        return f"{mean:,.0f}{some}"
    accuracy = metric.endswith("accuracy")
    scale, digits, unit = (100, 2, " %") if accuracy else (1, 4, "")
    middle = f"{scale * mean:.{digits}f}"
    around = "" if spread is None else f" ± {scale * spread:.{digits}f}"
    final = metric.startswith("best_") and not any(
        metric in result.measured for result in experiment.results
    )
    return f"{middle}{around}{unit}" + (" (final weights)" if final else "") + some


def number(metric: str, value: float) -> str:
    """Write a reported number with its own digits: "91.47 %", "49 %", "0.0824"."""
    if metric == "parameters":
        return f"{value:,.0f}"
    return f"{round(100 * value, 4):g} %" if metric.endswith("accuracy") else f"{value:g}"


def in_words(metric: str, value: float) -> str:
    """Write a measured number with its metric: "validation accuracy 91.64 %"."""
    shown = percent(value, 2) if metric.endswith("accuracy") else f"{value:.4g}"
    return f"{name(metric)} {shown}"


def percent(fraction: float, digits: int) -> str:
    """Write a fraction 0-1 as "91.64 %"."""
    return f"{100 * fraction:.{digits}f} %"


def name(metric: str) -> str:
    """Name a metric in words: "best test accuracy"."""
    if metric == TTA_ACCURACY:
        return "accuracy with TTA"
    return metric.replace("_", " ").replace("valid ", "validation ")


def short(metric: str) -> str:
    """Name an accuracy without the word: "best test", "with TTA"."""
    return " ".join(word for word in name(metric).split() if word != "accuracy")


def epochs_in_words(epochs: str) -> str:
    """Write "1 epoch", "15 epochs", "7 of 15 epochs"."""
    return f"{epochs} epoch" if epochs == "1" else f"{epochs} epochs"


def epochs_run(results: Sequence[Result]) -> str:
    """Write the epochs of some runs: "15", or "7-15" where they differ."""
    epochs = [result.epochs for result in results]
    return "-".join(map(str, dict.fromkeys((min(epochs), max(epochs)))))


def duration(seconds: float) -> str:
    """Write a duration in its natural unit: "4.2 s", "36 min", "2.1 h"."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 5970:
        minutes = seconds / 60
        return f"{minutes:.1f} min" if minutes < 9.95 else f"{minutes:.0f} min"
    return f"{seconds / 3600:.1f} h"


def seeds(results: Sequence[Result]) -> str:
    """List up to five seeds; count more."""
    found = list(dict.fromkeys(result.seed for result in results))  # folds share them
    return ", ".join(map(str, found)) if len(found) <= 5 else f"{len(found)} seeds"
