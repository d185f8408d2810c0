"""The README's first transaction does what it says, and its answers are the real ones."""

import json
import re
import shlex

import httpx

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_first_transaction_works_as_shown(service):
    (commands,) = re.findall(r"```sh\n(api\(\).*?)```", README, re.DOTALL)
    (shown,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    with service.client() as client:
        answers = [call(client, line) for line in commands.replace("\\\n", " ").splitlines() if line.startswith("api ")]
    assert [201, 201, 201, 201, 200, 422] == [answer.status_code for answer in answers]
    expected = [steady(json.loads(line)) for line in shown.splitlines()]
    assert expected == [steady(answer.json()) for answer in answers[3:]]


def call(client: httpx.Client, line: str) -> httpx.Response:
    """What the shell function `api` sends: a path, headers behind -H, a body behind -d."""
    _, path, *options = shlex.split(line)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in pairs if option == "-H")
    body = next((value for option, value in pairs if option == "-d"), None)
    headers["Content-Type"] = "application/json"
    return client.request("POST" if body else "GET", f"/v1/ledgers{path}", headers=headers, content=body)


def steady(answer: dict[str, object]) -> dict[str, object]:
    """An answer without what differs from run to run."""
    return {name: value for name, value in answer.items() if name not in ("recorded_at", "effective_at", "request_id")}
