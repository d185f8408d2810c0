"""Markdown as the files of docs/ use it, as HTML for the site: headings that can be linked to, tables that scroll,
code in colours, pictures drawn into the page, and the languages of one example beside each other."""

import html
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

# Blocks of these, one directly after the other, are one example in several languages.
LANGUAGES = {"bash": "curl", "python": "Python", "typescript": "TypeScript", "go": "Go", "java": "Java", "rust": "Rust"}
LEXERS = {"sh": "bash"}
# In cells longer than this a table is read row by row on a phone, each cell below the one before.
LONG_CELL = 60


@dataclass(frozen=True)
class Heading:
    level: int
    text: str
    anchor: str


@dataclass
class Rendered:
    title: str
    body: str
    headings: list[Heading] = field(default_factory=list)


@dataclass(frozen=True)
class Surroundings:
    """What a page may refer to. `link` gives the address on the site of a link of the page, or None where the site has
    nothing there; `names` has the addresses of words that are linked wherever they stand as code."""

    link: Callable[[str], str | None]
    picture: Callable[[str], str]
    names: Mapping[str, str] = field(default_factory=dict)


def render(text: str, surroundings: Surroundings) -> Rendered:
    """The page without its title, which is its first heading."""
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    tokens = parser.parse(text)
    headings = _name_headings(tokens)
    _name_cells(tokens)
    _rewrite(tokens, surroundings)
    title = headings[0].text if headings and headings[0].level == 1 else ""
    if title:
        tokens = tokens[3:]
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("code_inline", _code_inline)
    parser.add_render_rule("image", _image)
    parser.add_render_rule("table_open", _table)
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return Rendered(title, parser.renderer.render(tokens, parser.options, {}), [h for h in headings if h.level == 2])


def slug(text: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def code(text: str, language: str) -> str:
    """A block of code in colours."""
    return f'<pre tabindex="0"><code>{colours(text, language)}</code></pre>\n'


def colours(text: str, language: str) -> str:
    if language == "console":
        return "".join(_console(text.splitlines(keepends=True)))
    try:
        lexer = get_lexer_by_name(LEXERS.get(language, language), stripnl=False)
    except ClassNotFound:
        return html.escape(text, quote=False)
    return highlight(text, lexer, HtmlFormatter(nowrap=True))


def _console(lines: list[str]) -> Iterator[str]:
    """Commands behind a prompt, over as many lines as the shell would ask for, and what each of them answered."""
    while lines:
        if not lines[0].startswith("$ "):
            ends = next((n for n, line in enumerate(lines) if line.startswith("$ ")), len(lines))
            yield colours("".join(lines[:ends]), "json" if lines[0].startswith("{") else "text")
        else:
            ends = next((n for n in range(1, len(lines)) if _is_whole("".join(lines[:n]))), len(lines))
            yield '<span class="gp">$ </span>' + colours("".join(lines[:ends]).removeprefix("$ "), "bash")
        lines = lines[ends:]


def _is_whole(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:  # a quotation, or a backslash at the end, wants another line
        return False
    return not command.rstrip("\n").endswith(("\\", "|"))


def tabs(name: str, panels: Sequence[tuple[str, str]]) -> str:
    """Blocks of which one is seen at a time, by radio buttons: they need no script. `name` is unique on its page."""
    parts = []
    for number, (label, _) in enumerate(panels):
        checked = " checked" if number == 0 else ""
        key = html.escape(f"{name}-{number}")
        parts.append(f'<input type="radio" name="{html.escape(name)}" id="{key}"{checked}>')
        parts.append(f'<label for="{key}">{html.escape(label)}</label>')
    blocks = "".join(
        f'<div class="panel" data-language="{html.escape(label)}">{block}</div>' for label, block in panels
    )
    return f'<div class="tabs" role="group" aria-label="Language">{"".join(parts)}{blocks}</div>\n'


def _name_headings(tokens: list[Token]) -> list[Heading]:
    found: list[Heading] = []
    for token, inline in pairwise(tokens):
        if token.type != "heading_open":
            continue
        text = "".join(each.content for each in inline.children or [] if each.type in ("text", "code_inline"))
        anchor = slug(text)
        if same := sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", each.anchor) is not None for each in found):
            anchor = f"{anchor}-{same}"
        token.attrSet("id", anchor)
        found.append(Heading(int(token.tag[1]), text, anchor))
    return found


def _rewrite(tokens: list[Token], surroundings: Surroundings) -> None:
    """Give links their addresses on the site, and pictures what they show."""
    for number, token in enumerate(tokens):
        if style := token.attrs.pop("style", None):  # of a column; the policy of the pages takes no styles but ours
            token.attrSet("class", str(style).rpartition(":")[2])
        if token.type == "inline":
            in_heading = tokens[number - 1].type == "heading_open"
            _rewrite_line(token, surroundings, names={} if in_heading else surroundings.names)


def _rewrite_line(line: Token, surroundings: Surroundings, *, names: Mapping[str, str]) -> None:
    open_links: list[bool] = []
    kept = []
    for token in line.children or []:
        if token.type == "link_open":
            address = surroundings.link(str(token.attrGet("href")))
            open_links.append(address is not None)
            if address is None:
                continue
            token.attrSet("href", address)
        elif token.type == "link_close":
            if not open_links.pop():
                continue
        elif token.type == "image":
            token.meta["drawing"] = surroundings.picture(str(token.attrGet("src")))
        elif token.type == "code_inline" and not any(open_links):
            token.meta["href"] = names.get(token.content)
        kept.append(token)
    line.children = kept


def _name_cells(tokens: list[Token]) -> None:
    """Tell each cell what its column is called, and each table whether it has much to say."""
    table: Token | None = None
    names: list[str] = []
    column = 0
    for number, (token, inline) in enumerate(pairwise(tokens)):
        if token.type == "table_open":
            table, names = token, []
        elif token.type == "tr_open":
            column = 0
        elif token.type == "th_open":
            names.append(inline.content)
            if not inline.content:  # the head of nothing is none
                token.tag = tokens[number + 2].tag = "td"
        elif token.type == "td_open" and table is not None:
            token.attrSet("data-column", re.sub(r"[`*]", "", names[column]))
            table.meta["long"] = table.meta.get("long", False) or len(inline.content) > LONG_CELL
            column += 1


def _table(_: Any, tokens: Sequence[Token], number: int, *__: Any) -> str:
    kind = "table long" if tokens[number].meta.get("long") else "table"
    return f'<div class="{kind}" tabindex="0"><table>\n'


def _code_inline(_: Any, tokens: Sequence[Token], number: int, *__: Any) -> str:
    token = tokens[number]
    shown = f"<code>{html.escape(token.content, quote=False)}</code>"
    href = token.meta.get("href")
    return f'<a href="{html.escape(href)}">{shown}</a>' if href else shown


def _image(_: Any, tokens: Sequence[Token], number: int, *__: Any) -> str:
    token = tokens[number]
    return f'<span class="figure" role="img" aria-label="{html.escape(token.content)}">{token.meta["drawing"]}</span>'


def _language(token: Token) -> str:
    return token.info.split()[0] if token.type == "fence" and token.info.strip() else ""


def _fence(_: Any, tokens: Sequence[Token], number: int, *__: Any) -> str:
    """A block of code; or, of several languages that follow one another, all of them at the first."""
    first, last = number, number
    while first > 0 and _language(tokens[first - 1]) in LANGUAGES:
        first -= 1
    while last + 1 < len(tokens) and _language(tokens[last + 1]) in LANGUAGES:
        last += 1
    token = tokens[number]
    if _language(token) not in LANGUAGES or first == last:
        return code(token.content, _language(token))
    if number > first:
        return ""
    beside = tokens[first : last + 1]
    return tabs(f"block{first}", [(LANGUAGES[_language(each)], code(each.content, _language(each))) for each in beside])


def target(page: str, link: str) -> tuple[str, str]:
    """The file of the repository that a link of a page points at, and the anchor in it."""
    path, _, anchor = link.partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page, anchor
