"""The callbacks of a stage or a recipe, built from what stands in their `callbacks`."""

from collections.abc import Callable, Iterable

from fastai.callback.core import Callback


def fresh(callbacks: Iterable[Callable[[], Callback]]) -> list[Callback]:
    """Build a callback of each: a class, a `functools.partial`, a value that can be called.

    Raises:
        ValueError: one needs arguments, or returns something else than a fastai callback.
    """
    built = []
    for make in callbacks:
        try:
            made = make()
        except TypeError as error:
            raise ValueError(
                f"each of callbacks must be callable without arguments, got {make!r} ({error}): "
                "bind its arguments with functools.partial"
            ) from error
        if not isinstance(made, Callback):
            raise ValueError(
                f"each of callbacks must return a fastai Callback when it is called, got a "
                f"{type(made).__name__} from {make!r}"
            )
        built.append(made)
    return built
