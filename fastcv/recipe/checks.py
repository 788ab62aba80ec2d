"""What was measured beside what was reported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastcv.recipe.values import Reported


@dataclass(frozen=True, kw_only=True)
class Check:
    """One reported number beside the measured one; `verdict` says how they compare.

    "within": inside the tolerance. "above" / "below": outside. "not measured": this run gives none.
    """

    metric: str
    reported: float
    measured: float | None
    verdict: str


class Checks(tuple[Check, ...]):
    """The rows of a comparison; prints as a table."""

    def __str__(self) -> str:
        """One line a number: metric, reported, measured, within tolerance."""
        if not self:
            return "nothing is reported for this experiment"
        rows = [("", "reported", "measured", "within tolerance")]
        for row in self:
            said = {"within": "yes", "not measured": "not measured"}.get(
                row.verdict, f"no, {row.verdict}"
            )
            rows.append((row.metric, _shown(row.reported), _shown(row.measured), said))
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
    """Compare a run with what its recipe says was reported.

    Args:
        run: what `train` returned, or `fastcv.runs.Run(path)` of a finished run.
    """
    recipe, summary = run.recipe, run.summary
    return compare(recipe.reported, summary)


def compare(reported: Reported | None, measured: Mapping[str, Any]) -> Checks:
    """Compare reported numbers with measured ones by the name of their metric."""
    if reported is None:
        return Checks()
    return Checks(
        Check(
            metric=metric,
            reported=number,
            measured=measured.get(metric),
            verdict=_verdict(metric, number, measured.get(metric), reported),
        )
        for metric, number in reported.numbers().items()
    )


def _verdict(metric: str, number: float, measured: float | None, reported: Reported) -> str:
    if measured is None:
        return "not measured"
    if metric == "parameters":
        tolerance = 0.0
    elif metric.endswith("loss"):
        tolerance = max(reported.loss_tolerance * number, 0.01)  # 0.01: a reported 0 is rounded
    else:
        tolerance = reported.tolerance
    difference = measured - number
    if abs(difference) <= tolerance + 1e-9:  # 1e-9: 0.93 - 0.91 is a little more than 0.02
        return "within"
    return "above" if difference > 0 else "below"
