"""What a sweep searches: ranges and choices, as `KEY=LOW..HIGH` and `KEY=A,B,C` ask for them."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastcv import catalogue
from fastcv.recipe import flat, override
from fastcv.recipe.bounds import LARGEST, shown
from fastcv.recipe.values import Recipe

VARIANT = "variant"  # chooses among a file's variants, as if it were a setting
DIGITS = 4  # of a number that is drawn: more would only make a command long
FORMS = "KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=A,B,C"
_RANGE = re.compile(r"\s*([^,()'\"]*?)\s*\.\.\s*([^,()'\"/]*)")
_WHOLE = re.compile(r"[+-]?\d+")


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Args:
        key: the setting, as for `override`.
        low: the least number.
        high: the largest.
        log: whether to draw from the logarithms of the numbers.
        whole: whether to draw whole numbers alone.
    """

    key: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def text(self, value: float) -> str:
        """Write a number that was drawn, with few digits."""
        if self.whole:
            return str(int(value))
        rounded = float(f"{value:.{DIGITS}g}")
        return repr(min(max(rounded, self.low), self.high))

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to try out before the first trial."""
        return self.text(self.low), self.text(self.high)

    def __str__(self) -> str:
        return f"{self.key}={self.ends[0]}..{self.ends[1]}{':log' if self.log else ''}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Some values of a setting, as they are written for `override`."""

    key: str
    options: tuple[str, ...]

    def text(self, value: str) -> str:
        """Write a value that was drawn."""
        return value

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to try out before the first trial."""
        return self.options

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.options)}"


Part = Range | Choice


def parse(text: str) -> Part:
    """Read `KEY=LOW..HIGH`, `KEY=LOW..HIGH:log` or `KEY=A,B,C`.

    Raises:
        ValueError: it is none of these.
    """
    key, equals, values = text.partition("=")
    key, values = key.strip(), values.strip()
    if not equals or not key or not values:
        raise ValueError(f"what a sweep searches must read {FORMS}, got {shown(text)}")
    if found := _RANGE.fullmatch(values):
        return _range(key, found[1], found[2])
    options = _split(values, key)
    if len(options) < 2:
        raise ValueError(
            f"{key} must have two or more values to choose from, got {shown(values)}: write "
            f"{FORMS}, or fix it with --set {key}={values}"
        )
    if "" in options or len(set(options)) < len(options):
        raise ValueError(f"the values of {key} must be there and differ, got {shown(values)}")
    return Choice(key=key, options=options)


def _range(key: str, low: str, rest: str) -> Range:
    high, colon, scale = rest.partition(":")
    high, scale = high.strip(), scale.strip()
    if colon and scale != "log":
        raise ValueError(f"the range of {key} may end in :log alone, got {shown(f':{scale}')}")
    try:
        ends = float(low), float(high)
    except ValueError as error:
        raise ValueError(
            f"the range of {key} must lie between two numbers, got {shown(f'{low}..{high}')}"
        ) from error
    if not all(map(math.isfinite, ends)) or max(map(abs, ends)) > LARGEST:
        raise ValueError(
            f"the range of {key} must be finite and within 64 bits, got {shown(f'{low}..{high}')}"
        )
    if ends[0] >= ends[1]:
        raise ValueError(f"the range of {key} must begin below its end, got {low}..{high}")
    if colon and ends[0] <= 0:
        raise ValueError(f"the range of {key} must begin above 0 for :log, got {low}..{high}")
    whole = all(_WHOLE.fullmatch(each) for each in (low, high))
    return Range(key=key, low=ends[0], high=ends[1], log=bool(colon), whole=whole)


def _split(text: str, key: str) -> tuple[str, ...]:
    """Split at the commas that stand in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and not depth:
            parts.append("")
            continue
        parts[-1] += letter
    if depth or quote:
        raise ValueError(f"the brackets and quotes of {key} must close, got {shown(text)}")
    return tuple(part.strip() for part in parts)


def parse_all(texts: Sequence[str]) -> tuple[Part, ...]:
    """Read all that a sweep searches.

    Raises:
        ValueError: as `parse`; there is nothing, or a setting twice.
    """
    parts = tuple(map(parse, texts))
    if not parts:
        raise ValueError(f"a sweep must have something to search: add {FORMS}")
    keys = [part.key for part in parts]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ValueError(f"a sweep must search each setting once, got {twice} twice")
    if any(part.key == VARIANT and isinstance(part, Range) for part in parts):
        raise ValueError(f"{VARIANT} must be names of variants: {VARIANT}=A,B,C")
    return parts


@dataclass(frozen=True, kw_only=True)
class Space:
    """All that a sweep searches, of a recipe with some settings fixed.

    Args:
        reference: "NAME", "NAME/VARIANT", or the path of a recipe file, with "/VARIANT" or without.
        settings: "key=value" as for `override`, the same for all trials.
        parts: what differs between trials.
    """

    reference: str
    settings: tuple[str, ...]
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, reference: str, settings: Sequence[str], texts: Sequence[str]) -> "Space":
        """Read what a sweep searches, and try every choice and both ends of every range.

        Raises:
            ValueError: as `parse_all`, or a value does not fit the recipe.
        """
        space = cls(reference=reference, settings=tuple(settings), parts=parse_all(texts))
        names = [part.options for part in space.parts if part.key == VARIANT]
        if names and catalogue.split(reference)[1]:
            raise ValueError(
                f"{VARIANT}= chooses the variant, got {reference!r} too: leave the variant out"
            )
        checked = []
        for part in space.parts:
            for name in names[0] if names else ("",):
                with_variant = {VARIANT: name} if name else {}
                for text in part.ends:
                    recipe = space.recipe(with_variant | {part.key: text})
            if isinstance(part, Range):
                # "0..1" is of whole numbers where the setting is.
                whole = part.whole and type(flat(recipe).get(part.key)) is int
                part = Range(**vars(part) | {"whole": whole})
                if type(flat(recipe).get(part.key)) not in (int, float):
                    raise ValueError(f"{part.key} must be a number to have a range")
            checked.append(part)
        return cls(reference=reference, settings=tuple(settings), parts=tuple(checked))

    def recipe(self, texts: Mapping[str, str]) -> Recipe:
        """Build the recipe of a trial, from the text of each part that is not the recipe's own.

        Raises:
            ValueError: no such recipe, or a value does not fit it.
        """
        recipe = catalogue.get_recipe(self.reference_of(texts))
        return override(recipe, *self.settings_of(texts))

    def reference_of(self, texts: Mapping[str, str]) -> str:
        """Return the reference of a trial's recipe."""
        name = texts.get(VARIANT)
        return f"{self.reference}/{name}" if name else self.reference

    def settings_of(self, texts: Mapping[str, str]) -> tuple[str, ...]:
        """Return the settings that make the recipe of `reference_of` that of a trial."""
        own = (f"{key}={text}" for key, text in texts.items() if key != VARIANT)
        return (*self.settings, *own)

    def grid(self) -> list[dict[str, str]]:
        """List every combination, the last part changing fastest.

        Raises:
            ValueError: a part is a range.
        """
        for part in self.parts:
            if isinstance(part, Range):
                raise ValueError(
                    f"--grid needs values to choose from, {part.key} has a range: write "
                    f"{part.key}=A,B,C"
                )
        keys = [part.key for part in self.parts]
        options = itertools.product(*(part.options for part in self.parts))
        return [dict(zip(keys, each, strict=True)) for each in options]

    @property
    def combinations(self) -> int | None:
        """How many combinations there are; None: a range has no end of them."""
        if any(isinstance(part, Range) for part in self.parts):
            return None
        return math.prod(len(part.options) for part in self.parts)
