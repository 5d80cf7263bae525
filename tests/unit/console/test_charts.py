"""Charts: every coordinate is a number inside of the picture, and no text is markup."""

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.console import charts
from tunewarden.console.charts import Chart, Series

COORDINATES = {
    "x": charts.WIDTH, "x1": charts.WIDTH, "x2": charts.WIDTH, "cx": charts.WIDTH, "width": charts.WIDTH,
    "y": charts.HEIGHT, "y1": charts.HEIGHT, "y2": charts.HEIGHT, "cy": charts.HEIGHT, "height": charts.HEIGHT,
}  # fmt: skip
TEXT = st.text(max_size=12).filter(str.isprintable)
XS = st.lists(st.integers(0, 2**40), unique=True, max_size=40).map(sorted)


@st.composite
def series(draw: st.DrawFn) -> Series:
    xs = draw(XS)
    ys = draw(
        st.lists(
            st.one_of(st.floats(0, 10), st.floats(), st.integers(0, 2**60).map(float)),
            min_size=len(xs),
            max_size=len(xs),
        )
    )
    return Series(draw(TEXT), list(zip(map(float, xs), ys, strict=True)))


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


@given(
    st.lists(series(), min_size=1, max_size=4),
    TEXT,
    st.one_of(st.none(), st.integers(0, 2**40).map(float)),
    st.booleans(),
    st.sampled_from([charts.lines, charts.bars]),
)
def test_every_figure_is_drawn_inside_of_the_picture(
    some: list[Series], title: str, end: float | None, from_zero: bool, draw: object
) -> None:
    assert callable(draw)
    root = parsed(draw(Chart("c", title, "step", some, x_end=end, y_from_zero=from_zero)).svg)
    names = {one.tag for one in root.iter()}
    assert names <= {"svg", "title", "desc", "line", "text", "polyline", "circle", "rect"}
    for element in root.iter():
        for name, value in element.attrib.items():
            assert name != "style", "the policy of the pages forbids it"
            if name in COORDINATES and element.tag != "text":
                assert 0 <= float(value) <= COORDINATES[name], (element.tag, name, value)
            if name == "points":
                for pair in value.split():
                    x, y = map(float, pair.split(","))
                    assert 0 <= x <= charts.WIDTH
                    assert 0 <= y <= charts.HEIGHT
    shown = [one.text or "" for one in root.iter("text")]
    assert [one for one in shown if one in {"nan", "inf"}] == []
    assert (root.findtext("title") or "") == title
    drawn = sum(math.isfinite(y) for one in some for _, y in one.points)
    assert len(root.findall("rect")) == (drawn if draw is charts.bars else 0)


@given(st.floats(-1e12, 1e12), st.floats(0, 1e12))
def test_the_marks_of_an_axis_enclose_its_figures(low: float, span: float) -> None:
    ticks = charts._ticks(low, low + span)
    assert 2 <= len(ticks) <= 2 * charts.TICKS
    assert ticks == sorted(set(ticks))
    slack = (ticks[1] - ticks[0]) * 1e-6
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack


@pytest.mark.parametrize("value", [0.0, 1.5, 3.0, 1234.0, -2.0])
def test_a_flat_curve_has_marks_that_differ(value: float) -> None:
    """Usage of nothing had an axis up to 2e-10."""
    marks = [charts.number(one) for one in charts._ticks(value, value)]
    assert len(set(marks)) == len(marks)
    assert charts._ticks(0.0, 0.0, is_from_zero=True)[-1] == 1


def test_texts_are_escaped() -> None:
    hostile = '</text><script>alert("1")</script>'
    svg = charts.lines(Chart("c", hostile, hostile, [Series(hostile, [(1, 1.0)])])).svg
    assert "<script" not in svg
    assert parsed(svg).findtext("title") == hostile


def test_a_curve_its_legend_and_its_table_say_the_same() -> None:
    chart = Chart(
        "loss",
        "Loss",
        "step",
        [Series("training", [(1, 2.0), (2, 1.0)]), Series("validation", [(2, 1.5)])],
        x_end=10,
    )
    root = parsed(charts.lines(chart).svg)
    assert [one.get("class") for one in root.findall("polyline")] == ["line series-1"]
    assert [one.get("class") for one in root.findall("circle")] == ["dot series-2"]
    texts = [one.text for one in root.iter("text")]
    assert {"training", "validation", "step", "10"} <= set(texts)
    described = "training: from 2 to 1, least 1, greatest 2. validation: from 1.5 to 1.5, least 1.5, greatest 1.5."
    assert root.findtext("desc") == described
    assert root.get("aria-labelledby") == "loss-title loss-description"
    assert chart.rows() == [("1", ["2", ""]), ("2", ["1", "1.5"])]
    dashed = root.findall("line[@stroke-dasharray]")
    assert len(dashed) == 1, "the second series differs without colour, in the legend too"


def test_a_chart_without_figures_has_axes_and_says_so() -> None:
    root = parsed(charts.bars(Chart("c", "Requests", "day", [Series("requests", [])])).svg)
    assert root.findtext("desc") == "requests: no figures yet."
    assert root.findall("rect") == []
    assert root.findall("line[@class='axis']")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (1234, "1234"),
        (12_345, "12.35 k"),
        (2_500_000, "2.5 M"),
        (7e9, "7 G"),
        (0.123456, "0.1235"),
        (-20_000, "-20 k"),
        (math.inf, "inf"),
    ],
)
def test_figures_are_short(value: float, said: str) -> None:
    assert charts.number(value) == said
