"""The nearest known name, for the end of an error's sentence."""

import difflib
from collections.abc import Collection


def did_you_mean(name: str, known: Collection[str], *, cutoff: float = 0.5) -> str:
    """Return " Did you mean 'NAME'?", or else the list of known names, to append to a sentence.

    Letter case does not count. `cutoff` is difflib's similarity, 0-1, that a suggestion must have;
    0 always suggests one.
    """
    by_lower = {each.lower(): each for each in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    if nearest:
        return f" Did you mean {by_lower[nearest[0]]!r}?"
    return f" There are: {', '.join(known)}." if known else " There are none."
