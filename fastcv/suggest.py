"""The nearest known name, for the end of an error's sentence."""

import difflib
from collections.abc import Collection

CUTOFF = 0.5  # of difflib's similarity, 0-1


def did_you_mean(name: str, known: Collection[str], *, cutoff: float = CUTOFF) -> str:
    """Return " Did you mean 'NAME'?", or else the list of known names, to append to a sentence.

    Letter case does not count.

    Args:
        name: the name that is not known.
        known: the names that are.
        cutoff: least similarity of a suggestion, 0-1; 0 always suggests one.
    """
    by_lower = {each.lower(): each for each in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    if nearest:
        return f" Did you mean {by_lower[nearest[0]]!r}?"
    return f" There are: {', '.join(known)}." if known else " There are none."
