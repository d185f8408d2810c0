"""The pages for people: all of docs/, the reference, and what each code of refusal means, without another host."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import yaml

from app.api.contract import CONTRACT
from app.api.problems import STATUS
from app.ledger.refusals import REFUSALS, BooksRefuse
from app.site.files import Sources
from app.site.markdown import Surroundings, render, slug
from app.site.pages import Site
from app.site.refusals import read_texts
from tests.conftest import ROOT

CONTRACT_FILE = ROOT / "openapi.yaml"
# An address of another host, with or without its scheme. The name of SVG itself, in style sheets, is none.
OUTSIDE = re.compile(r"""(?<![\w.])(?:\w+:)?//(?!www\.w3\.org/2000/svg)[\w-]+\.""")
OWN_FILES = ["/docs/assets/site.css", "/docs/assets/site.js", "/docs/assets/try.js", "/docs/assets/try.css",
             "/docs/assets/icon.svg", "/docs/assets/swagger-ui.css"]  # fmt: skip
PAGES = [*Site(CONTRACT.document, STATUS).addresses(), "/docs/try"]
OPERATIONS = {each["operationId"]: each for path in CONTRACT.document["paths"].values() for each in path.values()}
# Where a reader may follow a link to another host; what comes with a page never does.
HOSTS_MAX = 12
FILES = [
    ("/docs", "text/html; charset=utf-8"),
    ("/docs/holds", "text/html; charset=utf-8"),
    ("/docs/decisions/0001-one-ordered-log", "text/html; charset=utf-8"),
    ("/docs/reference", "text/html; charset=utf-8"),
    ("/docs/reference/postTransaction", "text/html; charset=utf-8"),
    ("/docs/try", "text/html; charset=utf-8"),
    ("/docs/assets/site.css", "text/css; charset=utf-8"),
    ("/docs/assets/site.js", "text/javascript; charset=utf-8"),
    ("/docs/assets/icon.svg", "image/svg+xml"),
    ("/docs/assets/try.js", "text/javascript; charset=utf-8"),
    ("/docs/assets/try.css", "text/css; charset=utf-8"),
    ("/docs/assets/swagger-ui.css", "text/css; charset=utf-8"),
    ("/docs/assets/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("/openapi.json", "application/json"),
    ("/openapi.yaml", "application/yaml"),
    ("/problems", "text/html; charset=utf-8"),
    ("/problems/insufficient_funds", "text/html; charset=utf-8"),
]


class Page(HTMLParser):
    """What a page loads and links to, what can be linked to in it, and whether anything in it is written where the
    policy would not let it work."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.twice: list[str] = []
        self.inline: list[str] = []
        self.headings: list[int] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "href" in given:
            (self.links if tag == "a" else self.loads).append(given["href"])
        self.loads += [given["src"]] if "src" in given else []
        if "id" in given:
            self.twice += [given["id"]] if given["id"] in self.anchors else []
            self.anchors.add(given["id"])
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        self.text += " " if tag in ("dt", "dd", "td", "th", "li") else ""

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def visitor(service: Any) -> Iterator[httpx.Client]:
    """Somebody without a key."""
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def pages(service: Any) -> dict[str, Page]:
    """Every page, as a reader gets it."""
    with httpx.Client(base_url=service.url, timeout=30) as client:
        answers = {path: client.get(path) for path in PAGES}
    assert {200} == {answer.status_code for answer in answers.values()}
    return {path: Page(answer.text) for path, answer in answers.items()}


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(("path", "media_type"), FILES)
def test_each_file_is_served_to_everybody(visitor: httpx.Client, path: str, media_type: str) -> None:
    answer = visitor.get(path)
    assert (200, media_type) == (answer.status_code, answer.headers["content-type"])
    assert answer.content


def test_every_file_of_the_documentation_is_a_page(pages: dict[str, Page]) -> None:
    files = {file.relative_to(ROOT).as_posix() for file in (ROOT / "docs").rglob("*.md") if "/." not in str(file)}
    addresses = Sources.find().addresses
    assert files <= set(addresses)
    assert set(addresses.values()) <= {*pages, "/openapi.yaml"}


def test_everything_that_a_page_is_made_of_is_in_the_image() -> None:
    dockerfile, let_through = (ROOT / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text().splitlines()
    for name in {name.partition("/")[0] for name in Sources.find().addresses}:
        assert f"!{name}" in let_through
        assert re.search(rf"^COPY .*\b{re.escape(name)}\b", dockerfile, re.MULTILINE), name


def test_no_link_is_dead(visitor: httpx.Client, pages: dict[str, Page]) -> None:
    """Neither to a page nor to a place in one; other hosts aside, which are few."""
    dead, hosts = [], set()
    known: dict[str, set[str] | None] = {path: page.anchors for path, page in pages.items()}
    for path, page in pages.items():
        for link in {*page.links, *page.loads}:
            address, _, anchor = urljoin(path, link).partition("#")
            if address.startswith("http"):
                hosts.add(address)
                continue
            if address not in known:
                known[address] = set() if visitor.get(address).status_code == 200 else None
            if known[address] is None or (anchor and anchor not in (known[address] or ())):
                dead.append((path, link))
    assert [] == dead
    assert len(hosts) <= HOSTS_MAX
    assert all(host.startswith("https://") for host in hosts)


def test_no_link_in_a_file_is_dead_where_files_are_read() -> None:
    """On a code host: a relative link is to a file that is there, and to a heading that it has."""
    dead = []
    for name in [*Sources.find().addresses]:
        if not name.endswith(".md"):
            continue
        for link in links_in((ROOT / name).read_text()):
            if link.startswith("https://"):
                continue
            path, _, anchor = link.partition("#")
            file = (ROOT / name).parent / path if path else ROOT / name
            if link.startswith("/") or not file.exists() or (anchor and anchor not in anchors_of(file)):
                dead.append((name, link))
    assert [] == dead


def links_in(text: str) -> list[str]:
    found: list[str] = []
    kept = Surroundings(lambda href: found.append(href) or href, lambda href: found.append(href) or "")
    render(text, kept)
    return found


def anchors_of(file: Path) -> set[str]:
    headings = re.findall(r"^#{1,6} (.+)$", re.sub(r"^```.*?^```", "", file.read_text(), flags=re.M | re.S), re.M)
    return {slug(re.sub(r"\[(.+?)\]\(.+?\)|`", r"\1", heading)) for heading in headings}


def test_a_page_loads_nothing_but_files_that_are_served_here(visitor: httpx.Client, pages: dict[str, Page]) -> None:
    loads = {target for page in pages.values() for target in page.loads}
    assert all(re.match(r"/docs/assets/[^/]", target) for target in loads)
    assert {200} == {visitor.get(target).status_code for target in loads}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_works_under_its_policy_and_can_be_found_ones_way_in(pages: dict[str, Page], path: str) -> None:
    """Nothing inline, which the policy would stop; one heading of the first level, none skipped, no name twice."""
    page = pages[path]
    assert [] == page.inline
    assert [] == page.twice
    if path != "/docs/try":  # which Swagger UI fills
        shown = page.headings[page.headings.index(1) :]
        assert 1 == page.headings.count(1)
        assert all(after <= before + 1 for before, after in pairwise(shown))


@pytest.mark.parametrize("path", OWN_FILES)
def test_no_file_names_another_host(visitor: httpx.Client, path: str) -> None:
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
    script = visitor.get("/docs/assets/try.js").text
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


def test_a_service_starts_without_what_makes_the_pages() -> None:
    """Whoever never looks at them does not wait for them."""
    program = (
        "import sys, app.main; print([name for name in sys.modules if name.startswith(('app.site', 'markdown_it'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


# The pages of the refusals.


def test_there_is_a_text_for_each_code_and_a_code_for_each_text() -> None:
    assert set(REFUSALS) == set(read_texts())


@pytest.mark.parametrize("code", REFUSALS)
def test_each_refusal_has_a_page_that_says_what_to_do(pages: dict[str, Page], code: str) -> None:
    page, refusal = pages[f"/problems/{code}"], REFUSALS[code]
    text = words(page.text)
    assert words((refusal.__doc__ or "").replace("`", "")) in text
    assert refusal.title in text
    assert f"Status {STATUS[refusal]}" in text
    assert {"what-to-do", "the-document"} <= page.anchors
    assert f'"type": "/problems/{code}"' in text
    asked = {name for name, each in OPERATIONS.items() if code in codes_of(each)}
    linked = {link.removeprefix("/docs/reference/") for link in page.links if link.startswith("/docs/reference/")}
    assert asked <= linked


def codes_of(operation: dict[str, Any]) -> set[str]:
    return {code for each in operation["responses"].values() for code in CONTRACT.resolve(each).get("x-codes", [])}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_page_says_a_refusal_is_frozen_where_it_is_one_of_the_books(pages: dict[str, Page], code: str) -> None:
    text = words(pages[f"/problems/{code}"].text)
    frozen = issubclass(REFUSALS[code], BooksRefuse)
    assert frozen == ("the answer is frozen with the Idempotency-Key" in text)
    assert frozen == ("Frozen with its key? Yes." in text)


# The reference.


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_page_of_an_operation_says_what_the_contract_says(pages: dict[str, Page], name: str) -> None:
    page, operation = pages[f"/docs/reference/{name}"], OPERATIONS[name]
    text = words(page.text)
    assert operation["summary"] in text
    for parameter in operation.get("parameters", []):
        assert CONTRACT.resolve(parameter)["name"] in text
    for status in operation["responses"]:
        assert f" {status} " in text
    assert {f"/problems/{code}" for code in codes_of(operation)} <= set(page.links)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        assert all(f" {each} " in f" {text} " for each in CONTRACT.resolve(content["schema"])["properties"])
    assert all(language in text for language in ("curl", "Python", "TypeScript"))


@pytest.mark.parametrize(
    "path",
    ["/problems/nothing", "/docs/assets/nothing", "/docs/assets/docs.py", "/redoc", "/docs/nothing", "/docs/",
     "/docs/reference/nothing", "/docs/../app/main.py", "/docs/problems", "/docs/reference/requests.yaml"],
)  # fmt: skip
def test_what_is_not_there_is_refused_as_everywhere(visitor: httpx.Client, path: str) -> None:
    answer = visitor.get(path)
    assert (404, "route_not_found") == (answer.status_code, answer.json()["code"])
