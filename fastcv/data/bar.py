"""A bar that says how far the decoding has come."""

import sys
import time
from collections.abc import Iterator

WIDTH = 24  # characters
REDRAW_SECONDS = 0.1


def with_bar(chunks: Iterator[dict], size: int, total: int, what: str) -> Iterator[dict]:
    """Pass the chunks on, with a bar on a terminal, with one line at the end anywhere else.

    Args:
        chunks: what is made, chunk by chunk.
        size: images in a chunk.
        total: images in all chunks.
        what: is done to them.
    """
    live, drawn, started = sys.stderr.isatty(), 0.0, time.perf_counter()
    for number, chunk in enumerate(chunks, start=1):
        yield chunk
        now = time.perf_counter()
        if live and now - drawn > REDRAW_SECONDS:
            drawn, done = now, min(number * size, total)
            bar = "█" * round(done / total * WIDTH)
            sys.stderr.write(f"\r\x1b[2K{what} {bar:░<{WIDTH}} {done:,}/{total:,} images")
            sys.stderr.flush()
    seconds = time.perf_counter() - started
    start = "\r\x1b[2K" if live else ""
    sys.stderr.write(f"{start}{what}: {total:,} images, {seconds:.1f} s\n")
