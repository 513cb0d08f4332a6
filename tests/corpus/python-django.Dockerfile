# syntax=docker/dockerfile:1
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1
RUN apt-get update \
    && apt-get install -y --no-install-recommends libpq5 gettext \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential libpq-dev
WORKDIR /src
COPY requirements/*.txt requirements/
RUN python -m venv /venv && /venv/bin/pip install -r requirements/production.txt

FROM base
ENV PATH="/venv/bin:$PATH" DJANGO_SETTINGS_MODULE=site.settings.production
RUN groupadd --gid 1000 django && useradd --uid 1000 --gid django --create-home django
COPY --from=build /venv /venv
WORKDIR /app
COPY --chown=django:django manage.py ./
COPY --chown=django:django site/ site/
RUN SECRET_KEY=dummy python manage.py collectstatic --noinput
USER django
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s --retries=3 \
    CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"
ENTRYPOINT ["python", "manage.py"]
CMD ["runserver", "0.0.0.0:8000"]
