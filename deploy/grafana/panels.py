"""The parts that dashboards are made of: panels with a title, description, unit and a word for "no data", and variables.

Knows no metric; the shapes that repeat are in `shapes.py`. Sources of truth: the Grafana Foundation SDK for 11.6, and for
colours Okabe and Ito, https://jfly.uni-koeln.de/color/.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Joules become kWh at the edge of the screen alone.
TO_KWH = "/ 3.6e6"

# Where dashboards and links find each other; a changed one would break bookmarks.
FLEET_UID = "wattledger-fleet"
HOST_UID = "wattledger-host"
WORKLOADS_UID = "wattledger-workloads"
SENSORS_UID = "wattledger-sensors"

# Grafana's units. Its own for kilograms turns 12345 kg into "12.35 Mg", so kilograms and grams are written after the number.
WATTS, KWH, JOULES, RATIO, SECONDS, BYTES, COUNT = "watt", "kwatth", "joule", "percentunit", "s", "bytes", "short"
KILOGRAMS, GRAMS_PER_HOUR, GRAMS_PER_KWH = "suffix: kg", "suffix: g/h", "suffix: g/kWh"
CPU_SECONDS_PER_KWH, CELSIUS, HERTZ = "suffix: s/kWh", "celsius", "hertz"

# Each colour means one thing on all panels, and can be told from the others by people who confuse red and green.
BLUE, ORANGE, SKY, GREEN, VERMILION, PURPLE, GREY = (
    "#0072B2",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#999999",
)
COMPONENT_COLOURS = {"cpu": BLUE, "memory": SKY, "gpu": ORANGE, "accelerator": PURPLE, "other": GREY}
KIND_COLOURS = {"measured": BLUE, "modelled": PURPLE}
STATE_COLOURS = {
    "reporting": GREEN,
    "silent": VERMILION,
    "conflict": PURPLE,
    "drained": GREY,
    "retired": "#666666",
    "recorded": SKY,
}

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# The last one of a label that is empty in Grafana would be sent as "matches all".
ALL = ".+"
# For a label that many series lack (a systemd unit has no namespace), all has to mean those without it, too.
ALL_OR_NONE = ".*"

PanelT = TypeVar("PanelT", stat.Panel, timeseries.Panel, table.Panel, bargauge.Panel)
AnyPanel = stat.Panel | timeseries.Panel | table.Panel | bargauge.Panel


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """What every panel has. width: of 24 columns. height: in Grafana's grid rows. no_value: says what to do about it."""

    title: str
    description: str
    unit: str
    no_value: str
    width: int
    height: int = 8
    decimals: int | None = None
    colours: Mapping[str, str] | None = None
    min_value: float | None = None
    max_value: float | None = None
    # How often the figures change where that is less often than a scrape, such as "1m"; rates look back four times as long.
    least_step: str | None = None


def stat_panel(frame: Frame, *queries: Query, shows_name: bool = False) -> stat.Panel:
    """Single numbers, the last value of each series. shows_name: the series' name is the figure, its value says nothing."""
    panel = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.VALUE if frame.colours else common_models.BigValueColorMode.NONE)
        .text_mode(_text_mode(len(queries), shows_name))
    )
    return _framed(panel, frame, queries, instant=True)


def _text_mode(queries: int, shows_name: bool) -> common_models.BigValueTextMode:
    if shows_name:
        return common_models.BigValueTextMode.NAME
    return common_models.BigValueTextMode.VALUE_AND_NAME if queries > 1 else common_models.BigValueTextMode.VALUE


def time_panel(frame: Frame, *queries: Query, stacked: bool = False, is_model: bool = False) -> timeseries.Panel:
    """Lines over time. stacked: areas on top of each other. is_model: dashed, as all that was not measured."""
    panel = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(25 if stacked else 0)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(
            common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI).sort(common_models.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if is_model:
        panel = panel.line_style(common.LineStyle().fill("dash").dash([8, 6]))
    # A hole in the data is a hole on the screen, never a line across it.
    return _framed(panel.span_nulls(False), frame, queries, instant=False)


def bar_panel(frame: Frame, *queries: Query) -> bargauge.Panel:
    """One horizontal bar for each series, from zero."""
    panel = (
        bargauge.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
    )
    return _framed(panel, replace(frame, min_value=0), queries, instant=True)


def table_panel(
    frame: Frame,
    queries: Sequence[Query],
    columns: Mapping[str, str],
    *,
    sort_by: str,
    units: Mapping[str, tuple[str, int]] | None = None,
    links_to_host: bool = False,
) -> table.Panel:
    """A table of instant queries. columns: label to heading, in order; all others are hidden.

    The value of a single query is "Value". Of several queries the rows with the same labels are one row, and their values
    are "Value #A", "Value #B" and on.

    units: unit and decimals by heading, where not the frame's. links_to_host: the cells of column `host` lead to that host,
    with site and time kept.
    """
    panel = table.Panel().sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
    if len(queries) > 1:
        panel = panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    organized = {
        "includeByName": dict.fromkeys(columns, True),
        "indexByName": {name: index for index, name in enumerate(columns)},
        "renameByName": {name: heading for name, heading in columns.items() if name != heading},
    }
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=organized))
    for heading, (unit, decimals) in (units or {}).items():
        values = [models.DynamicConfigValue("unit", unit), models.DynamicConfigValue("decimals", decimals)]
        panel = panel.override_by_name(heading, values)
    if links_to_host:
        link = {"title": "Open host ${__data.fields.host}", "url": host_url()}
        panel = panel.override_by_name("host", [models.DynamicConfigValue("links", [link])])
    return _framed(panel, frame, queries, instant=True)


def host_url() -> str:
    """Link of a table's row to its host; the time range and the data source stay."""
    return (
        f"/d/{HOST_UID}?var-datasource=${{datasource}}&var-site=${{__data.fields.site}}"
        "&var-host=${__data.fields.host}&${__url_time_range}"
    )


def on_right_axis(panel: timeseries.Panel, name: str, unit: str, colour: str) -> timeseries.Panel:
    """Put one series on an axis of its own, a ratio from 0 to 1."""
    placed = common_models.AxisPlacement.RIGHT.value
    values: list[tuple[str, object]] = [
        ("unit", unit),
        ("min", 0),
        ("max", 1),
        ("custom.axisPlacement", placed),
        ("color", {"mode": "fixed", "fixedColor": colour}),
    ]
    return panel.override_by_name(name, [models.DynamicConfigValue(key, value) for key, value in values])


def as_baseline(panel: timeseries.Panel, name: str) -> timeseries.Panel:
    """Draw one series as what is expected: grey and dashed."""
    values: list[tuple[str, object]] = [
        ("color", {"mode": "fixed", "fixedColor": GREY}),
        ("custom.lineStyle", {"fill": "dash", "dash": [10, 6]}),
    ]
    return panel.override_by_name(name, [models.DynamicConfigValue(key, value) for key, value in values])


def _framed(panel: PanelT, frame: Frame, queries: Sequence[Query], *, instant: bool) -> PanelT:
    panel = (
        panel.title(frame.title)
        .description(frame.description)
        .unit(frame.unit)
        .no_value(frame.no_value)
        .datasource(DATASOURCE)
        .span(frame.width)
        .height(frame.height)
        # No thresholds on quantities without a limit: the one step colours nothing.
        .thresholds(
            dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps([models.Threshold(None, "text")])
        )
    )
    if frame.decimals is not None:
        panel = panel.decimals(frame.decimals)
    if frame.min_value is not None:
        panel = panel.min(frame.min_value)
    if frame.max_value is not None:
        panel = panel.max(frame.max_value)
    for name, colour in (frame.colours or {}).items():
        fixed = models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})
        panel = panel.override_by_name(name, [fixed])
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(_target(panel, letter, query, instant=instant, least_step=frame.least_step))
    return panel


def _target(panel: AnyPanel, letter: str, query: Query, *, instant: bool, least_step: str | None) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).expr(query.expr).datasource(DATASOURCE)
    if least_step:
        target = target.interval(least_step)
    if query.legend:
        target = target.legend_format(query.legend)
    if isinstance(panel, table.Panel):
        return target.format(PromQueryFormat.TABLE).instant()
    return target.instant() if instant else target.range()


class Board:
    """A dashboard under construction: panels are placed from left to right, and down."""

    def __init__(self, title: str, uid: str, description: str) -> None:
        self._panels = 0
        self._builder = (
            dashboard.Dashboard(title)
            .uid(uid)
            .description(description)
            .tags(["wattledger"])
            .readonly()
            .refresh("1m")
            .time("now-24h", "now")
            .timezone("browser")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .link(_menu())
            .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        )

    def variable(self, name: str, label: str, query: str, *, multi: bool, all_value: str = ALL) -> "Board":
        """Add a variable whose values are those of a label, read again when the time range changes."""
        variable = (
            dashboard.QueryVariable(name)
            .label(label)
            .datasource(DATASOURCE)
            .query({"query": query, "qryType": 1, "refId": f"variable-{name}"})
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.NATURAL_ASC)
            .multi(multi)
            .include_all(multi)
        )
        if multi:
            variable = variable.all_value(all_value).current(
                models.VariableOption(selected=True, text="All", value="$__all")
            )
        self._builder = self._builder.with_variable(variable)
        return self

    def choice(self, name: str, label: str, values: Mapping[str, str]) -> "Board":
        """Add a variable with values of our own, by what they are called; the first is chosen."""
        text, value = next(iter(values.items()))
        variable = (
            dashboard.CustomVariable(name)
            .label(label)
            .values(", ".join(f"{each} : {values[each]}" for each in values))
            .options([models.VariableOption(selected=each == text, text=each, value=values[each]) for each in values])
            .current(models.VariableOption(selected=True, text=text, value=value))
            .multi(False)
            .include_all(False)
        )
        self._builder = self._builder.with_variable(variable)
        return self

    def row(self, title: str) -> "Board":
        """Begin a section."""
        self._panels += 1
        self._builder = self._builder.with_row(dashboard.Row(title).id(self._panels))
        return self

    def add(self, *panels: AnyPanel) -> "Board":
        """Add panels in reading order."""
        for panel in panels:
            self._panels += 1
            panel.id(self._panels)
            self._builder = self._builder.with_panel(panel)
        return self

    def build(self) -> models.Dashboard:
        """The finished dashboard."""
        return self._builder.build()


def _menu() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("Wattledger")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["wattledger"])
        .icon("external link")
        .tooltip("The other dashboards, with the same time and selection")
        .url("")
        .keep_time(True)
        .include_vars(True)
        .as_dropdown(False)
        .target_blank(False)
    )
