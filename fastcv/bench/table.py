"""The measurements as a table for people, and the machine: numbers from another do not compare."""

from collections.abc import Iterator
from typing import Any

import torch

from fastcv.bench.parts import PARTS
from fastcv.experiment.environment import device_name, environment
from fastcv.learning.callbacks.precision import cpu_has_bf16

ABOUT = {
    "plain_pytorch": "loop, DataLoader, torchvision",
    "stock_fastai": "fastai with its defaults",
    "ceiling": "fastcv's step on synthetic data",
    "ceiling_with_graph": "the same, from a CUDA graph",
    "with_graph": "fastcv with step.graph=try",
    "bare": "the loop alone",
}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Write the result of `bench` as a table for each measurement, with ratios."""
    yield f"{result['recipe']}: {headline(result['machine'])}"
    yield (
        f"{result['images']:,} images in batches of {result['batch_size']}; medians of "
        f"{result['rounds']} interleaved rounds, in brackets the quartiles"
    )
    for title, unit in (("loader", "images/s"), ("training", "images/s"), ("step", "µs a step")):
        yield ""
        yield f"{title}, {unit}; how many times as fast fastcv is"
        yield from _rows(result[title], result["spread"][title], costs=title == "step")
    brought = result["brings"]
    if brought:
        yield ""
        yield "speed with each part, relative to fastcv without it"
        says = {part.name: part.says for part in PARTS}
        width = max(len(name) for name in brought)
        for name, ratio in brought.items():
            yield f"  {name:<{width}}  {ratio:6.2f} times  {says.get(name, '')}"
    if "graph" in result:
        yield from _graph(result["graph"])
    yield ""
    yield f"from recipe to first batch, images cached: {result['start']['fastcv']:.2f} s"
    if "memory" in result:
        memory = result["memory"]
        yield (
            f"peak memory: {memory['fastcv']:,.0f} MB, {memory['above']:,.0f} MB more than the "
            f"same net on synthetic data"
        )


def _graph(found: dict[str, Any]) -> Iterator[str]:
    """Write whether a CUDA graph trains as ordinary steps do."""
    yield ""
    yield (
        f"CUDA graph: {found['replayed']} of {found['steps']} steps replayed after "
        f"{found['warmup_seconds']:.1f} s of warm-up"
    )
    yield f"  losses differ by at most {found['largest_loss_difference']:.2g} from those without it"
    for note in found["notes"]:
        yield f"  {note}"


def _rows(
    medians: dict[str, float], spread: dict[str, list[float]], *, costs: bool
) -> Iterator[str]:
    """Write a line for each contender; a ratio above 1 means that fastcv is faster."""
    width = max(len(name) for name in medians)
    for name, value in medians.items():
        low, high = spread[name]
        ratio = value / medians["fastcv"] if costs else medians["fastcv"] / value
        times = f"{ratio:6.2f} times" if name != "fastcv" else ""
        quartiles = f"[{low:,.0f} to {high:,.0f}]"
        about = ABOUT.get(name, "")
        yield f"  {name:<{width}}  {value:>9,.0f}  {quartiles:>20}  {times:<12}  {about}".rstrip()


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
