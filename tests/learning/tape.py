"""A CUDA graph's likeness for the CPU: what is captured is replayed on the same tensors."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape:
    """Captures a program as the operations that torch ran, and runs these again.

    As with a graph, nothing of Python takes part in a replay: numbers, branches and the places of
    tensors are those of the capture. Reading a tensor's value while capturing is an error.
    """

    def __init__(self, fails=None):
        self.fails = fails  # raised by a capture, once it has begun
        self.warm_ups = self.captures = self.replays = self.waits = 0

    def warm_up(self, program):
        self.warm_ups += 1
        for _ in range(2):
            program()

    def capture(self, program):
        self.captures += 1
        with _Recording() as recording:
            outputs = program()
            if self.fails is not None:
                raise self.fails

        def replay():
            self.replays += 1
            with torch.no_grad():
                for func, args, kwargs, results in recording.operations:
                    _write(func(*args, **kwargs), results)
            return outputs

        return replay

    def wait(self):
        self.waits += 1


class _Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("the program waits for the device")
        results = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, results))
        return results


def _write(fresh, results):
    """Put what an operation gave this time where its result of the capture lies."""
    for new, old in zip(tree_leaves(fresh), tree_leaves(results), strict=True):
        if isinstance(old, torch.Tensor) and new.data_ptr() != old.data_ptr():
            old.detach().copy_(new)
