"""What a run gives, in the forms that W&B takes."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb

PREDICTION_COLUMNS = ("image", "true", "predicted", "correct", "confidence", "loss")


def plain(value: Any) -> Any:
    """Turn a value of a metric or a recipe into one that JSON has."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if getattr(value, "shape", None) == ():  # a number of numpy's or torch's
        return value.item()
    return str(value)


def side_by_side(summary: dict[str, Any], reported: dict[str, Any]) -> dict[str, Any]:
    """Put reported, measured and their difference beside the final numbers."""
    rows = {k: plain(v) for k, v in summary.items() if v is not None}
    for key, value in reported.items():
        said, found = plain(value), rows.get(key)
        if said is None:
            continue
        rows[f"reported/{key}"] = said
        if found is not None:
            rows[f"measured/{key}"] = found
            if _is_number(said) and _is_number(found):
                rows[f"difference/{key}"] = found - said
    return rows


def _is_number(value: Any) -> bool:
    is_bool = isinstance(value, bool)
    return isinstance(value, int | float) and not is_bool and math.isfinite(value)


def table(predictions: list[dict[str, Any]]) -> wandb.Table:
    """Make a table of predictions, each with its image."""
    import wandb

    made = wandb.Table(columns=list(PREDICTION_COLUMNS))
    for row in predictions:
        made.add_data(
            wandb.Image(row["image"]),
            str(row["true"]),
            str(row["predicted"]),
            row["true"] == row["predicted"],
            float(row["confidence"]),
            float(row["loss"]),
        )
    return made


def slug(name: str, smoke: bool) -> str:
    """Name the artifact within W&B's alphabet; a smoke run's never becomes a recipe's latest."""
    return (re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII) + ("-smoke" if smoke else ""))[-128:]
