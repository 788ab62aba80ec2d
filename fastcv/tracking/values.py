"""Convert a run's values to the forms that W&B takes."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb


def plain(value: Any) -> Any:
    """Convert a value of a metric or a recipe to one of JSON's."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if getattr(value, "shape", None) == ():  # a scalar of numpy or torch
        return value.item()
    return str(value)


def series(column: str) -> str:
    """Name the series of a metrics.csv column: valid_loss is valid/loss, in the group valid."""
    split, _, metric = column.partition("_")
    return f"{split}/{metric}" if split in ("train", "valid") else column


def side_by_side(summary: dict[str, Any], reported: dict[str, Any]) -> dict[str, Any]:
    """Add reported, measured and their difference to the final numbers."""
    rows = {k: plain(v) for k, v in summary.items() if v is not None}
    for key, value in reported.items():
        claimed, measured = plain(value), rows.get(key)
        if claimed is None:
            continue
        rows[f"reported/{key}"] = claimed
        if measured is not None:
            rows[f"measured/{key}"] = measured
            if _is_number(claimed) and _is_number(measured):
                rows[f"difference/{key}"] = measured - claimed
    return rows


def _is_number(value: Any) -> bool:
    is_bool = isinstance(value, bool)
    return isinstance(value, int | float) and not is_bool and math.isfinite(value)


def table(predictions: list[dict[str, Any]]) -> wandb.Table:
    """Build a table of predictions, each with its image."""
    import wandb

    made = wandb.Table(columns=["image", "true", "predicted", "correct", "confidence", "loss"])
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
    """Return an artifact's name in W&B's alphabet; a smoke run's differs from its recipe's."""
    return (re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII) + ("-smoke" if smoke else ""))[-128:]
