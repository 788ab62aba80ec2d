"""The figures as a table for people."""

from collections.abc import Iterator
from typing import Any

from fastcv.bench.machine import headline
from fastcv.bench.parts import PARTS

PLAIN = {
    "plain_pytorch": "hand-written loop, DataLoader, torchvision",
    "stock_fastai": "fastai's loaders, Learner and optimizer, its defaults",
    "fastcv": "fastcv",
    "ceiling": "fastcv's step alone, on synthetic data",
    "bare": "the loop alone",
}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Write what `bench` returns: a table for each thing measured, with its ratios."""
    yield f"{result['recipe']}: {headline(result['machine'])}"
    yield (
        f"medians of {result['rounds']} interleaved rounds, between brackets the quartiles; "
        f"{result['images']:,} images, batches of {result['batch_size']}"
    )
    for title, unit in (("loader", "images/s"), ("training", "images/s"), ("step", "µs a step")):
        yield ""
        yield f"{title}, {unit}"
        yield from _rows(result[title], result["spread"][title], costs=title == "step")
    brought = result["brings"]
    if brought:
        yield ""
        yield "what each part brings: fastcv by fastcv without it"
        says = {part.name: part.says for part in PARTS}
        width = max(len(name) for name in brought)
        for name, ratio in brought.items():
            yield f"  {name:<{width}}  {ratio:6.2f} times  {says.get(name, '')}"
    yield ""
    seconds = result["start"]["fastcv"]
    yield f"from recipe to first batch, images cached: {seconds:.2f} s"
    if "memory" in result:
        memory = result["memory"]
        yield (
            f"peak memory: {memory['fastcv']:,.0f} MB, {memory['above']:,.0f} MB above the same "
            f"net on synthetic data"
        )


def _rows(
    medians: dict[str, float], spread: dict[str, list[float]], *, costs: bool
) -> Iterator[str]:
    """One line a contender; its ratio is fastcv's advantage over it (above 1: fastcv is faster)."""
    width = max(len(name) for name in medians)
    for name, value in medians.items():
        low, high = spread[name]
        ratio = value / medians["fastcv"] if costs else medians["fastcv"] / value
        said = f"fastcv is {ratio:6.2f} times as fast" if name != "fastcv" else ""
        about = PLAIN.get(name, "")
        yield (
            f"  {name:<{width}}  {value:>11,.0f}  [{low:>9,.0f} to {high:>9,.0f}]  "
            f"{said:<31}  {about}"
        ).rstrip()
