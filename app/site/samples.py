"""A request as it is written in curl, Python and TypeScript. What is shown is what tests/test_examples.py runs.

The address and the key of the service come from the environment, TALLYSTICK_URL and TALLYSTICK_KEY. The TypeScript
has nothing in it that is not JavaScript too, so Node runs it as it stands.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import yaml

from app.site.document import Document, operations_of, resolve
from app.site.files import read

REQUESTS = "docs/reference/requests.yaml"
ANSWERS = "docs/reference/answers.json"
LANGUAGES = {"curl": "bash", "Python": "python", "TypeScript": "typescript"}
WIDTH = 100


@dataclass(frozen=True)
class Request:
    """One step of the story. `name` is its own among all of them."""

    name: str
    operation: str
    title: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    secured: bool = True
    text: bool = False
    shown: bool = True
    recorded: bool = True


def read_story(document: Document) -> list[Request]:
    """Every request of the story, in its order, made of the contract's own examples."""
    operations = operations_of(document)
    steps = yaml.safe_load(read(REQUESTS))
    return [_request(document, step, *operations[step["operation"]]) for step in steps]


def read_answers() -> dict[str, Any]:
    """What was answered to each step, by its name."""
    answers: dict[str, Any] = json.loads(read(ANSWERS))
    return answers


def _request(document: Document, step: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> Request:
    parameters = [resolve(document, each) for each in operation.get("parameters", [])]
    values = {each["name"]: each["example"] for each in parameters if each["in"] == "path"} | step.get("path", {})
    address = path.format(**values)
    if query := step.get("query"):
        address += "?" + urlencode(query, safe=":/")
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    example = content["examples"][step["example"]] if "example" in step else {}
    (answered,) = (each for status, each in operation["responses"].items() if status.startswith("2"))
    return Request(
        name=" ".join([operation["operationId"], *([step["example"]] if example else []), *_number(step)]),
        operation=operation["operationId"],
        title=step.get("title") or example.get("summary", ""),
        method=method,
        path=address,
        headers={"Idempotency-Key": step["key"]} if "key" in step else {},
        body=example.get("value"),
        secured=bool(operation.get("security", document["security"])),
        text="text/plain" in answered["content"],
        shown=step.get("shown", True),
        recorded=step.get("answer") != "contract",
    )


def _number(step: dict[str, Any]) -> list[str]:
    return [step["key"]] if not step.get("shown", True) else []


def in_every_language(request: Request) -> dict[str, str]:
    return {"curl": curl(request), "Python": python(request), "TypeScript": typescript(request)}


def curl(request: Request) -> str:
    asked = 'curl -sS "$TALLYSTICK_URL' + request.path + '"'
    if request.method != ("GET" if request.body is None else "POST"):
        asked = asked.replace("curl -sS", f"curl -sS -X {request.method}")
    lines = [asked]
    if request.secured:
        lines.append('-H "Authorization: Bearer $TALLYSTICK_KEY"')
    lines += [f"-H '{name}: {value}'" for name, value in request.headers.items()]
    if request.body is not None:
        lines.append("-H 'Content-Type: application/json'")
        lines.append("-d '" + written(request.body, indent="  ").replace("'", "'\\''") + "'")
    return " \\\n  ".join(lines) + "\n"


def python(request: Request) -> str:
    names = ['"Authorization": f"Bearer {os.environ[\'TALLYSTICK_KEY\']}"'] if request.secured else []
    names += [f'"{name}": "{value}"' for name, value in request.headers.items()]
    arguments = ['os.environ["TALLYSTICK_URL"] + "' + request.path + '"']
    if names:
        arguments.append(_block("headers={", names, "}", indent="    "))
    if request.body is not None:
        arguments.append("json=" + _in_python(written(request.body, indent="    ", step="    ", last=",")))
    lines = ["import os", "", "import httpx", ""]
    lines.append(_block(f"answer = httpx.{request.method.lower()}(", arguments, ")", indent=""))
    lines += ["answer.raise_for_status()", f"print(answer.{'text' if request.text else 'json()'})"]
    return "\n".join(lines) + "\n"


def typescript(request: Request) -> str:
    names = ["Authorization: `Bearer ${process.env.TALLYSTICK_KEY}`"] if request.secured else []
    names += [f'"{name}": "{value}"' for name, value in request.headers.items()]
    members = [f'method: "{request.method}"'] if request.method != "GET" else []
    if request.body is not None:
        names.append('"Content-Type": "application/json"')
    if names:
        members.append(_block("headers: {", names, "}", indent="  ", step="  "))
    if request.body is not None:
        members.append("body: JSON.stringify(" + _in_typescript(written(request.body, indent="  ", last=",")) + ")")
    address = "`${process.env.TALLYSTICK_URL}" + request.path + "`"
    asked = _block(f"const answer = await fetch({address}, {{", members, "});", indent="", step="  ")
    if not members:
        asked = f"const answer = await fetch({address});"
    said = "text()" if request.text else "json()"
    return f"{asked}\nif (!answer.ok) throw new Error(await answer.text());\nconsole.log(await answer.{said});\n"


def _block(opening: str, items: list[str], closing: str, *, indent: str, step: str = "    ") -> str:
    """On one line if that is short, otherwise with an item on each."""
    line = opening + ", ".join(items) + closing
    if len(indent + line) < WIDTH - 20 and "\n" not in line and not opening.startswith("const"):
        return line
    inner = indent + step
    return opening + "\n" + "".join(f"{inner}{item},\n" for item in items) + indent + closing


def written(value: Any, *, indent: str = "", step: str = "  ", last: str = "") -> str:
    """JSON for reading: what is short stands on one line. Lines after the first begin with the indent; `last` is what
    follows the last of several lines, such as the comma of other languages."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or len(indent + line) < WIDTH - 14:
        return line
    inner = indent + step
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(value)
    values = value.values() if isinstance(value, dict) else value
    parts = [
        inner + name + written(each, indent=inner, step=step, last=last)
        for name, each in zip(names, values, strict=True)
    ]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(parts) + f"{last}\n{indent}{closing}"


# JSON is written of strings and words; the words are outside of the strings.
_TOKENS = re.compile(r'("(?:[^"\\]|\\.)*")(:)?|\b(true|false|null)\b')
_WORDS = {"true": "True", "false": "False", "null": "None"}


def _in_python(text: str) -> str:
    return _TOKENS.sub(lambda found: _WORDS[found[3]] if found[3] else found[0], text)


def _in_typescript(text: str) -> str:
    """The names of properties without quotation marks, where they need none."""

    def name(found: re.Match[str]) -> str:
        plain = found[1] and found[2] and re.fullmatch(r'"[A-Za-z_]\w*"', found[1])
        return found[1].strip('"') + ":" if plain else found[0]

    return _TOKENS.sub(name, text)


def shown_requests(story: list[Request], operation: str) -> Iterator[Request]:
    """The requests that the page of an operation shows, the first one first."""
    return (request for request in story if request.operation == operation and request.shown)
