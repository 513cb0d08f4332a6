FROM ghcr.io/astral-sh/uv:0.5.4 AS uv

FROM python:3.13-slim
COPY --from=uv /uv /uvx /bin/
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
WORKDIR /app
RUN --mount=type=cache,target=/var/cache/uv,id=uv \
    --mount=type=bind,source=uv.lock,target=uv.lock \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    UV_CACHE_DIR=/var/cache/uv uv sync --frozen --no-install-project
COPY . /app
RUN --mount=type=cache,target=/var/cache/uv,id=uv \
    UV_CACHE_DIR=/var/cache/uv uv sync --frozen
ENV PATH="/app/.venv/bin:$PATH"
CMD ["fastapi", "run", "src/app"]
