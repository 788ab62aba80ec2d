"""What was measured beside what was reported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastcv.recipe.metrics import HEADLINES
from fastcv.recipe.values import Reported

BEATEN, NOT_BEATEN = "beaten", "not beaten"
# A verdict as the column "within tolerance" of every table shows it; others stand as they are.
VERDICTS = {"within": "yes", "above": "no, above", "below": "no, below"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One reported number beside the measured one.

    Args:
        metric: its name, such as "test_accuracy".
        reported: the report's number.
        measured: the run's; None if it has none.
        verdict: "within" the tolerance, or "above" or "below" it; "beaten" or "not beaten" of a
            number that is to be beaten; "not measured" if the run has none.
    """

    metric: str
    reported: float
    measured: float | None
    verdict: str


class Checks(tuple[Check, ...]):
    """The rows of a comparison; prints as a table."""

    def __str__(self) -> str:
        """One line a number: metric, reported, measured, within tolerance or beaten."""
        if not self:
            return "nothing is reported for this experiment"
        to_beat = any(row.verdict in (BEATEN, NOT_BEATEN) for row in self)
        rows = [("", "reported", "measured", "within tolerance")]
        if to_beat:
            rows = [("", "to beat", "measured", "")]
        for row in self:
            verdict = VERDICTS.get(row.verdict, row.verdict)
            rows.append((row.metric, _shown(row.reported), _shown(row.measured), verdict))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            f"{metric:<{widths[0]}}  {reported:>{widths[1]}}  {measured:>{widths[2]}}  {within}"
            for metric, reported, measured, within in rows
        )


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def check(run: Any) -> Checks:
    """Compare a run, of `train` or `fastcv.Run(path)`, with what its recipe says was reported."""
    return compare(run.recipe.reported, run.summary)


def compare(reported: Reported | None, measured: Mapping[str, Any]) -> Checks:
    """Compare reported numbers with measured ones by the name of their metric.

    Where the number is to be beaten, in another way than the report's, only the headline is
    compared, and the count of parameters. A best accuracy is beaten by the final weights' where the
    run chose no epoch.
    """
    if reported is None:
        return Checks()
    numbers = reported.numbers()
    if reported.to_beat:
        headline = next((metric for metric in HEADLINES if metric in numbers), None)
        numbers = {key: each for key, each in numbers.items() if key in (headline, "parameters")}
    rows = []
    for metric, number in numbers.items():
        value = measured.get(metric)
        if value is None and reported.to_beat:
            value = measured.get(metric.removeprefix("best_"))
        verdict = _verdict(metric, number, value, reported)
        rows.append(Check(metric=metric, reported=number, measured=value, verdict=verdict))
    return Checks(rows)


def _verdict(metric: str, number: float, measured: float | None, reported: Reported) -> str:
    if measured is None:
        return "not measured"
    if metric == "parameters":
        tolerance = 0.0
    elif reported.to_beat:
        return BEATEN if measured > number else NOT_BEATEN
    elif metric.endswith("loss"):
        tolerance = max(reported.loss_tolerance * number, 0.01)  # 0.01: a reported 0 is rounded
    else:
        tolerance = reported.tolerance
    difference = measured - number
    if abs(difference) <= tolerance + 1e-9:  # 1e-9: 0.93 - 0.91 is a little more than 0.02
        return "within"
    return "above" if difference > 0 else "below"
