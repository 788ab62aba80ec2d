"""Images that a table lists: a CSV file, or a pandas DataFrame."""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastcv.data.samples import Parts, Sample, Samples, labeled
from fastcv.data.sources.folders import SPLIT_FOLDERS
from fastcv.data.splits import check_holdout, hold_out
from fastcv.recipe.bounds import check_whole, unless_none
from fastcv.suggest import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """Your own images, listed in a CSV file: a row for each, with its path and its label.

        Table("photos/labels.csv", image="file", label="species", group="animal")

    Everything is read as text: labels may be numbers, and `1.0` is the class `1`, as programs that
    fill gaps in a column write it. The delimiter may be a comma, semicolon, tab or bar. Without
    validation rows, validation images are held out of the training ones, stratified and seeded.

    Args:
        path: the CSV file, in UTF-8; the path of a call comes first. A pandas DataFrame will do to
            try things out, but a run can only be saved if its recipe names a file.
        image: the column of the images' paths, below `root`.
        label: the column of the labels.
        sep: what stands between several labels of one image, as " " or ";"; an empty cell then says
            that an image has none. They are trained with `BinaryCrossEntropy`. None: the whole cell
            is the one label.
        split: the column of the parts: train or training; valid, val or validation; test or
            testing. None if there is none: all rows are training images.
        group: the column of groups, for example of the patient or the animal, whose images are
            never split between parts; an empty cell is an image on its own. None for no groups.
        root: the folder that the paths start from, and that all images must lie in; the CSV file's
            own if None, and the current one for a DataFrame.
        suffix: appended to each path, as ".jpg" to names without one.
        valid: what to hold out if no row validates: a float is a fraction (0-1) of each class, an
            integer a number of images of each class; 0 holds out none. With groups, a fraction.
        seed: decides which images are held out.
        valid_most: largest number of images to hold out in all, in the classes' proportion, though
            at least one of each class; the others train. None for no limit.
    """

    path: "str | Path | pd.DataFrame | None" = None
    _: KW_ONLY
    image: str = "image"
    label: str = "label"
    split: str | None = None
    group: str | None = None
    root: str | Path | None = None
    suffix: str = ""
    valid: int | float = 0.2
    seed: int = 42
    valid_most: int | None = None
    sep: str | None = None

    def __post_init__(self):
        check_holdout("valid", self.valid)
        check_whole("seed", self.seed)
        unless_none(check_whole, "valid_most", self.valid_most, least=1)
        if self.sep is not None and not (isinstance(self.sep, str) and self.sep):
            raise ValueError(f"sep must be text between labels, such as ' ', got {self.sep!r}")

    def __call__(self, path: Path | None = None) -> Samples:
        """List the images of the table in `path`, or of this value's own if it is None.

        Raises:
            ValueError: there is no table or it lacks a column, an image is missing, listed twice or
                outside of `root`, a label is empty, or a group is in several parts.
        """
        chosen = self.path if path is None else path
        if chosen is None:
            raise ValueError(
                "a Table must have a CSV file, got path=None: pass --data FILE, or use "
                "Table(path=...)"
            )
        asked = [each for each in (self.image, self.label, self.split, self.group) if each]
        if isinstance(chosen, str | Path):
            file = Path(chosen).expanduser()
            name, folder, rows = f"'{file}'", file.parent, _csv_rows(file, asked)
        else:
            name, folder, rows = "the DataFrame", Path(), _frame_rows(chosen, asked)
        root = folder if self.root is None else Path(self.root).expanduser()
        # Absolute, so that a run can be resumed from another folder.
        root = Path(os.path.abspath(root))
        listed = list(self._listed(rows, name, root))
        _refuse_doubles(listed, name)
        _refuse_split_groups(listed, name)
        parts: Parts = ([], [], [])
        for each in listed:
            parts[each.part].append(each.sample)
        groups = {each.sample.image: each.group for each in listed if each.group}
        samples = labeled(parts, root)._replace(groups=groups)
        return hold_out(samples, self.valid, self.seed, self.valid_most)

    def _listed(self, rows: "Iterable[_Row]", name: str, root: Path) -> "Iterator[_Listed]":
        """Turn rows into samples, and check each.

        Raises:
            ValueError: a cell is empty or names no part, or an image is missing or out of bounds.
        """
        inside = _Inside(root)
        missing: list[tuple[str, str]] = []
        for row in rows:
            needed = (self.image, self.split) if self.sep else (self.image, self.label, self.split)
            for column in filter(None, needed):
                if not row.cells[column]:
                    raise ValueError(
                        f"every image must have a value in column '{column}', but {row.place} of "
                        f"{name} has none: fill it in, or remove the row"
                    )
            path = f"{row.cells[self.image]}{self.suffix}"
            file = inside(path, f"{row.place} of {name}")
            if file is None:
                missing.append((path, row.place))
                continue
            part = 0
            if self.split:
                part = _part(row.cells[self.split], f"{row.place} of {name}")
            group = row.cells[self.group] if self.group else ""
            yield _Listed(Sample(file, self._label(row.cells[self.label])), group, part, row.place)
        if missing:
            path, place = missing[0]
            more = f", nor are {len(missing) - 1:,} others" if len(missing) > 1 else ""
            raise ValueError(
                f"every image of {name} must lie in '{root}', but '{path}' ({place}) is not there"
                f"{more}: add what is missing, or set root= or suffix= to match the table"
            )

    def _label(self, cell: str) -> str | tuple[str, ...]:
        if self.sep is None:
            return _as_class(cell)
        return tuple(sorted({_as_class(each.strip()) for each in cell.split(self.sep)} - {""}))


class _Row(NamedTuple):
    """One row of a table, as text."""

    cells: Mapping[str, str]
    place: str  # in sentences


class _Listed(NamedTuple):
    """An image of a table."""

    sample: Sample
    group: str  # empty for an image on its own
    part: int  # 0 for train, 1 for valid, 2 for test
    place: str


def _csv_rows(file: Path, asked: Sequence[str]) -> Iterator[_Row]:
    """Read a CSV file row by row; each place is a line of the file.

    Raises:
        ValueError: there is no such file, it is not UTF-8, or its rows and columns do not fit.
    """
    if not file.is_file():
        what = "is a folder" if file.exists() else "does not exist"
        raise ValueError(f"a table must be a CSV file, but '{file}' {what}: pass another path")
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            first = opened.readline()
            delimiter = _delimiter(first, asked)
            opened.seek(0)
            reader = csv.reader(opened, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_columns(header, asked, f"'{file}'")
            start = reader.line_num + 1
            for cells in reader:
                place, start = f"line {start}", reader.line_num + 1
                if not any(map(str.strip, cells)):  # an empty line
                    continue
                if len(cells) != len(header):
                    raise ValueError(
                        f"every row must have {len(header)} columns, but {place} of '{file}' has "
                        f"{len(cells)}: put text that holds a delimiter in quotes"
                    )
                yield _Row(dict(zip(header, map(str.strip, cells), strict=True)), place)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"a table must be a CSV file in UTF-8, but '{file}' is not: {error}: save it again"
        ) from error


def _delimiter(header: str, asked: Sequence[str]) -> str:
    """Choose the delimiter that gives a header the columns asked for, or else most columns."""

    def fit(delimiter: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        return sum(name in names for name in asked), len(names)

    return max(DELIMITERS, key=fit)


def _frame_rows(frame: "pd.DataFrame", asked: Sequence[str]) -> Iterator[_Row]:
    """Read a DataFrame row by row; each place is a label of its index.

    Raises:
        ValueError: it is no DataFrame, or lacks a column.
    """
    if not hasattr(frame, "columns"):
        raise ValueError(
            f"a Table must be a CSV file or a pandas DataFrame, got {type(frame).__name__}: pass "
            "a path"
        )
    _check_columns(list(map(str, frame.columns)), asked, "the DataFrame")
    chosen = frame.rename(columns=str)[list(dict.fromkeys(asked))]
    empty = chosen.isna().to_numpy()
    for place, cells, gaps in zip(chosen.index, chosen.itertuples(index=False), empty, strict=True):
        texts = ("" if gap else str(cell).strip() for cell, gap in zip(cells, gaps, strict=True))
        yield _Row(dict(zip(chosen.columns, texts, strict=True)), f"row {place}")


def _check_columns(header: Sequence[str], asked: Sequence[str], name: str) -> None:
    for column in asked:
        if column not in header:
            raise ValueError(
                f"no column of {name} is called '{column}'.{did_you_mean(column, header)}"
            )
        if header.count(column) > 1:
            raise ValueError(
                f"the columns of {name} must have different names, but several are called "
                f"'{column}': rename them"
            )


def _as_class(text: str) -> str:
    """Return the name of a class: numbers without a fraction have one spelling."""
    return text.partition(".")[0] if re.fullmatch(r"-?\d+\.0+", text) else text


def _part(text: str, place: str) -> int:
    names = {name: part for part, each in enumerate(SPLIT_FOLDERS.values()) for name in each}
    try:
        return names[text.lower()]
    except KeyError:
        raise ValueError(
            f"a split must be train, valid or test, got '{text}' in {place}."
            f"{did_you_mean(text, list(names))}"
        ) from None


class _Inside:
    """Finds files below a folder, and refuses those that lie elsewhere, also by links."""

    def __init__(self, root: Path):
        if not root.is_dir():
            raise ValueError(f"images must lie in a folder, but '{root}' is none: set root=")
        self.root = root
        self._real = cache(os.path.realpath)  # of folders: most images share theirs
        self._end = os.path.join(self._real(root), "")

    def __call__(self, path: str, place: str) -> Path | None:
        """Return the file at a path below the folder; None if there is none.

        Raises:
            ValueError: the path leads out of the folder.
        """
        file = self.root / path
        if ".." in file.parts:
            raise ValueError(
                f"an image must be named without '..', but {place} has '{path}': set root= to the "
                "folder that holds all images"
            )
        folder, name = os.path.split(file)
        real = os.path.join(self._real(folder), name)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not real.startswith(self._end):
            raise ValueError(
                f"every image must lie in '{self.root}', but {place} has '{path}', which is "
                f"'{real}': set root= to the folder that holds all images"
            )
        return file if os.path.isfile(real) else None


def _refuse_doubles(listed: Sequence[_Listed], name: str) -> None:
    places: dict[Path, str] = {}
    for each in listed:
        before = places.setdefault(each.sample.image, each.place)
        if before is not each.place:
            raise ValueError(
                f"every image must be listed once, but {name} has '{each.sample.image}' in "
                f"{before} and {each.place}: remove one"
            )


def _refuse_split_groups(listed: Sequence[_Listed], name: str) -> None:
    first: dict[str, _Listed] = {}
    parts = list(SPLIT_FOLDERS)
    for each in listed:
        if not each.group:
            continue
        before = first.setdefault(each.group, each)
        if before.part != each.part:
            raise ValueError(
                f"images of one group must be in one part, but {name} has group "
                f"'{each.group}' in {parts[before.part]} ({before.place}) and "
                f"{parts[each.part]} ({each.place}): move them to one"
            )
