"""The machine of a measurement: numbers from another machine do not compare."""

from typing import Any

import torch

from fastcv.experiment.environment import device_name, environment
from fastcv.learning.callbacks.precision import cpu_has_bf16


def describe(device: torch.device, precision: str) -> dict[str, Any]:
    """Describe processor, GPU and versions.

    Args:
        device: the device that trains.
        precision: the precision that fastcv trains in there.
    """
    found = environment(str(device), precision)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    bf16 = cpu_has_bf16()
    return {"processor": device_name("cpu"), "gpu": gpu, "cpu_bf16": bf16} | found


def headline(found: dict[str, Any]) -> str:
    """Write the description in one line."""
    bf16 = "with" if found["cpu_bf16"] else "without"
    parts = [
        f"{found['processor']} ({found['cpu_cores']} cores, {bf16} bf16 instructions)",
        f"{found['threads']} threads",
        f"torch {found['packages']['torch']}",
        f"training in {found['precision']} on {found['gpu'] or found['device']}",
    ]
    return ", ".join(parts)
