"""The pages for people: the contract, and what each code of refusal means, without any other host."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.ledger.refusals import REFUSALS

CONTRACT_FILE = Path(__file__).parents[1] / "openapi.yaml"
# An address of another host, with or without its scheme. The name of SVG itself, in style sheets, is none.
OUTSIDE = re.compile(r"""(?<![\w.])(?:\w+:)?//(?!www\.w3\.org/2000/svg)[\w-]+\.""")
OWN_FILES = ["/docs", "/docs/assets/docs.js", "/docs/assets/docs.css", "/docs/assets/swagger-ui.css"]
PAGES = ["/docs", *(f"/problems/{code}" for code in REFUSALS)]
FILES = [
    ("/docs", "text/html; charset=utf-8"),
    ("/docs/assets/docs.js", "text/javascript; charset=utf-8"),
    ("/docs/assets/docs.css", "text/css; charset=utf-8"),
    ("/docs/assets/problem.css", "text/css; charset=utf-8"),
    ("/docs/assets/swagger-ui.css", "text/css; charset=utf-8"),
    ("/docs/assets/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("/docs/assets/favicon-32x32.png", "image/png"),
    ("/openapi.json", "application/json"),
    ("/openapi.yaml", "application/yaml"),
    ("/problems/insufficient_funds", "text/html; charset=utf-8"),
]


class References(HTMLParser):
    """What a page refers to, and whether anything in it is written where the policy would not let it work."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [value for name in ("href", "src") if (value := given.get(name))]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def visitor(service: Any) -> Iterator[httpx.Client]:
    """Somebody without a key."""
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


@pytest.mark.parametrize(("path", "media_type"), FILES)
def test_each_file_is_served_to_everybody(visitor: httpx.Client, path: str, media_type: str) -> None:
    answer = visitor.get(path)
    assert (200, media_type) == (answer.status_code, answer.headers["content-type"])
    assert answer.content


@pytest.mark.parametrize("path", PAGES)
def test_a_page_refers_to_nothing_but_files_that_are_served_here(visitor: httpx.Client, path: str) -> None:
    references = References(visitor.get(path).text)
    assert references.inline == []
    assert references.found
    for target in references.found:
        assert re.match(r"/[^/]", target)
        assert visitor.get(target).status_code == 200


@pytest.mark.parametrize("path", [*OWN_FILES, *PAGES[1:]])
def test_no_page_names_another_host(visitor: httpx.Client, path: str) -> None:
    assert OUTSIDE.findall(visitor.get(path).text) == []


@pytest.mark.parametrize(("path", "media_type"), FILES)
def test_the_policy_lets_a_browser_ask_nobody_else(visitor: httpx.Client, path: str, media_type: str) -> None:
    """Not even a script that names other hosts, as Swagger UI's does in its texts, can reach one."""
    headers = visitor.get(path).headers
    policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {source for sources in policy.values() for source in sources.split()} <= {"'none'", "'self'", "data:"}
    assert {"'self'"} == {policy[kind] for kind in ("script-src", "style-src", "connect-src")}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_swagger_ui_is_told_to_ask_no_validator(visitor: httpx.Client) -> None:
    script = visitor.get("/docs/assets/docs.js").text
    assert "validatorUrl: null" in script
    assert 'url: "/openapi.json"' in script


def test_the_contract_is_served_as_it_is_written(visitor: httpx.Client) -> None:
    assert visitor.get("/openapi.yaml").content == CONTRACT_FILE.read_bytes()
    assert visitor.get("/openapi.json").json() == yaml.safe_load(CONTRACT_FILE.read_bytes())


@pytest.mark.parametrize(("path", "media_type"), FILES)
def test_a_file_that_the_browser_has_is_not_sent_again(visitor: httpx.Client, path: str, media_type: str) -> None:
    first = visitor.get(path)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = visitor.get(path, headers={"If-None-Match": known})
        assert (304, b"", etag) == (again.status_code, again.content, again.headers["etag"])
    assert visitor.get(path, headers={"If-None-Match": '"other"'}).content == first.content


@pytest.mark.parametrize("code", REFUSALS)
def test_each_refusal_has_a_page_that_says_what_to_do(visitor: httpx.Client, code: str) -> None:
    text = " ".join(References(visitor.get(f"/problems/{code}").text).text.split())
    assert code in text
    assert REFUSALS[code].title in text
    assert " ".join((REFUSALS[code].__doc__ or "").replace("`", "").split()) in text


def test_a_refusals_page_names_its_status_and_where_it_is_answered(visitor: httpx.Client) -> None:
    text = " ".join(References(visitor.get("/problems/reference_exists").text).text.split())
    operations = "postTransaction, captureTransaction, voidTransaction, reverseTransaction"
    assert f"Answered with status 409 by {operations}." in text


@pytest.mark.parametrize("path", ["/problems/nothing", "/docs/assets/nothing", "/docs/assets/docs.py", "/redoc"])
def test_what_is_not_there_is_refused_as_everywhere(visitor: httpx.Client, path: str) -> None:
    answer = visitor.get(path)
    assert (404, "route_not_found") == (answer.status_code, answer.json()["code"])
