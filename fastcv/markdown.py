"""Markdown in which foreign text stays text: on one line, with no marks of its own."""

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Set rows of cells, which are Markdown themselves, as a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escaped(text: str) -> str:
    """Set a text on one line, so that Markdown and HTML take nothing in it for their own."""
    # As entities, because a table reads a backslash before a bar otherwise than a paragraph.
    return " ".join(text.split()).translate(_ENTITIES)


def code(text: str) -> str:
    """Set a text as code, in a table as anywhere."""
    if not text or set(text) & _ENDS_CODE:
        return f"<code>{escaped(text)}</code>"
    return f"`{text}`"


_ENTITIES = {ord("&"): "&amp;", ord("<"): "&lt;"} | {
    ord(each): f"&#{ord(each)};" for each in "|`\\[]*"
}
_ENDS_CODE = {*"<|`\\\n\r"}  # the first not in Markdown, but a README's marks are comments of HTML
