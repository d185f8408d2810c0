# The service and its migrations in one image: the command serves on PORT, `alembic upgrade head` migrates,
# `cat /srv/sbom.cdx.json` says what is in it.
FROM ghcr.io/astral-sh/uv:0.13 AS uv

FROM python:3.13-slim AS build
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/srv/venv
WORKDIR /srv/tallystick
# Before the source, so that a change of it alone does not install everything again.
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=pyproject.toml,target=/srv/tallystick/pyproject.toml \
    --mount=type=bind,source=uv.lock,target=/srv/tallystick/uv.lock \
    uv sync --locked --no-default-groups --group traces && \
    uv export --quiet --locked --no-default-groups --group traces --format cyclonedx1.5 \
        --output-file /srv/sbom.cdx.json
COPY openapi.yaml alembic.ini README.md CHANGELOG.md ./
COPY docs docs
COPY alembic alembic
COPY generated generated
COPY app app
# The running user may write nothing, so what Python would cache is made here.
RUN python -m compileall -q alembic generated app

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Tallystick" \
      org.opencontainers.image.description="A double-entry ledger as a service, on plain Postgres" \
      org.opencontainers.image.licenses="Apache-2.0"
# Nothing is installed after this.
RUN python -m pip uninstall --yes --root-user-action=ignore pip
COPY --from=build /srv /srv
WORKDIR /srv/tallystick
ENV PATH=/srv/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOST=0.0.0.0 PORT=8000 LOG_FORMAT=json
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; asked = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=3); asked.request('GET', '/readyz'); sys.exit(asked.getresponse().status != 200)"]
CMD ["python", "-m", "app"]
