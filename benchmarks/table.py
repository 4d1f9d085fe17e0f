"""The results as a table and as a plot."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measures import Results, Sample

COLORS = {"nginx": "#7a7a7a", "relay": "#3b78b5", "gateway": "#c2502e"}

REQUESTS = (
    "one event",
    "one event, 64 KiB",
    "one event, 1 MiB",
    "no stream",
)
SLOTS = ("one slot of a user", "one slot of an account")
Take = Callable[[Sample], float]


def machine() -> str:
    """The machine and its software, in one line."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{platform.system()} {platform.release()}, {model}, Python " + (
        platform.python_version()
    )


def cpu_us_per_event(sample: Sample) -> float:
    """CPU seconds for a million events."""
    return 1e6 * float(sample["cpu_s"]) / max(1, sample["events"])


def cpu_ms_per_request(sample: Sample) -> float:
    """CPU milliseconds for a request."""
    return 1e3 * float(sample["cpu_s"]) / max(1, sample["good"])


def ms_per_answer(sample: Sample) -> float:
    """Milliseconds from one answer to the next."""
    return 1e3 * float(sample["elapsed_s"]) / max(1, sample["good"])


def events_per_s(sample: Sample) -> float:
    """Events a second."""
    return float(sample["events"]) / float(sample["elapsed_s"])


def per_core(sample: Sample) -> float:
    """Events a second that one core carries."""
    return float(sample["events"]) / max(0.01, float(sample["cpu_s"]))


def latency(kind: str, quantile: str) -> Take:
    """Milliseconds from the upstream's write to the client's read."""
    return lambda sample: float(sample[kind][quantile]) / 1000


def median(results: Results, scenario: str, program: str, take: Take) -> float:
    """The median of all rounds."""
    return statistics.median(take(row) for row in results[scenario][program])


def lines(results: Results, single: dict[str, Any]) -> list[str]:
    """The table, as Markdown."""
    made: list[str] = []
    made += _paced(results)
    made += _requests(results)
    made += _slots(results)
    made += _full(results)
    made += _single(single)
    return made


def row(*cells: object) -> str:
    """A row of a table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def head(*names: str) -> list[str]:
    """The first lines of a table."""
    return ["", row(*names), row("---", *["---:"] * (len(names) - 1))]


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base else "-"


def _paced(results: Results) -> list[str]:
    made = head(
        "streams of 50 events/s",
        "program",
        "events/s",
        "CPU s / 1M events",
        "x nginx",
        "x relay",
        "first event p50 / p99 ms",
        "event p50 / p99 ms",
    )
    for scenario, programs in results.items():
        if not scenario.startswith(("paced", "tls")):
            continue
        cost = {
            name: median(results, scenario, name, cpu_us_per_event) for name in programs
        }
        for name in programs:
            times = [
                f"{median(results, scenario, name, latency(kind, q)):.2f}"
                for kind in ("first_us", "event_us")
                for q in ("p50", "p99")
            ]
            made.append(
                row(
                    scenario.removeprefix("paced "),
                    name,
                    f"{median(results, scenario, name, events_per_s):.0f}",
                    f"{cost[name]:.1f}",
                    _ratio(cost[name], cost.get("nginx", cost.get("nginx-tls", 0))),
                    _ratio(cost[name], cost.get("relay", 0.0)),
                    " / ".join(times[:2]),
                    " / ".join(times[2:]),
                )
            )
    return made


def _requests(results: Results) -> list[str]:
    made = head(
        "requests, 32 at a time", "program", "CPU ms", "requests/s/core", "x relay"
    )
    for scenario in REQUESTS:
        programs = results.get(scenario, {})
        cost = {
            name: median(results, scenario, name, cpu_ms_per_request)
            for name in programs
            if name != "direct"
        }
        for name, ms in cost.items():
            rate = f"{1000 / ms:.0f}" if ms else "-"
            relay = cost.get("relay", 0.0)
            made.append(row(scenario, name, f"{ms:.3f}", rate, _ratio(ms, relay)))
    return made


def _slots(results: Results) -> list[str]:
    made = head(
        "8 clients", "program", "to the next request p50 / p99 ms", "ms an answer"
    )
    for scenario in SLOTS:
        for name in results.get(scenario, {}):
            gaps = [
                f"{median(results, scenario, name, latency('gap_us', q)):.2f}"
                for q in ("p50", "p99")
            ]
            ms = f"{median(results, scenario, name, ms_per_answer):.2f}"
            made.append(row(scenario, name, " / ".join(gaps), ms))
    return made if len(made) > 3 else []


def _full(results: Results) -> list[str]:
    made = head("as fast as it goes", "program", "events/s/core", "of passing through")
    for scenario, programs in results.items():
        if not scenario.startswith("full"):
            continue
        client = scenario.split()[1]
        own = "gateway" if client == "responses" else f"gateway-{client}"
        passing = 0.0
        if f"full {client}" in results:
            passing = median(results, f"full {client}", own, per_core)
        for name in programs:
            rate = median(results, scenario, name, per_core)
            share = f"{rate / passing:.0%}" if passing else "-"
            made.append(row(scenario.removeprefix("full "), name, f"{rate:.0f}", share))
    return made


def _single(single: dict[str, Any]) -> list[str]:
    return [
        *head("single measures", ""),
        *[row(k, _shown(v)) for k, v in single.items()],
    ]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(part)}" for key, part in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)


# --- the plot ---------------------------------------------------------------------


def plot(results: Results) -> str:
    """CPU per event over the number of paced streams, as SVG."""
    paced = [name for name in results if name.startswith("paced")]
    series = {
        program: [median(results, s, program, cpu_us_per_event) for s in paced]
        for program in COLORS
        if paced and all(program in results[s] for s in paced)
    }
    top = max((max(values) for values in series.values()), default=1.0) * 1.15 or 1.0
    width, height, left, base = 640, 360, 60, 310
    step = (width - left - 40) / max(1, len(paced) - 1)

    def place(index: int, value: float) -> tuple[float, float]:
        return left + index * step, base - value / top * (base - 40)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="60" y="20">CPU seconds for a million events, by open streams of '
        "50 events/s (lower is better)</text>",
    ]
    for part in range(5):
        value = top * part / 4
        _, y = place(0, value)
        parts.append(
            f'<line x1="{left}" x2="{width - 40}" y1="{y:.0f}" y2="{y:.0f}" '
            f'stroke="#ddd"/><text x="{left - 8}" y="{y + 4:.0f}" '
            f'text-anchor="end">{value:.0f}</text>'
        )
    for index, name in enumerate(paced):
        x, _ = place(index, 0)
        count = name.removeprefix("paced ")
        parts.append(f'<text x="{x:.0f}" y="330" text-anchor="middle">{count}</text>')
    for place_in_key, (program, values) in enumerate(series.items()):
        x, y = width - 110, 50 + 18 * place_in_key
        points = [place(index, value) for index, value in enumerate(values)]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        color = COLORS[program]
        parts.append(
            f'<polyline points="{way}" fill="none" stroke="{color}" stroke-width="2"/>'
            f'<text x="{x}" y="{y}" fill="{color}">{program}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
