"""What is in a folder of images, in words and as one page: `fastcv data PATH`."""

import json
import webbrowser
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from textwrap import wrap

from PIL import Image

from fastcv import files
from fastcv.data.decoding import read_image
from fastcv.data.inspection import LONG, Copies, Inspected, Inspection, inspect, printable
from fastcv.interpret.explained import Row, Tile
from fastcv.interpret.predicted import shortened
from fastcv.interpret.style import BLUE, blank, dress, save
from fastcv.report.pages import Section, render, thumbnail
from fastcv.terminal import aligned

NAME = "data.html"
COLUMNS = 80  # characters of the text
BAR, LABEL = 36, 28  # characters of a class's bar and of its name
MOST_BARS = 40  # classes in the text; of more, the ends
MOST_LINES = 6  # groups or files named in the text
MOST_GROUPS, PER_GROUP = 60, 6  # on the page
MOST_FAULTS, MOST_ODD = 200, 12
SIDE, SHEET_SIDE = 160, 72  # pixels of thumbnails
PER_CLASS, MOST_ON_SHEET = 6, 1_200


def inspect_folder(
    path: Path,
    *,
    out: Path | None = None,
    as_json: bool = False,
    show: bool = False,
    write: Callable[[str], None] = print,
    tell: Callable[[str], None] = print,
) -> Inspection:
    """Inspect a folder of images, print what is in it, and write data.html.

    Args:
        path: the folder.
        out: folder of the page; None takes "inspection/NAME".
        as_json: write one JSON object instead of text.
        show: open the page in a browser.
        write: takes the text or the JSON.
        tell: takes the line that names the page.

    Raises:
        ValueError: the folder cannot be inspected, or the page cannot be written.
    """
    found = inspect(path)
    out = Path("inspection", found.root.resolve().name) if out is None else out
    if as_json:
        write(json.dumps(found.as_json()))
    else:
        write("\n".join(lines(found)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        page = write_page(found, out)
    except OSError as error:
        raise ValueError(
            f"a page must go into a folder that can be written to, {str(out)!r} cannot be: "
            f"{error.strerror}"
        ) from error
    tell(printable(str(page)))
    if show:
        webbrowser.open(page.resolve().as_uri())
    return found


def lines(found: Inspection) -> list[str]:
    """Return an inspection in words, in lines of at most 80 characters."""
    rows = [("split", "images", "classes", "fewest", "median", "most", "most / fewest")]
    for split in found.splits:
        numbers = [each[split] for each in found.counts.values() if each[split]]
        counted = (sum(numbers), len(numbers), min(numbers), median(numbers), max(numbers))
        rows.append(
            (split or "all", *(f"{each:,.0f}" for each in counted), f"{found.imbalance(split):.1f}")
        )
    text = [_summary(found), "", *aligned(rows), "", *_bars(found), ""]
    text += [line for each in _pixels(found) for line in wrap(each, COLUMNS)]
    said = findings(found)
    text.append("")
    if not said:
        return [*text, "No findings: all files can be read, and no two pictures are alike."]
    for finding in said:
        text += wrap(finding, COLUMNS, initial_indent="- ", subsequent_indent="  ")
    text += _listing("unreadable", [f"{_shown(file)}: {file.fault}" for file in found.unreadable])
    for title, copies in (("equal images", found.equal), ("similar images", found.alike)):
        text += _listing(title, [" = ".join(map(_shown, each.files[:4])) for each in copies])
    return text


def findings(found: Inspection) -> list[str]:
    """Return a sentence for everything that one should know before training, the worst first."""
    said = [printable(each[0].upper() + each[1:]) + "." for each in found.obstacles]
    if found.unreadable:
        said.append(
            f"{_count(found.unreadable, 'file')} cannot be read: training stops there, unless "
            "--skip-bad leaves them out."
        )
    said += _said_of_copies(found.equal, "equal", sure=True)
    said += _said_of_copies(found.alike, "similar", sure=False)
    if not found.alike_complete:
        said.append(
            "So many pictures are alike by nature that only the most similar were compared: look "
            "at the similar images before you trust them."
        )
    for split in found.splits:
        if (ratio := found.imbalance(split)) >= 2:
            among = f" of {split}" if split else ""
            said.append(
                f"The largest class{among} has {ratio:.1f} times as many images as the smallest."
            )
    if found.turned:
        said.append(
            f"{_count(found.turned, 'image')} must be turned (EXIF orientation): "
            "Images(upright=True) does it."
        )
    if found.one_color:
        said.append(f"{_count(found.one_color, 'image')} of one color.")
    if found.long:
        said.append(
            f"{_count(found.long, 'image')} at least {LONG:.0f} times as long as wide: the center "
            "square shows little of them."
        )
    if found.tiny:
        said.append(
            f"{_count(found.tiny, 'image')} much smaller than the others: their shorter side is "
            "below a quarter of the median."
        )
    if found.others:
        kinds = ", ".join(f"{number:,} {printable(kind)}" for kind, number in found.others.items())
        said.append(f"Files that are not images fastcv reads were left out: {kinds}.")
    return said


def write_page(found: Inspection, folder: Path) -> Path:
    """Write an inspection as data.html, and the chart of sizes beside it; return the page."""
    sizes = None
    if len({(file.width, file.height) for file in found.readable}) > 1:
        sizes = folder / "sizes.png"
        _draw_sizes(found, sizes)
    most = max(sum(each.values()) for each in found.counts.values())
    text = render(
        "data.html.j2",
        name=printable(found.root.resolve().name),
        summary=_summary(found),
        facts=_facts(found),
        findings=findings(found),
        splits=found.splits,
        bars=[
            {
                "name": _label(label),
                "count": sum(counts.values()),
                "shares": [(split, number / most) for split, number in counts.items()],
            }
            for label, counts in _by_size(found)
        ],
        pixels=_pixels(found),
        sizes=sizes,
        sections=list(_sections(found)),
    )
    page = folder / NAME
    files.write_text(page, text)
    return page


def _summary(found: Inspection) -> str:
    where = shortened(printable(str(found.root)), COLUMNS - 44)
    return (
        f"{where}: {_count(found.files, 'image')} in {_count(found.classes, 'class', 'classes')}, "
        f"{files.amount(found.size)}"
    )


def _facts(found: Inspection) -> list[tuple[str, str]]:
    copies = (*found.equal, *found.alike)
    return [
        ("images", f"{len(found.files):,}"),
        ("classes", f"{len(found.classes):,}"),
        ("largest class / smallest", f"{max(map(found.imbalance, found.splits)):.1f}"),
        ("unreadable", f"{len(found.unreadable):,}"),
        ("equal groups", f"{len(found.equal):,}"),
        ("similar groups", f"{len(found.alike):,}"),
        ("leaks across splits", f"{sum(len(each.splits) > 1 for each in copies):,}"),
        ("under several classes", f"{sum(len(each.labels) > 1 for each in copies):,}"),
    ]


def _count(found: Sequence[object], what: str, several: str | None = None) -> str:
    return f"{len(found):,} {what if len(found) == 1 else several or what + 's'}"


def _label(label: str) -> str:
    return printable(label) or "(no class folder)"


def _shown(file: Inspected) -> str:
    return printable(file.path)


def _by_size(found: Inspection) -> list[tuple[str, dict[str, int]]]:
    """Return the classes with their counts, the largest first, then by name."""
    return sorted(found.counts.items(), key=lambda each: (-sum(each[1].values()), each[0]))


def _bars(found: Inspection) -> list[str]:
    totals = [(_label(label), sum(counts.values())) for label, counts in _by_size(found)]
    most = totals[0][1]
    if most == totals[-1][1]:
        return [f"Every class has {_count(range(most), 'image')}."]
    width = min(LABEL, max(len(name) for name, _ in totals))
    rows = [
        f"{shortened(name, LABEL):{width}}  {'█' * max(1, round(BAR * number / most)):{BAR}}  "
        f"{number:>6,}"
        for name, number in totals
    ]
    if len(rows) > MOST_BARS:
        end = MOST_BARS // 4
        middle = f"... {len(rows) - 2 * end:,} classes between these; the page shows all"
        rows = [*rows[:end], middle, *rows[-end:]]
    return rows


def _pixels(found: Inspection) -> list[str]:
    """Describe sizes, modes and formats."""
    if not found.readable:
        return ["No image can be read."]
    said = []
    widths, heights = ([getattr(f, name) for f in found.readable] for name in ("width", "height"))
    if min(widths) == max(widths) and min(heights) == max(heights):
        said.append(f"Size: all images are {widths[0]:,} x {heights[0]:,} pixels.")
    else:
        spans = (
            f"{name} {min(each):,} to {max(each):,}, median {median(each):,.0f}"
            for name, each in (("width", widths), ("height", heights))
        )
        said.append(f"Size in pixels: {'; '.join(spans)}.")
    for name, counts in (("Modes", found.modes), ("Formats", found.formats)):
        listed = ", ".join(f"{kind} {number:,}" for kind, number in counts.items())
        said.append(f"{name}: {listed}.")
    return said


def _said_of_copies(copies: Sequence[Copies], what: str, sure: bool) -> list[str]:
    """Count groups, and those across splits and classes; only equal images are `sure` copies."""
    if not copies:
        return []
    number = sum(len(each.files) for each in copies)
    said = f"{_count(copies, 'group')} of {what} images ({number:,} files)"
    parts = Counter(" and ".join(each.splits) for each in copies if len(each.splits) > 1)
    errors = sum(len(each.labels) > 1 for each in copies)
    details = []
    if parts:
        across = ", ".join(f"{number:,} across {which}" for which, number in parts.items())
        details.append(f"{across} ({'leaks' if sure else 'leaks, if they are copies'})")
    if errors:
        means = "label errors" if sure else "check their labels"
        details.append(f"{errors:,} under more than one class ({means})")
    return [f"{said}{': ' if details else ''}{', '.join(details)}."]


def _listing(title: str, entries: Sequence[str]) -> list[str]:
    if not entries:
        return []
    text = ["", f"{title}:"]
    for entry in entries[:MOST_LINES]:
        text += wrap(entry, COLUMNS, initial_indent="  ", subsequent_indent="    ")
    if len(entries) > MOST_LINES:
        text.append(f"  ... {len(entries) - MOST_LINES:,} more, on the page and in --json")
    return text


def _sections(found: Inspection) -> Iterable[Section]:
    if found.unreadable:
        some = found.unreadable[:MOST_FAULTS]
        listed = tuple((_shown(file), printable(str(file.fault))) for file in some)
        note = f"{_count(found.unreadable, 'file')}{_first(found.unreadable, MOST_FAULTS)}."
        yield Section("unreadable", "Unreadable files", note, faults=listed)
    yield _copies_section(
        found, found.equal, "equal", "Equal images", "Equal pixels, whatever the files hold."
    )
    yield _copies_section(
        found,
        found.alike,
        "similar",
        "Similar images",
        "Pictures that agree but for encoding, size, brightness or a slight crop. Some are copies, "
        "some only look alike: judge by eye.",
    )
    for anchor, title, note, odd in (
        ("turned", "To be turned", "Shown as stored; EXIF says to turn them.", found.turned),
        ("one_color", "Of one color", "Nothing can be learned from them.", found.one_color),
        ("long", "Long", "A center square shows little of them.", found.long),
        ("tiny", "Tiny", "Far smaller than the others.", found.tiny),
    ):
        if odd:
            note = f"{_count(odd, 'image')}{_first(odd, MOST_ODD)}. {note}"
            yield Section(anchor, title, note, (Row("", _tiles(found, odd[:MOST_ODD])),))
    yield _contact_sheet(found)


def _first(listed: Sequence[object], most: int) -> str:
    return f", the first {most} here" if len(listed) > most else ""


def _copies_section(
    found: Inspection, copies: Sequence[Copies], anchor: str, title: str, note: str
) -> Section:
    if not copies:
        return Section(anchor, title, "None were found.")
    rows = []
    for each in copies[:MOST_GROUPS]:
        marks = ["label error"] * (len(each.labels) > 1) + ["leak"] * (len(each.splits) > 1)
        if copies is found.alike:
            marks = [f"{mark}?" for mark in marks]
        heading = " and ".join(map(_label, each.labels[:4])) + ", and more" * (len(each.labels) > 4)
        if each.splits != ("",):
            heading += f" ({' and '.join(each.splits)})"
        if len(each.files) > PER_GROUP:
            heading += f", {PER_GROUP} of {len(each.files):,}"
        heading = ": ".join([*[", ".join(marks)] * bool(marks), heading])
        rows.append(Row(heading, _tiles(found, _mixed(each), bad=bool(marks))))
    note = f"{_count(copies, 'group')}{_first(copies, MOST_GROUPS)}. {note}"
    return Section(anchor, title, note, tuple(rows))


def _mixed(copies: Copies) -> list[Inspected]:
    """Choose images of a group so that every split and every class is seen before others repeat."""
    seen: Counter[tuple[str, str]] = Counter()
    ranks = []
    for file in copies.files:
        seen[file.split, file.label] += 1
        ranks.append(seen[file.split, file.label])
    order = sorted(range(len(ranks)), key=lambda place: (ranks[place], place))
    return [copies.files[place] for place in order[:PER_GROUP]]


def _tiles(found: Inspection, shown: Sequence[Inspected], bad: bool = False) -> tuple[Tile, ...]:
    tiles = []
    named = len({file.label for file in shown}) > 1  # else a heading names the class, or the path
    for file, picture in zip(shown, _thumbnails(found, shown, SIDE), strict=True):
        size = f"{file.width:,} x {file.height:,}"
        said = ", ".join([file.split, size] if file.split else [size])
        alt = f"{_shown(file)}, {_label(file.label)}"
        lines = (_label(file.label), said) if named else (said,)
        tiles.append(Tile(picture, lines, alt, _shown(file), False if bad else None))
    return tuple(tiles)


def _thumbnails(found: Inspection, shown: Iterable[Inspected], side: int) -> list[Image.Image]:
    """Decode images and shrink each to `side` pixels, in threads; a file gone since is white."""

    def shrunk(file: Inspected) -> Image.Image:
        try:
            return thumbnail(read_image(found.root / file.path), side)
        except ValueError:
            return Image.new("RGB", (side, side), "white")

    with ThreadPoolExecutor() as threads:
        return list(threads.map(shrunk, shown))


def _contact_sheet(found: Inspection) -> Section:
    """Show some images of every class, spread over its files, as one strip a class."""
    members: dict[str, list[Inspected]] = {label: [] for label in found.classes}
    for file in found.readable:
        members[file.label].append(file)
    each = min(PER_CLASS, max(1, MOST_ON_SHEET // len(members)))
    chosen = {
        label: [of[place * len(of) // min(each, len(of))] for place in range(min(each, len(of)))]
        for label, of in list(members.items())[:MOST_ON_SHEET]
        if of
    }
    pictures = iter(_thumbnails(found, (file for of in chosen.values() for file in of), SHEET_SIDE))
    strips = []
    for label, of in chosen.items():
        strip = Image.new("RGB", (len(of) * (SHEET_SIDE + 2) - 2, SHEET_SIDE), "white")
        for place in range(len(of)):
            picture = next(pictures)
            left = place * (SHEET_SIDE + 2) + (SHEET_SIDE - picture.width) // 2
            strip.paste(picture, (left, (SHEET_SIDE - picture.height) // 2))
        alt = f"{_count(of, 'image')} of {_label(label)}"
        strips.append(Tile(strip, (f"{_label(label)} ({len(members[label]):,})",), alt))
    note = "Some images of each class, spread over its files."
    return Section("sheet", "Contact sheet", note, sheet=tuple(strips))


def _draw_sizes(found: Inspection, file: Path) -> None:
    """Draw how wide and how high images are; the area of a dot grows with their number."""
    counts = Counter((file.width, file.height) for file in found.readable)
    figure = blank("Width and height of the images", height=4.2)
    axes = figure.add_subplot()
    widths, heights = zip(*counts, strict=True)
    largest = max(counts.values())
    areas = [16 + 120 * number / largest for number in counts.values()]
    axes.scatter(widths, heights, s=areas, color=BLUE, alpha=0.35, linewidths=0)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    dress(axes, x="width, pixels", y="height, pixels")
    save(figure, file)
