"""What the site generates while it is built: a hook of mkdocs.

The pages are written for two readers: the site, and a code host that shows the files as they lie.
"""

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# Files of the root that are pages of the site too.
ROOT_PAGES = {"CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
LINK = re.compile(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie in the root."""
    from mkdocs.structure.files import File

    for name in sorted(ROOT_PAGES):
        if (ROOT / name).exists():
            text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
            files.append(File.generated(config, name.lower(), content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Complete a page: links."""
    return inside(markdown, page.file.src_uri)


def inside(markdown: str, uri: str) -> str:
    """Point links that leave docs/ to the page of the site, or leave their text alone."""
    folder = (ROOT / "docs" / uri).parent

    def linked(found: re.Match) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        place = os.path.relpath(os.path.normpath(folder / target), ROOT)
        if place in ROOT_PAGES:
            there = os.path.relpath(ROOT / "docs" / place.lower(), folder)
            return f"[{text}]({there}{anchor})"
        return found[0] if place.startswith("docs/") else text

    return LINK.sub(linked, markdown)
