"""The report: reported numbers beside measured ones, for every experiment.

experiments = gather(["runs"])    # every experiment with its results
print(as_text(experiments))
write(experiments, "report")      # report.md with its figures, and report.html in one file
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from fastcv import files
from fastcv.experiment.comparison import Experiment, Result, Unfinished
from fastcv.experiment.sweep import Sweep
from fastcv.report import html, markdown
from fastcv.report.document import compose
from fastcv.report.gather import gather
from fastcv.report.tables import as_text

__all__ = ["Experiment", "Result", "Unfinished", "as_text", "gather", "write"]


def write(
    experiments: Sequence[Experiment],
    out: str | Path,
    warnings: Sequence[str] = (),
    warn: Callable[[str], None] = lambda line: None,
    sweeps: Sequence[Sweep] = (),
) -> list[Path]:
    """Write the report as Markdown and as one HTML page, and return both files.

    Args:
        experiments: as `gather` returns them.
        out: folder for report.md, report.html and figures/.
        warnings: lines about what could not be read, to end the report with.
        warn: takes a line for every picture that cannot be read.
        sweeps: as `fastcv.report.sweeps.gather` returns them.

    Raises:
        ValueError: the folder is a file, or cannot be written to.
    """
    out = Path(out)
    files.make_folder(out, "a report")
    document = compose(experiments, out / "figures", warnings, warn, sweeps)
    return [markdown.write(document, out), html.write(document, out)]
