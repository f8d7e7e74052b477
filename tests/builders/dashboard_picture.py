"""A picture of deploy/monitoring/dashboard.json: its panels, in their places, with what its queries give.

Grafana draws it otherwise. The picture shows what a person will see there, and that each query has values.
"""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from builders.prometheus import MONITORING, Prometheus

COLUMNS = 24  # of Grafana's grid
HIDDEN = re.compile(r"(SessionName|instance|dataset)=[^,]*,?")
SHORTENED = re.compile(r"run=\d{8}T\d{6}Z-|(?:stage|error|state|task)=")  # of what is shown
Shortened = Callable[[str], str]


def draw_dashboard(server: Prometheus, since_s: float, file: Path, shortened: Shortened) -> None:
    """Draw the dashboard as it is now. `shortened` makes its queries fit a test's seconds."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(16, 0.42 * rows))
    for panel in panels:
        at = panel["gridPos"]
        pad = 0.6 if panel["type"] == "timeseries" else 0.2
        left, width = (at["x"] + pad + 0.4) / COLUMNS, (at["w"] - 2 * pad - 0.4) / COLUMNS
        bottom, height = 1 - (at["y"] + at["h"] - 0.9) / rows, (at["h"] - 2.2) / rows
        if panel["type"] == "row":
            figure.text(0.005, 1 - (at["y"] + 0.8) / rows, panel["title"], fontsize=12, weight="bold")
            continue
        axes = figure.add_axes((left, bottom, width, height))
        axes.set_title(panel["title"], loc="left", fontsize=9)
        found = {}
        for target in panel["targets"]:
            query = shortened(target["expr"].replace("$run", ".*"))
            answer = server.get("query_range", query=query, start=since_s, end=time.time(), step=1)["result"]
            found |= {_name(target, series["metric"]): series["values"] for series in answer}
        draw = {"timeseries": _draw_lines, "table": _draw_table}.get(panel["type"], _draw_numbers)
        draw(axes, found, _unit(panel), since_s)
    figure.savefig(file, dpi=90)


def _name(target: dict[str, Any], labels: dict[str, str]) -> str:
    """The labels of a series, but those that all have, and what its legend says beside them."""
    shown = ",".join(f"{key}={value}" for key, value in sorted(labels.items()) if key[0] != "_")
    legend = re.sub(r"{{\s*\w+\s*}}", "", target.get("legendFormat", "")).strip(" /")
    name = SHORTENED.sub("", HIDDEN.sub("", shown)).strip(",") or target["refId"]
    return f"{name} {legend}".strip()


def _unit(panel: dict[str, Any]) -> Callable[[float], str]:
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
    if unit == "percentunit":
        return "{:.1%}".format
    return {"s": "{:.3g} s", "Bps": "{:.3g} B/s", "bytes": "{:.3g} B"}.get(str(unit), "{:.4g}").format


def _draw_lines(axes: Axes, found: dict[str, Any], unit: Callable[[float], str], since_s: float) -> None:
    for name, values in found.items():
        axes.plot([at - since_s for at, _ in values], [float(value) for _, value in values], label=name, lw=1.2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: unit(value)))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.set_xlabel("s", fontsize=7, loc="right", labelpad=1)
    if found:
        axes.legend(fontsize=6.5, loc="best", framealpha=0.6)


def _draw_numbers(axes: Axes, found: dict[str, Any], unit: Callable[[float], str], since_s: float) -> None:
    axes.set_axis_off()
    for number, (name, values) in enumerate(found.items()):
        text = f"{unit(float(values[-1][1])):>8}   {name}"
        axes.text(0, 0.95 - 0.3 * number, text, fontsize=9, transform=axes.transAxes, va="top")


def _draw_table(axes: Axes, found: dict[str, Any], unit: Callable[[float], str], since_s: float) -> None:
    axes.set_axis_off()
    cells = [[name, f"{float(values[-1][1]):.6g}"] for name, values in found.items()]
    table = axes.table(cellText=cells, loc="upper left", cellLoc="left", edges="horizontal", colWidths=[0.6, 0.3])
    table.auto_set_font_size(False)
    table.set_fontsize(6.5)
