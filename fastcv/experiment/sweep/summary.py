"""What a sweep found, as `sweep.json` keeps it for people, for `fastcv report` and for scripts."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fastcv.experiment.comparison import is_finite
from fastcv.experiment.words import in_words, percent
from fastcv.files import write_json
from fastcv.predict.evaluation import wilson
from fastcv.recipe.metrics import should_fall
from fastcv.recipe.values import check_name
from fastcv.terminal import aligned

NAME = "sweep.json"
STATES = ("finished", "pruned", "failed", "running", "planned")
SHOWN = 5  # trials of the printed table


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial.

    Args:
        number: from 0 up.
        state: one of `STATES`.
        settings: what it was tried with, as texts for `override`.
        value: what it measured in the end; None unless it is finished.
        epochs: those run.
        seconds: of all its epochs.
        images: those that `value` was measured on.
        run: its run directory, seen from the sweep's.
        reason: why it was pruned, or failed.
    """

    number: int
    state: str
    settings: Mapping[str, str]
    value: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    images: int | None = None
    run: str | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep with its trials.

    Args:
        name: of the sweep.
        recipe: the reference of its recipe.
        settings: "key=value" as for `override`, the same for all trials.
        search: what differs, as on the command line.
        monitor: what was measured; `final` is its name in the summary of a run.
        grid: whether every combination was tried.
        smoke: whether the trials are smoke runs.
        trials: in the order they began.
        importances: the share of each setting in the variance of the values; empty: not known.

    Raises:
        ValueError: a value is of another type.
    """

    name: str
    recipe: str
    settings: tuple[str, ...]
    search: tuple[str, ...]
    monitor: str
    final: str
    grid: bool
    smoke: bool
    trials: tuple[Trial, ...]
    importances: Mapping[str, float]

    def __post_init__(self) -> None:
        """Check the types: the values come from a file, which may hold anything."""
        check_name(self.name)
        texts = (self.recipe, self.monitor, self.final, *self.settings, *self.search)
        numbers = [each.value for each in self.trials if each.state == "finished"]
        numbers += [*self.importances.values(), *(each.seconds for each in self.trials)]
        mappings = [each.settings for each in self.trials]
        right = (
            all(isinstance(each, str) for each in texts)
            and all(map(is_finite, numbers))
            and all(each.state in STATES for each in self.trials)
            and all(isinstance(each, dict) for each in mappings)
            and all(isinstance(text, str) for each in mappings for text in each.values())
        )
        if not right:
            raise ValueError("a sweep must hold texts, and trials with finite values")

    @property
    def finished(self) -> list[Trial]:
        """The finished trials, the best first."""
        found = [trial for trial in self.trials if trial.state == "finished"]
        falls = should_fall(self.monitor)
        return sorted(found, key=lambda trial: trial.value if falls else -trial.value)

    @property
    def best(self) -> Trial | None:
        """The best trial; the earlier one of two that are equal."""
        return next(iter(self.finished), None)

    @property
    def on_test(self) -> bool:
        """Whether the best was chosen on test images."""
        return self.final.startswith("test_")

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the best accuracy; None for another metric."""
        best = self.best
        if best is None or not best.images or not self.monitor.endswith("valid_accuracy"):
            return None
        return wilson(round(best.value * best.images), best.images)

    @property
    def command(self) -> str:
        """The command that runs the best trial's recipe again; empty without one."""
        if self.best is None:
            return ""
        chosen = dict(self.best.settings)
        variant = chosen.pop("variant", None)
        settings = [*self.settings, *(f"{key}={text}" for key, text in chosen.items())]
        words = ["fastcv", "recipe", f"{self.recipe}/{variant}" if variant else self.recipe]
        return shlex.join(words + [word for each in settings for word in ("--set", each)])

    @property
    def size(self) -> str:
        """How many trials there are: "40 trials"."""
        return "1 trial" if len(self.trials) == 1 else f"{len(self.trials)} trials"

    @property
    def counts(self) -> str:
        """How many trials there are in each state: "31 finished, 7 pruned, 2 failed"."""
        counts = {state: sum(trial.state == state for trial in self.trials) for state in STATES}
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count)

    @property
    def result(self) -> str:
        """The best value in words, with its interval: "validation accuracy 98.33 % (...)"."""
        best = self.best
        if best is None:
            return "no trial is finished"
        words = in_words(self.final, best.value)
        if self.interval is None:
            return words
        low, high = self.interval
        part = "test" if self.on_test else "validation"
        interval = f"95 % interval {percent(low, 1)} to {percent(high, 1)}"
        return f"{words} ({interval}, {best.images:,} {part} images)"

    @property
    def caution(self) -> str:
        """What the best value does not say."""
        part = "test" if self.on_test else "validation"
        judge = "new images" if self.on_test else "test images, or with other seeds"
        return (
            f"the best of {len(self.finished)} was chosen on these {part} images, so its number is "
            f"too good: judge it on {judge}"
        )

    def write(self, folder: Path) -> Path:
        """Write sweep.json into a folder, and return its path."""
        best = self.best
        found = None
        if best is not None:
            found = {"trial": best.number, "value": best.value, "interval": self.interval}
            found |= {"settings": dict(best.settings), "run": best.run, "command": self.command}
        file = folder / NAME
        write_json(file, asdict(self) | {"best": found})
        return file

    def table(self) -> str:
        """Return the best trials as a table."""
        keys = [text.partition("=")[0] for text in self.search]
        rows = [("trial", self.monitor, *keys)]
        for trial in self.finished[:SHOWN]:
            rows.append((str(trial.number), f"{trial.value:.4g}", *self.cells(trial)))
        return "\n".join(aligned(rows))

    def cells(self, trial: Trial) -> list[str]:
        """Return a trial's settings in the order of `search`."""
        keys = [text.partition("=")[0] for text in self.search]
        return [trial.settings.get(key, "-") for key in keys]


def read(folder: Path) -> Sweep:
    """Read sweep.json from the folder of a sweep.

    Raises:
        ValueError: it is damaged, or no sweep's.
    """
    values = json.loads((folder / NAME).read_text(encoding="utf-8"))
    values.pop("best", None)
    if unknown := set(values) - {each.name for each in fields(Sweep)}:
        raise ValueError(f"a sweep must not hold {', '.join(sorted(unknown))}")
    trials = tuple(Trial(**each) for each in values["trials"])
    lists = {name: tuple(values[name]) for name in ("settings", "search")}
    return Sweep(**values | lists | {"trials": trials})


def trials_of(study: Any) -> tuple[Trial, ...]:
    """Return the trials of Optuna's study."""
    names = dict(zip(("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"), STATES, strict=True))
    found = []
    for each in study.get_trials(deepcopy=False):
        kept, state = each.user_attrs, names[each.state.name]
        more = {
            name: kept[name]
            for name in ("epochs", "seconds", "images", "run", "reason")
            if name in kept
        }
        value = each.value if state == "finished" else None
        settings = kept.get("settings", {})
        found.append(Trial(number=each.number, state=state, settings=settings, value=value, **more))
    return tuple(found)


def importances(study: Any, keys: Sequence[str], seed: int) -> dict[str, float]:
    """Return the share of each setting in the variance of the values, the largest first: fANOVA.

    Empty where there are too few trials, or all measured the same.

    Source: Hutter, Hoos, Leyton-Brown 2014, An Efficient Approach for Assessing Hyperparameter
    Importance.
    """
    values = {
        trial.value for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"
    }
    if len(keys) < 2 or len(values) < 4:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    evaluator = FanovaImportanceEvaluator(seed=seed)
    found = get_param_importances(study, evaluator=evaluator, params=list(keys))
    return {key: float(share) for key, share in found.items() if is_finite(share)}
