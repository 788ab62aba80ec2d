"""The machine of a measurement: numbers from another machine do not compare."""

from typing import Any

import torch

from fastcv.experiment.environment import device_name, environment
from fastcv.learning.callbacks.precision import cpu_has_bf16


def describe(device: torch.device, precision: str) -> dict[str, Any]:
    """Describe processor, GPU and versions; `precision` is what fastcv trains in there."""
    return {
        "processor": device_name("cpu"),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cpu_bf16": cpu_has_bf16(),
        **environment(str(device), precision),
    }


def headline(found: dict[str, Any]) -> str:
    """Write the description in one line."""
    bf16 = "with" if found["cpu_bf16"] else "without"
    return (
        f"{found['processor']} ({found['cpu_cores']} cores, {bf16} bf16 instructions), "
        f"{found['threads']} threads, torch {found['packages']['torch']}, "
        f"training in {found['precision']} on {found['gpu'] or found['device']}"
    )
