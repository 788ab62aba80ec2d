"""What of Python a capture fixes: numbers and functions that modules, losses and callbacks hold."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from fastai.callback.core import Callback
from fastai.learner import Learner
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

# What a module holds of torch's own; of these only the mode may change a step.
_TORCHS = vars(nn.Module()).keys() - {"training"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_NUMBERS = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, tuple, dict)
DEPTH = 8  # of values in values; deeper ones are compared by identity

Fixed = dict[str, Any]


class _Tensor(int):
    """The address of a tensor."""


def fixed(learn: Learner, others: Iterable[Any] = ()) -> Fixed:
    """Return the numbers and functions that a training step takes from Python, by their place.

    Tensors stand here with their addresses, as other tensors need another capture.

    Args:
        learn: its net and loss.
        others: callbacks and transforms that are part of the step.
    """
    roots = {"the net": learn.model, "the loss": learn.loss_func}
    roots |= {f"{type(each).__name__} ({place})": each for place, each in enumerate(others, 1)}
    seen: set[int] = set()  # modules: they may hold each other
    found: Fixed = {}
    for root, thing in roots.items():
        modules = dict(thing.named_modules()) if isinstance(thing, nn.Module) else {}
        seen |= set(map(id, modules.values()))
        for path, module in modules.items():
            place = f"{root}'s {path}." if path else f"{root}'s "
            found |= {f"{place}{name}": _plain(each, seen) for name, each in _held(module).items()}
            tensors = module.named_buffers(recurse=False)
            found |= {f"{place}{name}": _Tensor(each.data_ptr()) for name, each in tensors}
        if not modules:
            found[root] = _plain(thing, seen)
    return found


def changed(ours: Fixed, theirs: Fixed, *, numbers: bool = False) -> set[str]:
    """Return where two differ; with `numbers`, only where it is not tensors that do."""
    return {
        name
        for name in ours.keys() | theirs.keys()
        if ours.get(name) != theirs.get(name)
        and not (numbers and isinstance(ours.get(name, theirs.get(name)), _Tensor))
    }


def hooked(learn: Learner) -> str | None:
    """Return what has a hook, which a replay would not call; None if nothing has."""
    if any(getattr(torch_modules, f"_global{name}", None) for name in _HOOKS):
        return "torch has a hook for all modules"
    for net in (learn.model, learn.loss_func):
        for module in net.modules() if isinstance(net, nn.Module) else ():
            if any(getattr(module, name) for name in _HOOKS):
                return f"{type(module).__name__} has a hook"
    for parameter in learn.model.parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            return "a parameter has a hook"
    return None


def _held(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object that may decide what it computes."""
    skipped: Any = {"learn"} if isinstance(thing, Callback) else ()  # it leads everywhere
    if isinstance(thing, nn.Module):
        skipped = _TORCHS
    return {name: value for name, value in vars(thing).items() if name not in skipped}


def _plain(value: Any, seen: set[int], depth: int = DEPTH) -> Any:
    """Return what is equal for two values that compute the same."""
    if isinstance(value, _NUMBERS):
        return value
    if isinstance(value, Tensor):
        return _Tensor(value.data_ptr())
    if isinstance(value, type):
        return value
    if not (hasattr(value, "__dict__") or isinstance(value, _CONTAINERS)):
        return value if type(value).__hash__ else id(value)  # such as a dtype; an array
    if not depth or id(value) in seen:
        return id(value)
    further = depth - 1
    if isinstance(value, list | tuple):
        return [_plain(each, seen, further) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each, seen, further) for name, each in value.items()}
    own = _held(value)
    if isinstance(value, nn.Module):
        seen.add(id(value))
        inner = [*value.buffers(recurse=False), *value.children()]
        return [_plain(own, seen, further), _plain(inner, seen, further)]
    if dataclasses.is_dataclass(value):
        return [type(value), _plain(own, seen, further)]
    if callable(value) and not own:
        return value  # a function
    return [id(value), _plain(own, seen, min(further, 1))]  # an object may lead everywhere
