"""What people read: the contract, a page that shows it, and a page for each code of refusal.

Nothing here names another host, and the policy of each page lets a browser ask none: the files of Swagger UI come
out of a package. Nothing here needs a key either, since nothing here says anything about anybody's books.
"""

import html
import inspect
import json
import re
from hashlib import sha256
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from app.api.contract import CONTRACT
from app.ledger.refusals import REFUSALS, Refusal, RouteNotFound

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

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/docs/assets/favicon-32x32.png">
{styles}
</head>
<body>
{body}
</body>
</html>
"""

DOCS_STYLES = """<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
<link rel="stylesheet" href="/docs/assets/docs.css">"""

DOCS_BODY = """<main id="docs">
<noscript>This page needs JavaScript. The contract itself is at <a href="/openapi.yaml">/openapi.yaml</a>.</noscript>
</main>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/docs.js"></script>"""

# No validator and no link to the licence's text, which are other hosts'; the key is forgotten with the page, not
# kept in the browser. The extensions are the codes of each refusal.
DOCS_SCRIPT = """const none = () => null;
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  plugins: [() => ({ components: { License: none, OAS31License: none } })],
  validatorUrl: null,
  deepLinking: true,
  displayRequestDuration: true,
  showExtensions: true,
  defaultModelsExpandDepth: 0,
  persistAuthorization: false
});
"""

# Swagger UI lays its tables out for wide screens: on a phone their cells go below each other.
DOCS_STYLE = """body { margin: 0; }
#docs { overflow-x: clip; }
noscript { display: block; margin: 2rem; font-family: sans-serif; }
.swagger-ui .info { margin: 2rem 0 1rem; }
@media (max-width: 640px) {
  .swagger-ui .wrapper { padding: 0 12px; }
  .swagger-ui .scheme-container .schemes { flex-direction: column; gap: 1rem; }
  .swagger-ui .opblock-summary-path { max-width: none; flex-basis: 60%; }
  .swagger-ui .opblock-summary-description { display: none; }
  .swagger-ui .table-container { padding: 10px; }
  .swagger-ui .opblock-body table:not(.headers) > thead { display: none; }
  .swagger-ui .opblock-body table:not(.headers) > tbody > tr > td { display: block; width: auto; max-width: none; }
  .swagger-ui .opblock-body .response-col_links { display: none !important; }
  .swagger-ui .parameters-col_description input { max-width: 100%; }
}
"""

PROBLEM_STYLES = '<link rel="stylesheet" href="/docs/assets/problem.css">'

PROBLEM_STYLE = """:root { color-scheme: light dark; font: 1.0625rem/1.55 system-ui, sans-serif; }
body { max-width: 42rem; margin: 0 auto; padding: 2rem 1.25rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.25rem 0 1rem; }
code { font-family: ui-monospace, monospace; font-size: 0.9em; overflow-wrap: anywhere; }
footer { margin-top: 2.5rem; font-size: 0.9em; }
"""


@router.get("/docs", response_model=None, response_class=HTMLResponse)
async def get_docs(request: Request) -> Response:
    return _answer(request, *DOCS_PAGE)


@router.get("/docs/assets/{name}", response_model=None, response_class=Response)
async def get_asset(request: Request, name: str) -> Response:
    if name not in ASSETS:
        raise RouteNotFound()
    return _answer(request, *ASSETS[name])


@router.get("/openapi.json", response_model=None, response_class=Response)
async def get_contract_as_json(request: Request) -> Response:
    return _answer(request, *CONTRACT_JSON)


@router.get("/openapi.yaml", response_model=None, response_class=Response)
async def get_contract_as_yaml(request: Request) -> Response:
    return _answer(request, *CONTRACT_YAML)


@router.get("/problems/{code}", response_model=None, response_class=HTMLResponse)
async def get_problem(request: Request, code: str) -> Response:
    if code not in PROBLEM_PAGES:
        raise RouteNotFound()
    return _answer(request, *PROBLEM_PAGES[code])


def _answer(request: Request, content: bytes, media_type: str, etag: str) -> Response:
    headers = GUARDS | {"ETag": etag}
    request.scope["guarded"] = True
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if known & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


type File = tuple[bytes, str, str]


def _file(content: bytes | str, media_type: str) -> File:
    content = content.encode() if isinstance(content, str) else content
    return content, media_type, f'"{sha256(content).hexdigest()[:32]}"'


def _page(*, title: str, styles: str, body: str) -> File:
    return _file(PAGE.format(title=html.escape(title), styles=styles, body=body), "text/html")


def _packaged(name: str, media_type: str) -> File:
    return _file((files("fastapi_swagger") / "resources" / name).read_bytes(), media_type)


def _where_answered(document: dict[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """Each code that the contract documents, with its status and the operations that answer it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if reference := response.get("$ref"):
                    response = document["components"]["responses"][reference.rsplit("/", 1)[1]]
                for code in response.get("x-codes", []):
                    found.setdefault(code, (status, []))[1].append(operation["operationId"])
    return found


def _problem_page(refusal: type[Refusal], answered: tuple[str, list[str]] | None) -> File:
    paragraphs = re.split(r"\n\s*\n", html.escape(inspect.getdoc(refusal) or ""))
    text = "\n".join(f"<p>{re.sub(r'`(.+?)`', r'<code>\1</code>', each)}</p>" for each in paragraphs)
    status, operations = answered or ("", [])
    if operations:
        names = ", ".join(f"<code>{html.escape(name)}</code>" for name in operations)
        text += f"\n<p>Answered with status {status} by {names}.</p>"
    body = f"""<main>
<code>{refusal.code}</code>
<h1>{html.escape(refusal.title)}</h1>
{text}
</main>
<footer><a href="/docs">All operations</a></footer>"""
    return _page(title=refusal.title, styles=PROBLEM_STYLES, body=body)


CONTRACT_JSON = _file(json.dumps(CONTRACT.document, ensure_ascii=False, separators=(",", ":")), "application/json")
CONTRACT_YAML = _file(CONTRACT.source, "application/yaml")
DOCS_PAGE = _page(title=CONTRACT.document["info"]["title"], styles=DOCS_STYLES, body=DOCS_BODY)
ASSETS = {
    "swagger-ui-bundle.js": _packaged("swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": _packaged("swagger-ui.css", "text/css"),
    "favicon-32x32.png": _packaged("favicon-32x32.png", "image/png"),
    "docs.js": _file(DOCS_SCRIPT, "text/javascript"),
    "docs.css": _file(DOCS_STYLE, "text/css"),
    "problem.css": _file(PROBLEM_STYLE, "text/css"),
}
PROBLEM_PAGES = {
    code: _problem_page(refusal, _where_answered(CONTRACT.document).get(code)) for code, refusal in REFUSALS.items()
}
