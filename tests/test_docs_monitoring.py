"""Dashboard and alerts ask for metrics that exist; alerts mean what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.project import ROOT
from tests.test_telemetry_metrics import CONTRACT

ALERTS = ROOT / "docs/alerts.yml"
DASHBOARD = ROOT / "docs/grafana-dashboard.json"
UNIT_TESTS = sorted((ROOT / "tests/alerts").glob("*.yml"))
SUFFIX = re.compile(r"_(bucket|sum|count)$")
NAME = re.compile(r"(?<![\w:])gateway_[a-z_]+")

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed: prometheus"
)


def exposed() -> set[str]:
    """Every metric that the gateway has."""
    texts = [path.read_text("utf-8") for path in (ROOT / "gateway").rglob("*.py")]
    source = "".join(text for text in texts if "prometheus_client" in text)
    return set(re.findall(r'"(gateway_[a-z_]+)"', source))


def asked_by_the_dashboard() -> set[str]:
    """The metrics in the expressions of all panels."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    expressions = [one["expr"] for panel in panels for one in panel["targets"]]
    return {SUFFIX.sub("", name) for name in NAME.findall(" ".join(expressions))}


def alert_expressions() -> str:
    """What the alert rules ask, without their comments and words."""
    text = re.sub(r"(?m)^ *#.*$|^ +(summary|look): .*$", "", ALERTS.read_text("utf-8"))
    return text


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    asked, known = asked_by_the_dashboard(), exposed()

    assert set(CONTRACT) <= known
    assert (set(), set()) == (asked - known, known - asked)


def test_panels_of_the_dashboard_lie_beside_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    places = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"] + dy)
        for panel in panels
        for dx in range(panel["gridPos"]["w"])
        for dy in range(panel["gridPos"]["h"])
    ]

    assert len(places) == len(set(places))
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_alerts_ask_for_metrics_and_rules_that_exist() -> None:
    text = alert_expressions()
    metrics = {SUFFIX.sub("", name) for name in NAME.findall(text)}
    recorded = set(re.findall(r"record: (\S+)", text))

    assert metrics and set() == metrics - exposed()
    assert recorded == set(re.findall(r"gateway:[a-z0-9_:]+", text))


@pytest.mark.parametrize(
    "metric",
    [
        "gateway_requests_total",
        "gateway_queue_wait_seconds",
        "gateway_account_available",
        "gateway_ledger_commit_seconds",
        "gateway_engine_up",
        "gateway_log_lines_lost_total",
    ],
)
def test_there_is_an_alert_for_what_matters(metric: str) -> None:
    assert metric in alert_expressions()


@needs_promtool
def test_promtool_takes_the_alerts() -> None:
    subprocess.run(["promtool", "check", "rules", str(ALERTS)], check=True)


@needs_promtool
@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_alerts_come_when_they_should(path: Path, tmp_path: Path) -> None:
    for one in (ALERTS, path):
        shutil.copy(one, tmp_path)
    command = ["promtool", "test", "rules", path.name]
    subprocess.run(command, check=True, cwd=tmp_path)
