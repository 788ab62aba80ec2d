"""How a training step is executed; never what it computes."""

import time
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from fastai.learner import Learner
from torch import Tensor, nn

from fastcv import ranks
from fastcv.learning.cuda_graph.capture import CudaGraphs
from fastcv.learning.cuda_graph.graph import Graph
from fastcv.learning.cuda_graph.program import one_step, variants
from fastcv.recipe.values import Step

# Whether `pytest -m gpu` has passed on a GPU: then "auto" captures what can be captured.
PROVEN = False
RECOMPILES = 64  # torch's default is 8, shared by all trainings of a process
CAPTURING = ("on", "try", "auto") if PROVEN else ("on", "try")  # settings that use a graph
COMPILERS = ("torch._dynamo", "torch._inductor")


class Stepper:
    """Executes the training steps of a Learner as its `Step` specifies.

    Before the epochs of a fit it warms up without a trace: it compiles, captures, and lets a GPU
    load and choose its kernels, for each kind of step that the fit will have. On a CPU without
    `compile` there is nothing to warm up.

    What captures is `backend`, by default CUDA graphs on a CUDA device. `warmup_seconds` is the sum
    over all fits so far.

    Raises:
        ValueError: `step.graph` is "on", and the device has no graphs, or several ranks train.
    """

    def __init__(self, step: Step, device: torch.device, *, backend: CudaGraphs | None = None):
        self.step, self.device = step, device
        self.warmup_seconds = 0.0
        self.graph: Graph | None = None
        self._compiled: Callable[..., Tensor] | None = None
        self._reported: set[str] = set()  # why steps were not captured
        captures = backend is not None or device.type == "cuda"
        if step.graph == "on" and not captures:
            raise ValueError(f"step.graph='on' needs a CUDA device, got '{device}': use 'try'")
        if step.graph == "on" and ranks.count() > 1:
            raise ValueError(
                "step.graph='on' needs a single process, as a graph with the exchange of gradients "
                f"is not proven, got {ranks.count()} ranks: use 'try'"
            )
        if step.graph in CAPTURING and captures and ranks.count() == 1:
            self.graph = Graph(backend or CudaGraphs(device), insist=step.graph == "on")

    def net(self, learn: Learner) -> Callable[..., Tensor]:
        """Return the net for training batches: compiled, if so set."""
        if not self.step.compile:
            return learn.model
        if self._compiled is None:
            self._compiled = compiled(learn.model)
        return self._compiled

    def begin(self, learn: Learner) -> None:
        """Warm up for the epochs of the fit that `learn` has begun.

        Raises:
            ValueError: the net cannot be compiled, or the step not captured though it must be.
        """
        capturing = self.graph is not None and not learn.borrowed
        if not (capturing or self.step.compile or self.device.type == "cuda"):
            return
        start = time.perf_counter()
        try:
            if capturing:
                self.graph.begin(learn)
            # The LR finder is not timed, and rarely sees an epoch's last batch.
            kinds = variants(learn)[: 1 if learn.borrowed else None]
            if capturing and self.graph.replay is not None:
                del kinds[0]
            for kind in kinds:
                one_step(learn, kind)
        except RuntimeError as error:
            if self.step.compile and type(error).__module__.startswith(COMPILERS):
                problem = next(line for line in str(error).splitlines() if line.strip())
                raise ValueError(
                    f"step.compile needs a net that torch.compile can compile and a C++ compiler, "
                    f"got {problem.strip()!r}: leave it out"
                ) from error
            raise
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - start
        self.warmup_seconds += seconds
        if hasattr(learn, "epoch_lines"):
            learn.epoch_lines.line(f"warm-up {seconds:.1f} s: {self._described(capturing)}")
        if capturing:
            self._report_obstacle(learn)

    def trains(self, learn: Learner) -> bool:
        """Return whether `train` takes the epoch's batches, instead of the Learner itself."""
        if self.graph is None:
            return False
        trains = self.graph.trains(learn)
        self._report_obstacle(learn)
        return trains

    def _report_obstacle(self, learn: Learner) -> None:
        """Print, once for each reason, why steps are not captured; it names the callback."""
        reason = self.graph.reason
        if reason is None or reason in self._reported or not hasattr(learn, "epoch_lines"):
            return
        self._reported.add(reason)
        learn.epoch_lines.line(f"no CUDA graph: {reason}")

    def train(self, learn: Learner) -> None:
        """Train the batches of an epoch, with the events before and after each."""
        self.warmup_seconds += self.graph.train(learn)

    def end(self) -> None:
        """Release what only the epochs needed."""
        if self.graph is not None:
            self.graph.end()

    def used(self, learn: Learner) -> dict[str, Any]:
        """Return how the steps were executed, for the summary of a run.

        Returns:
            "compile", "channels_last" and "graph", whether any steps were replayed; "graph_notes",
            why steps or parts of them were not; "fused" of the optimizer, None if it has no such
            setting.
        """
        if self.graph is not None:
            notes = list(self.graph.notes)
        elif self.step.graph == "off":
            notes = ["it is switched off"]
        elif ranks.asked() > 1:
            notes = ["several ranks train"]
        elif self.device.type != "cuda":
            notes = [f"the device is {self.device.type}, not cuda"]
        else:
            notes = ["it is not proven yet: step.graph=try uses it"]
        group = learn.opt.param_groups[0] if learn.opt is not None else {}
        return {
            "compile": self.step.compile,
            "graph": self.graph is not None and self.graph.replayed > 0,
            "graph_notes": notes,
            "channels_last": self.step.channels_last,
            "fused": bool(group["fused"]) if "fused" in group else None,
        }

    def _described(self, capturing: bool) -> str:
        parts = ["net compiled"] if self.step.compile else []
        if capturing and self.graph.replay is not None:
            parts.append("step captured as a CUDA graph")
            if self.graph.outside is not None:
                parts.append(f"without the optimizer's: {self.graph.outside}")
        return ", ".join(parts) or "first batch"


def compiled(net: nn.Module) -> Callable[..., Tensor]:
    """Return a compiled function of the net for training batches; the net itself stays as it is.

    Training batches have one size, so that each compilation is for fixed shapes, which makes the
    fastest code. Freezing or unfreezing a layer recompiles; other weights, as of another seed, do
    not.
    """

    def call(*xb: Tensor) -> Tensor:
        return net(*xb)

    known = signature(torch.compile).parameters
    more = {"recompile_limit": RECOMPILES} if "recompile_limit" in known else {}
    return torch.compile(call, dynamic=False, **more)
