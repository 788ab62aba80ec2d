"""Capturing work of a GPU: CUDA graphs, and what else may stand in their place."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

WARM_UPS = 3  # steps before a capture: torch's advice


class Outputs(NamedTuple):
    """What a step leaves: the batch as the net saw it, what came of it, and gradients not used yet.

    `grads` holds pairs of a parameter and its gradient where the optimizer's step is still to come.
    """

    x: Tensor
    y: Tensor
    pred: Tensor
    loss: Tensor
    grads: list[tuple[nn.Parameter, Tensor]]


class Backend(Protocol):
    """What captures: CUDA, or in tests something that notes what is asked of it."""

    def warm_up(self, program: Callable[[], Outputs]) -> None:
        """Run the program until everything it needs exists.

        Raises:
            RuntimeError: it cannot be captured.
        """

    def capture(self, program: Callable[[], Outputs]) -> Callable[[], Outputs]:
        """Record the program without running it; return what replays it.

        Raises:
            RuntimeError: it cannot be captured.
        """

    def wait(self) -> None:
        """Wait until all that was replayed is done."""


class CudaGraphs:
    """Captures CUDA graphs.

    Args:
        device: what runs them.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def warm_up(self, program: Callable[[], Outputs]) -> None:
        """Run the program on the stream that captures; a capture must not wait for the device.

        The last time, a step that waits (as by `.item()`) is an error: it is found here, where
        nothing is captured yet, and not by a capture that fails.
        """
        with torch.cuda.device(self.device):
            self.stream.wait_stream(torch.cuda.current_stream())
            try:
                with torch.cuda.stream(self.stream):
                    for _ in range(WARM_UPS - 1):
                        program()
                    with _waiting_forbidden():
                        program()
            finally:  # also where it fails: what puts the weights back must come after
                torch.cuda.current_stream().wait_stream(self.stream)

    def capture(self, program: Callable[[], Outputs]) -> Callable[[], Outputs]:
        """Record the program as a graph."""
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            before = torch.cuda.current_stream()
            try:
                outputs = self._record(captured, program)
            except RuntimeError:
                torch.cuda.set_stream(before)
                # A capture that fails leaves torch's generator waiting for its end, and every later
                # random number would be an error (pytorch issue 171263): one that succeeds ends it.
                self.stream = torch.cuda.Stream()
                self._record(torch.cuda.CUDAGraph(), lambda: torch.zeros(1, device=self.device))
                raise

        def replay() -> Outputs:
            captured.replay()
            return outputs

        return replay

    def wait(self) -> None:
        """Wait for the replays that run: a graph must not go before its last one is done."""
        torch.cuda.synchronize(self.device)

    def _record(self, graph: torch.cuda.CUDAGraph, program: Callable) -> Any:
        # Other threads, W&B's among them, may use the device meanwhile.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            return program()


@contextmanager
def _waiting_forbidden() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?i).*synchronization debug mode.*")
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
