"""A real Prometheus that scrapes evapid, with the dashboard's queries and the alerts of conf/."""

import json
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from background import Background
from evapid import ROOT
from process import DEADLINE_S, Process, until
from scrape import metrics, promtool
from script import RELAY

pytestmark = pytest.mark.once

DASHBOARD = json.loads((ROOT / "conf/grafana-evapid.json").read_text())
RULES = ROOT / "conf/prometheus-evapid.rules.yml"
ROUTES = RELAY + """
event_route[evapi:message-received] { evapi_relay("$evapi(msg)"); }
"""

CONFIG = """
global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }
rule_files: [ %s ]
scrape_configs: [ { job_name: evapid, static_configs: [ { targets: [ "%s" ] } ] } ]
"""


class Prometheus(Process):
    def __init__(self, folder, port, target):
        config = folder / "prometheus.yml"
        config.write_text(CONFIG % (RULES, target))
        self.port = port
        super().__init__("prometheus", ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'series'}",
                                        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"], folder)

    def ask(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
                said = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}")
        except OSError as error:
            raise AssertionError(f"{error}")
        assert said["status"] == "success", said
        return said["data"]

    def series(self, query, start):
        """The series of a query since then, without values that are no numbers."""
        now = time.time()
        found = self.ask("query_range", query=query, start=start, end=now, step=0.5)["result"]
        finite = ([value for _, value in each["values"] if math.isfinite(float(value))] for each in found)
        return [values for values in finite if values]

    def problems(self):
        return []

    def finish(self):
        if self.alive():
            self.terminate()
        return []


class Traffic(Background):
    """Events, messages and clients that come and go, until it is told to end."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def run(self):
        phone = self.stage.phone()
        while not self.over.wait(0.05):
            with_us = self.stage.connect(admitted=False)
            phone.ask("MESSAGE", body=b"event")
            with_us.send(b"message")
            while with_us.receive() != b"message":  # it has been let in, and its route has run
                pass
            with_us.close()


@pytest.fixture
def watched(stage):
    """evapid with a Kamailio, and a Prometheus that looks on."""
    stage.metrics = stage.new_address()
    stage.start_evapid(metrics={"address": stage.metrics})
    stage.start_kamailio(ROUTES)
    stage.evapid.listening(stage.address)
    stage.prometheus = Prometheus(stage.folder, stage.ports.tcp(), stage.metrics)
    stage.processes.append(stage.prometheus)

    def up():
        assert stage.prometheus.alive(), stage.prometheus.tail()
        return stage.prometheus.ask("query", query="up == 1")["result"]
    until(up, "Prometheus has scraped evapid")
    return stage


def queries():
    """What the dashboard asks, with the panel that does."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def as_grafana_asks(query):
    query = query.replace("$__rate_interval", "10s").replace("$__interval", "10s").replace("$instance", ".*")
    assert "$" not in query, query
    return query


def test_every_query_of_the_dashboard_finds_something(watched):
    prometheus, start = watched.prometheus, time.time()
    asked = [(title, as_grafana_asks(query)) for title, query in queries()]
    assert len(asked) > 50
    with Traffic(watched):
        # The annotation is of starts: a successor is one. It must have been scraped before, as the one that leaves.
        until(lambda: prometheus.series("evapid_deliveries_done_total > 10", start), "there has been traffic")
        watched.replace_evapid()

        def all_find():
            silent = [each for each in asked if not prometheus.series(each[1], start)]
            assert not silent, silent
            return True
        until(all_find, "every query finds something")

    def well():
        target = prometheus.ask("targets")["activeTargets"][0]
        return (target["health"], target["lastError"]) == ("up", "")
    until(well, "the last scrape was good")
    assert prometheus.ask("label/instance/values", **{"match[]": "evapid_build_info"}) == [watched.metrics]


def test_the_dashboard_shows_every_metric(watched):
    asked = " ".join(query for _, query in queries())
    names = {name for name in metrics(watched.metrics).kinds}
    assert {name for name in names if not re.search(rf"\b{name}(_bucket)?\b", asked)} == set()
    used = set(re.findall(r"\b((?:evapid|process)_\w+)\{", asked))
    assert {name.removesuffix("_bucket") for name in used} <= names


def test_the_dashboard_is_laid_out_without_overlap():
    taken, numbers = set(), [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"] and (panel["type"] == "row" or panel["targets"])


def test_a_prometheus_evaluates_the_rules_and_none_alerts_when_all_is_well(watched):
    def evaluated():
        rules = [rule for group in watched.prometheus.ask("rules")["groups"] for rule in group["rules"]]
        assert rules and all(rule["health"] == "ok" for rule in rules), rules
        assert [rule["name"] for rule in rules if rule["state"] != "inactive"] == []
        return rules
    rules = until(evaluated, "the rules have been evaluated, and none alerts")
    assert {rule["name"] for rule in rules} == set(re.findall(r"alert: (\w+)", RULES.read_text()))


def test_each_rule_alerts_when_it_shall_and_not_before(tmp_path):
    """tests/system/operations/alerts.yml has for each a course of things that it is to tell of."""
    tests = ROOT / "tests/system/operations/alerts.yml"
    text = tests.read_text()
    assert set(re.findall(r"alertname: (\w+)", text)) == set(re.findall(r"alert: (\w+)", RULES.read_text()))
    for metric in set(re.findall(r"\b((?:evapid|process)_\w+)", RULES.read_text())):
        assert f"`{metric.removesuffix('_bucket')}`" in (ROOT / "docs/metrics.md").read_text(), metric
    (tmp_path / "alerts.yml").write_text(text.replace("RULES", str(RULES)))
    ran = promtool("test", "rules", tmp_path / "alerts.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
