"""Figures: what they count, their ticks, and that they are well-formed."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from evacap_cli.report.pages.figures import Line, histogram, line_chart, stacked_bars, ticks

BAD = "<a & 'b' \">"


def test_a_histogram_counts_every_value() -> None:
    values = [0.0, 0.5, 0.5, 1.0, math.nan]
    figure = histogram(BAD, values, 0.0, 1.0)
    assert figure is not None
    assert figure.table is not None
    assert sum(int(row[2]) for row in figure.table.rows) == 4
    assert int(figure.table.rows[-1][2]) == 1  # the largest value is in the last bin
    ElementTree.fromstring(str(figure.svg))


@pytest.mark.parametrize("values", [[], [math.nan]])
def test_without_values_there_is_no_histogram(values: list[float]) -> None:
    assert histogram("nothing", values) is None


def test_one_value_has_a_histogram() -> None:
    figure = histogram("one", [3.0, 3.0])
    assert figure is not None
    assert figure.table is not None
    assert sum(int(row[2]) for row in figure.table.rows) == 2


def test_lines_stay_inside_the_figure() -> None:
    lines = [
        Line(BAD, [(0, 1, 0.5, 1.5), (1, 2, 1.5, 2.5)]),
        Line("paper", [(0, 3, math.nan, math.nan)], dashed=True),
    ]
    figure = line_chart("title", "x", "y", lines)
    assert figure is not None
    svg = ElementTree.fromstring(str(figure.svg))
    points = [pair.split(",") for e in svg.iter() for pair in e.get("points", "").split()]
    assert points
    assert all(0 <= float(x) <= 360 and 0 <= float(y) <= 200 for x, y in points)
    assert [name for name, _ in figure.legend] == [BAD, "paper"]


def test_a_huge_interval_does_not_flatten_the_lines() -> None:
    figure = line_chart("kept", "x", "y", [Line("a", [(0, 100, math.nan, math.nan), (1, 80, 0, 1e6)])])
    assert figure is not None
    assert figure.table is not None
    assert figure.table.rows[1][-1] == "1e+06"
    line = next(e for e in ElementTree.fromstring(str(figure.svg)) if e.tag == "polyline")
    (_, first), (_, second) = (map(float, pair.split(",")) for pair in line.get("points", "").split())
    assert second - first > 10  # pixels


def test_bars_have_the_length_of_their_parts() -> None:
    figure = stacked_bars("time", "s", [("a", [("x", 1.0), ("y", 3.0)]), ("b", [("x", 2.0)])])
    assert figure is not None
    svg = ElementTree.fromstring(str(figure.svg))
    widths = [float(e.get("width", 0)) for e in svg.iter("rect")]
    assert widths == [90.0, 270.0, 180.0]


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(-0.7, 0, 4) == [-0.6, -0.4, -0.2, 0]
    assert ticks(0, 1, 4, whole=True) == [0, 1]
