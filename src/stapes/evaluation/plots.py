"""Plots of an evaluation as inline SVG, by matplotlib.

They have no colours of their own but names of the page's, so that a light and a dark page can show them; text stays text.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, cast

from stapes.evaluation.evaluate import Prediction
from stapes.evaluation.word_errors import DurationBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES = 6.4
BAR_INCHES = 0.34
# Colours that matplotlib is given, and what stands in their place in the page.
TEXT, FAINT, ACCENT, WARNING = "#010101", "#020202", "#030303", "#040404"
_NAMES = {TEXT: "currentColor", FAINT: "var(--faint)", ACCENT: "var(--accent)", WARNING: "var(--warning)"}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": TEXT,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "legend.frameon": False,
}


def bars(name: str, alt: str, lengths: Mapping[str, float], notes: Mapping[str, str], label: str, limit: float = 0.0) -> str:
    """Horizontal bars, the first on top.

    Args:
        name: of the plot, unique within its page.
        alt: what it shows, for those who cannot see it.
        lengths: of each bar, by what stands to its left.
        notes: what stands at the end of each.
        label: of the axis.
        limit: where the axis ends at least.
    """

    def draw(axes: Axes) -> None:
        names, values = list(lengths), list(lengths.values())
        end = max(limit, *values, 1e-9)
        axes.barh(names, values, color=ACCENT, height=0.62)
        for position, key in enumerate(names):
            axes.text(values[position] + end * 0.012, position, notes[key], va="center")
        axes.set(xlim=(0, end * 1.2), xlabel=label)
        axes.set_xticks([tick for tick in axes.get_xticks() if tick <= end])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)

    return _svg(name, alt, draw, BAR_INCHES * len(lengths) + 0.7)


def confusion(name: str, alt: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    """A heat map, references down, answers across, each row shaded by its shares; "none" only where an answer is no label."""

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        rows = {label: row for label, row in counts.items() if sum(row.values())}
        every = next(iter(counts.values()))
        answers = [answer for answer in every if answer in counts or any(row[answer] for row in rows.values())]
        for down, row in enumerate(rows.values()):
            for across, answer in enumerate(answers):
                share = row[answer] / sum(row.values())
                shade = 0.04 + 0.6 * share
                axes.add_patch(Rectangle((across - 0.48, down - 0.46), 0.96, 0.92, color=ACCENT, alpha=shade, lw=0))
                axes.text(across, down, f"{row[answer]}\n{100 * share:.0f} %", ha="center", va="center", linespacing=1.3)
        axes.set(xlim=(-0.5, len(answers) - 0.5), ylim=(len(rows) - 0.5, -0.5), xlabel="answer", ylabel="reference")
        axes.set_xticks(range(len(answers)), answers)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    return _svg(name, alt, draw, 2.9)


def lengths(name: str, alt: str, predictions: Sequence[Prediction]) -> str:
    """Words of each hypothesis against those of its reference; the area of a point is the number of utterances there."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        points: dict[bool, Counter[tuple[int, int]]] = {False: Counter(), True: Counter()}
        for found in predictions:
            said = found.counts.reference_words
            points[found.capped][said, said + found.counts.insertions - found.counts.deletions] += 1
        end = 1.05 * max([1, *(max(point) for each in points.values() for point in each)])
        axes.plot([0, end], [0, end], color=FAINT, lw=1, zorder=1)
        for capped, colour, label in ((False, ACCENT, "utterances"), (True, WARNING, "cut off by the cap on tokens")):
            if points[capped]:
                across, up = zip(*points[capped], strict=True)
                areas = [14 * count for count in points[capped].values()]
                axes.scatter(across, up, s=areas, color=colour, alpha=0.55, lw=0, label=label, zorder=2)
        axes.set(xlim=(0, end), ylim=(0, end), xlabel="words in the reference", ylabel="words in the hypothesis")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if points[True]:
            axes.legend(loc="upper left")

    return _svg(name, alt, draw, 3.6)


def by_duration(name: str, alt: str, bins: Sequence[DurationBin]) -> str:
    """Word error rate of each bin with its interval, and how many utterances it is of."""

    def draw(axes: Axes) -> None:
        labels, rates = [f"{each.label}\nn = {each.utterances}" for each in bins], [each.wer for each in bins]
        axes.bar(labels, rates, color=ACCENT, width=0.6)
        for position, each in enumerate(bins):
            if each.utterances > 1:  # one alone has no spread
                axes.plot([position] * 2, each.interval, color=TEXT, lw=1, marker="_", ms=6)
        axes.set(ylabel="WER, %", xlim=(-0.6, max(4, len(bins)) - 0.4))
        axes.tick_params(axis="x", length=0)

    return _svg(name, alt, draw, 2.9)


def _svg(name: str, alt: str, draw: Any, height_inches: float) -> str:
    """Draw on a figure, and make of it an element for a page."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(cast(Any, _STYLE | {"svg.hashsalt": name})):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(written.getvalue(), name, alt)


def _inline(svg: str, name: str, alt: str) -> str:
    """Without the frame of a file, with the page's colours and letters, and with names that no other plot has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'url\(#|href="#', lambda match: f"{match[0]}{name}-", svg)
    for colour, in_page in _NAMES.items():
        svg = svg.replace(colour, in_page)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None, "matplotlib writes one"
    opening = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} role="img" aria-label="{escape(alt)}">'
    return f'<div class="wide">{opening}{svg[svg.index(">") + 1 :].strip()}</div>'
