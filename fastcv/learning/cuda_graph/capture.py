"""Capture GPU work as CUDA graphs."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

WARM_UPS = 3  # steps before a capture, as torch recommends


class Outputs(NamedTuple):
    """The results of a step: the batch as the net saw it, logits, loss, and gradients.

    `grads` holds pairs of a parameter and its gradient if the optimizer has not stepped yet; else
    it is empty.
    """

    x: Tensor
    y: Tensor
    pred: Tensor
    loss: Tensor
    grads: list[tuple[nn.Parameter, Tensor]]


class CudaGraphs:
    """Captures programs as CUDA graphs on `device`; any other backend must have its methods.

    `warm_up` and `capture` raise a RuntimeError if the program cannot be captured.

    Attributes:
        unusable: why nothing can be captured any more in this process; None: it can. A failed
            capture leaves torch's allocator in the mode of a capture, as it ends that mode only
            after the device has ended its own; training goes on, but a later graph might share its
            memory.
    """

    unusable: ClassVar[str | None] = None

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def warm_up(self, program: Callable[[], Outputs]) -> None:
        """Run the program until all buffers and kernels that it needs exist.

        In the last run, waiting (as by `.item()`) is an error: it is better found here than by a
        capture that fails.
        """
        with torch.cuda.device(self.device):
            self.stream.wait_stream(torch.cuda.current_stream())
            try:
                with torch.cuda.stream(self.stream):
                    for _ in range(WARM_UPS - 1):
                        program()
                    with _waiting_forbidden():
                        program()
            finally:  # also after an error: the weights must be restored after these steps
                torch.cuda.current_stream().wait_stream(self.stream)

    def capture(self, program: Callable[[], Outputs]) -> Callable[[], Outputs]:
        """Record the program without running it; return a function that replays it."""
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            before = torch.cuda.current_stream()
            try:
                outputs = self._record(captured, program)
            except RuntimeError:
                CudaGraphs.unusable = "a capture failed in this process; a new one can capture"
                torch.cuda.set_stream(before)
                # A failed capture leaves torch's generator in capture mode, in which every later
                # random number is an error (pytorch issue 171263). A successful one ends the mode.
                self.stream = torch.cuda.Stream()
                self._record(torch.cuda.CUDAGraph(), lambda: torch.zeros(1, device=self.device))
                raise

        def replay() -> Outputs:
            captured.replay()
            return outputs

        return replay

    def wait(self) -> None:
        """Wait for running replays: a graph must outlive its last one."""
        torch.cuda.synchronize(self.device)

    def _record(self, graph: torch.cuda.CUDAGraph, program: Callable) -> Any:
        # Other threads, such as W&B's, may use the device meanwhile.
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
