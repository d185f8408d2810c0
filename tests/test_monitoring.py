"""The dashboard, the alert rules and their runbook: every metric they name exists, and every query means something."""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.books import new_key, open_account, post, transaction
from tests.conftest import KEY, ROOT, free_port, serve, wait_until
from tests.test_metrics import listed_metrics

RULES_FILE = ROOT / "deploy/prometheus/alerts.yaml"
RULES = yaml.safe_load(RULES_FILE.read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "deploy/grafana/tallystick.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]} | {
    rule["alert"]: rule["expr"] for rule in RULES
}
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
# What comes with the client library, or from Prometheus itself.
NOT_OURS = {
    "up", "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes",
    "process_open_fds",
}  # fmt: skip
# What only scripts/verify tells, by way of node_exporter.
OF_A_WHOLE_RUN = re.compile("tallystick_verify_")


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_names_only_metrics_that_there_are(name: str) -> None:
    words = set(re.findall(r"\b(?:tallystick|process|python)_\w+|\bup\b", QUERIES[name]))
    bases = {re.sub(r"_(bucket|sum|count)$", "", word) for word in words}
    assert words
    assert bases <= listed_metrics("tallystick_") | NOT_OURS


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    shown += json.dumps(DASHBOARD["templating"])
    assert [name for name in listed_metrics("tallystick_") if name not in shown] == []


def test_the_dashboard_is_laid_out_without_gaps_in_its_ids_or_panels_over_each_other() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]
    assert {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]} == {"${datasource}"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_page_that_says_what_to_do(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    assert rule["labels"]["severity"] in ("critical", "warning")
    (page,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert [part for part in ("**Means**: ", "**Look**: ", "**Do**: ") if part not in page] == []


def test_the_runbook_has_no_page_without_an_alert() -> None:
    assert re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_every_alert_is_tried_out() -> None:
    """By promtool, where it is installed: each is silent first, and fires then."""
    tried = yaml.safe_load((RULES_FILE.parent / "alerts_test.yaml").read_text())["tests"]
    assert [test["name"] for test in tried] == [rule["alert"] for rule in RULES]
    for test in tried:
        silent, firing = test["alert_rule_test"]
        assert (silent["exp_alerts"], len(firing["exp_alerts"])) == ([], 1)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("command", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_promtool_finds_nothing_wrong(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], cwd=RULES_FILE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def prometheus(new_database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that asks a service under load, and has our rules."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    folder = tmp_path_factory.mktemp("prometheus")
    with serve(new_database()) as service:
        asked = {
            "job_name": "tallystick",
            "authorization": {"credentials": KEY},
            "static_configs": [{"targets": [service.url.removeprefix("http://")]}],
        }
        said = {
            "global": {"scrape_interval": "250ms", "evaluation_interval": "1s"},
            "rule_files": [str(RULES_FILE)],
            "scrape_configs": [asked],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(said))
        with run_prometheus(folder) as url, service.client() as client:
            client.post("/v1/ledgers", json={"name": "main"})
            for path in ("a", "b"):
                open_account(client, "main", path)
            stop = threading.Event()
            working = threading.Thread(target=work, args=(service, stop))
            working.start()
            wait_until(lambda: len(ask(url, 'tallystick_events_total{kind="transaction_posted"} > 5')) > 0)
            time.sleep(2)
            yield url
            stop.set()
            working.join()


def work(service: Any, stop: threading.Event) -> None:
    with service.client() as client:
        while not stop.wait(0.05):
            key = new_key()
            post(client, "main", transaction("a", "b"), key)
            post(client, "main", transaction("a", "nobody"), key)
            client.get("/v1/ledgers/main/events?after_sequence=1")
            client.get("/v1/ledgers/main/verification")


class run_prometheus:  # noqa: N801
    """Prometheus as a process of its own, ended by its own id."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._command = [
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=error",
        ]  # fmt: skip

    def __enter__(self) -> str:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{self._port}"
        wait_until(lambda: is_ready(url))
        return url

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def ask(url: str, query: str) -> list[Any]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=30).json()
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


def test_every_query_of_the_dashboard_has_an_answer_of_a_real_prometheus(prometheus: str) -> None:
    empty = []
    for name, expression in QUERIES.items():
        said = expression.replace("$job", "tallystick").replace("$__rate_interval", "5s").replace("$__range", "5s")
        if not ask(prometheus, said) and name not in {rule["alert"] for rule in RULES}:
            empty.append(name)
    # Empty is only what no whole run of the verifier has told this Prometheus.
    assert [name for name in empty if not OF_A_WHOLE_RUN.search(QUERIES[name])] == []


def test_a_healthy_service_raises_no_alert(prometheus: str) -> None:
    rules = httpx.get(f"{prometheus}/api/v1/rules", timeout=30).json()["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in RULES]
    raised = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert raised == set()
