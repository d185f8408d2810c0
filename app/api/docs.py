"""What people read: the contract, and the pages of app/site about it and about everything in docs/.

Nothing here names another host, and the policy of each page lets a browser ask none: the files of Swagger UI come
out of a package. Nothing here needs a key either, since nothing here says anything about anybody's books.
"""

from __future__ import annotations

import asyncio
import html
import json
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from app.api.compression import accepts_gzip, gzip
from app.api.contract import CONTRACT
from app.api.problems import STATUS
from app.ledger.refusals import RouteNotFound

if TYPE_CHECKING:
    from app.site.pages import Site

router = APIRouter(include_in_schema=False)

# Scripts and styles only from files of ours; `data:` because Swagger UI's style sheet draws its icons so.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GUARDS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # Everything is asked for again, so that no page outlives its version; mostly the answer is a short 304.
    "Cache-Control": "no-cache",
}

TRY_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Try it out · {title}</title>
<link rel="icon" href="/docs/assets/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
<link rel="stylesheet" href="/docs/assets/try.css">
</head>
<body>
<p class="back"><a href="/docs">{title}</a> · <a href="/docs/reference">Reference, with examples</a></p>
<main id="docs">
<noscript>This page needs JavaScript. The <a href="/docs/reference">reference</a> does not.</noscript>
</main>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/try.js"></script>
</body>
</html>
"""

# Its bytes, its media type, its tag, and its bytes once more in gzip.
type File = tuple[bytes, str, str, bytes]


@router.get("/docs", response_model=None, response_class=HTMLResponse)
@router.get("/docs/{page:path}", response_model=None, response_class=HTMLResponse)
@router.get("/problems", response_model=None, response_class=HTMLResponse)
@router.get("/problems/{code}", response_model=None, response_class=HTMLResponse)
async def get_page(request: Request) -> Response:
    # In a thread: the first look at a page makes it, and meanwhile others post.
    file = await asyncio.to_thread(_file_at, request.scope["path"])
    if file is None:
        raise RouteNotFound()
    return _answer(request, *file)


@router.get("/openapi.json", response_model=None, response_class=Response)
async def get_contract_as_json(request: Request) -> Response:
    return _answer(request, *CONTRACT_JSON)


@router.get("/openapi.yaml", response_model=None, response_class=Response)
async def get_contract_as_yaml(request: Request) -> Response:
    return _answer(request, *CONTRACT_YAML)


def _answer(request: Request, content: bytes, media_type: str, etag: str, packed: bytes) -> Response:
    packed_etag = f'{etag[:-1]}-gzip"'  # other bytes, so another tag
    headers = GUARDS | {"ETag": etag, "Vary": "Accept-Encoding"}
    request.scope["guarded"] = True
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    packs = len(packed) < len(content) and accepts_gzip(request.headers.get("accept-encoding", "").encode("latin-1"))
    if packs:
        headers["ETag"] = packed_etag
    if known & {etag, packed_etag, "*"}:
        return Response(status_code=304, headers=headers)
    if packs:
        headers["Content-Encoding"] = "gzip"
        content = packed
    return Response(content, media_type=media_type, headers=headers)


_made: dict[str, File] = {}


def _file_at(path: str) -> File | None:
    """What is served at an address below /docs or /problems; made once. Addresses of nothing are not kept."""
    if path not in _made:
        file = _make(path)
        if file is None:
            return None
        _made[path] = file
    return _made[path]


def _make(path: str) -> File | None:
    if path.startswith("/docs/assets/"):
        return _asset(path.removeprefix("/docs/assets/"))
    if path == "/docs/try":
        return _file(TRY_PAGE.format(title=html.escape(CONTRACT.document["info"]["title"])), "text/html")
    page = _site().page(path)
    return None if page is None else _file(page, "text/html")


@cache
def _site() -> Site:
    # Imported here, so that a service whose documentation nobody reads starts without what renders it.
    from app.site.pages import Site

    return Site(CONTRACT.document, STATUS)


ASSETS = {
    "swagger-ui-bundle.js": ("fastapi_swagger", "resources", "text/javascript"),
    "swagger-ui.css": ("fastapi_swagger", "resources", "text/css"),
    "icon.svg": ("app.site", "assets", "image/svg+xml"),
    "site.css": ("app.site", "assets", "text/css"),
    "site.js": ("app.site", "assets", "text/javascript"),
    "try.css": ("app.site", "assets", "text/css"),
    "try.js": ("app.site", "assets", "text/javascript"),
}


def _asset(name: str) -> File | None:
    if name not in ASSETS:
        return None
    package, folder, media_type = ASSETS[name]
    return _file((files(package) / folder / name).read_bytes(), media_type)


def _file(content: bytes | str, media_type: str) -> File:
    content = content.encode() if isinstance(content, str) else content
    return content, media_type, f'"{sha256(content).hexdigest()[:32]}"', gzip(content, level=6)


CONTRACT_JSON = _file(json.dumps(CONTRACT.document, ensure_ascii=False, separators=(",", ":")), "application/json")
CONTRACT_YAML = _file(CONTRACT.source, "application/yaml")
