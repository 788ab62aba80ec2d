"""How well each of several labels an image is found."""

from matplotlib.figure import Figure

from fastcv.interpret.predicted import Predictions, readable, shortened
from fastcv.interpret.style import BLUE, LABEL, SMALL, blank, dress, percent
from fastcv.predict.evaluation import average_precision, per_class

MOST = 40  # labels; of more, the ones that are found worst


def average_precisions(
    predictions: Predictions, *, title: str = "Average precision", smoke: bool = False
) -> Figure:
    """Draw the average precision of each label as a bar, the worst first, with its images.

    Labels that no image has are left out. The mean over all labels follows the title.
    """
    rows = [
        (row["average_precision"], name, row["support"])
        for row, name in zip(per_class(predictions), readable(predictions.classes), strict=True)
        if row["average_precision"] is not None
    ]
    shown = sorted(rows)[:MOST]
    few = f", the {MOST} lowest of {len(rows)} labels" if len(rows) > MOST else ""
    mean = percent(average_precision(predictions), 1)
    height = 1.4 + 0.24 * len(shown)
    figure = blank(f"{title}: mean {mean}{few}", height=height, width=7.4, smoke=smoke)
    axes = figure.subplots()
    places = range(len(shown))
    axes.barh(places, [value for value, _, _ in shown], color=BLUE, height=0.7)
    axes.set_yticks(
        places,
        [f"{shortened(name, 30)} ({support:,})" for _, name, support in shown],
        fontsize=SMALL,
        parse_math=False,
    )
    for place, (value, _, _) in enumerate(shown):
        axes.text(min(value + 0.01, 1.01), place, percent(value, 1), va="center", fontsize=SMALL)
    dress(axes, x="average precision", y="")
    axes.set_ylabel("label (images)", fontsize=LABEL)
    axes.set_xlim(0, 1.1)
    axes.invert_yaxis()
    return figure
