"""Devices of this machine by their names."""

import torch


def named_device(name: str | torch.device) -> torch.device:
    """Return a device of this machine by its name.

    Raises:
        ValueError: there is no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be cpu, cuda, cuda:N or mps, got {str(name)!r}") from error
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, device.type == "cpu"):
        raise ValueError(
            f"device {str(device)!r} needs a GPU and a build of torch for it, and there is none: "
            "use 'cpu'"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(
            f"device {str(device)!r} must be one of the {count} GPUs here, cuda:0 to "
            f"cuda:{count - 1}"
        )
    return device
