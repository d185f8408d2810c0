"""docs/marketplace.md is executed: each command in a shell, with curl, against an empty service whose clock the page
sets, and each answer shown is the one that was given.

    TALLYSTICK_WRITE_DOCS=1 scripts/test tests/test_marketplace.py

writes the answers into the page. In them `…` stands for members or items that are left out: whoever writes the page
cuts an answer once, and it stays cut. A member that differs from run to run is shown as "…"; only `request_id` may.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.conftest import ROOT, Service, serve

PAGE = ROOT / "docs" / "marketplace.md"
WRITE = os.environ.get("TALLYSTICK_WRITE_DOCS") == "1"
VARYING = "request_id"
LEFT_OUT = "…"
WIDTH = 116
# ```console 2026-10-05T09:00:00Z sets the clock for the commands below it.
BLOCK = re.compile(r"^```(sh|console)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="the page is for bash and curl")
def test_the_page_shows_what_the_service_answers(database: str) -> None:
    page = PAGE.read_text()
    with serve(database) as service:
        real = run_page(page, service)
    if WRITE:
        PAGE.write_text(real)
        return
    assert page.splitlines() == real.splitlines(), "TALLYSTICK_WRITE_DOCS=1 writes the page's answers"


def test_what_is_left_out_of_an_answer_stays_left_out_and_nothing_else() -> None:
    answer = {"a": 1, "b": [{"c": 2, "d": 3}, {"c": 4, "d": 5}], "request_id": "r"}
    cut = {"b": [{"c": 0, LEFT_OUT: None}, LEFT_OUT], LEFT_OUT: None}
    assert answer | {"request_id": "…"} == shown_of(None, answer)
    assert {"b": [{"c": 2, LEFT_OUT: None}, LEFT_OUT], LEFT_OUT: None} == shown_of(cut, answer)
    assert {"c": 2} == shown_of({"c": 0, LEFT_OUT: None}, {"c": 2})
    assert cut == read_shown('{"b": [{"c": 0, …}, …], …}') | {}
    assert '{"b": [{"c": 0, …}, …], …}' == written(cut)


def run_page(page: str, service: Service) -> str:
    """The page with the answers that the service gives to its commands, in their order."""
    definitions = ""

    def run_block(found: re.Match[str]) -> str:
        nonlocal definitions
        language, moment, text = found.groups()
        if language == "sh":
            definitions += text
            return found.group()
        if moment is not None:
            service.clock.now = datetime.fromisoformat(moment)
        lines = (f"$ {command}\n{again(shown, definitions, command, service)}" for command, shown in commands_of(text))
        return "".join((found.group().split("\n", 1)[0], "\n", *lines, "```"))

    return BLOCK.sub(run_block, page)


def commands_of(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a block, with the answer that is shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        ends = next(n for n in range(1, len(lines) + 1) if is_whole("".join(lines[:n])))
        yield "".join(lines[:ends]).rstrip("\n"), "".join(lines[ends:])


def is_whole(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:  # a quotation, or a backslash at the end, wants another line
        return False
    return not command.endswith(("\\\n", "|\n"))


def again(shown: str, definitions: str, command: str, service: Service) -> str:
    environment = {"PATH": os.environ["PATH"]}
    environment |= {"TALLYSTICK_URL": service.url, "TALLYSTICK_KEY": service.key}
    script = ["bash", "-c", f"{definitions}\n{command}"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60, check=True)
    *others, last = done.stdout.replace("\r", "").strip().split("\n")
    if not last.startswith("{"):
        return "".join(f"{line}\n" for line in (*others, last))
    before = shown[shown.find("\n{") + 1 if not shown.startswith("{") else 0 :]
    answer = shown_of(read_shown(before) if before.startswith("{") else None, json.loads(last))
    return "".join(f"{line}\n" for line in (*others, written(answer)))


def read_shown(text: str) -> Any:
    return json.loads(re.sub(r"…(?=\s*\})", f'"{LEFT_OUT}": null', re.sub(r"…(?=\s*\])", f'"{LEFT_OUT}"', text)))


def shown_of(cut: Any, answer: Any) -> Any:
    """An answer without what the page left out of the one before; what it shows has to be there."""
    if isinstance(answer, dict):
        cut = cut if isinstance(cut, dict) else {}
        names = [name for name in answer if LEFT_OUT not in cut or name in cut]
        kept = {name: LEFT_OUT if name == VARYING else shown_of(cut.get(name), answer[name]) for name in names}
        return kept | ({LEFT_OUT: None} if len(kept) < len(answer) else {})
    if isinstance(answer, list):
        cut = cut if isinstance(cut, list) else []
        items = [item for item in cut if item != LEFT_OUT]
        count = len(items) if LEFT_OUT in cut else len(answer)
        # Items that were not there before are cut as the last one was.
        cuts = items + items[-1:] * (count - len(items)) or [None] * count
        kept = [shown_of(cuts[n], each) for n, each in enumerate(answer[:count])]
        return kept + [LEFT_OUT] * (len(kept) < len(answer))
    return answer


def written(value: Any, *, indent: str = "", name: str = "") -> str:
    """As JSON on one line, or, if that is too long, on one for each member or item."""
    if value == LEFT_OUT and not name:
        return indent + LEFT_OUT
    line = f"{indent}{name}{one_line(value)}"
    if not isinstance(value, dict | list) or len(line) < WIDTH:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [
            inner + LEFT_OUT if member == LEFT_OUT else written(each, indent=inner, name=f'"{member}": ')
            for member, each in value.items()
        ]
        opening, closing = "{}"
    else:
        parts = [written(each, indent=inner) for each in value]
        opening, closing = "[]"
    return f"{indent}{name}{opening}\n" + ",\n".join(parts) + f"\n{indent}{closing}"


def one_line(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text.replace(f'"{LEFT_OUT}": null', LEFT_OUT).replace(f'"{LEFT_OUT}"]', f"{LEFT_OUT}]")
