# One image for the services, the console, the migrations and the setups; compose picks by command.
ARG PYTHON=python:3.12.12-slim-bookworm

FROM ${PYTHON} AS dependencies
COPY requirements.txt services/console/assets.txt /
RUN python -m venv /opt/aam \
    && /opt/aam/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes -r /requirements.txt \
    && /opt/aam/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes --target /assets -r /assets.txt \
    && install -D -m 0644 /assets/django_htmx/static/django_htmx/htmx-2.min.js \
        /opt/aam/share/aam/htmx-2.min.js

FROM ${PYTHON}
LABEL org.opencontainers.image.title="Adaptive API Mesh"
ENV PATH=/opt/aam/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A named volume takes over the owner of the folder it is mounted on.
RUN install -d -o 10001 -g 10001 -m 0700 /run/aam /run/passwords /run/migration \
        /run/settings/orchestrator /run/settings/auth_broker /run/settings/drift_repair_agent \
        /run/settings/schema_observer /run/settings/rag_engine /run/settings/console \
        /run/keys/orchestrator /run/keys/drift_repair_agent /run/keys/public /run/key /run/first-key
WORKDIR /app
COPY --from=dependencies /opt/aam /opt/aam
COPY alembic.ini ./
COPY deploy/passwords.sh deploy/
COPY migrations migrations
COPY shared shared
COPY services services
RUN python -m compileall -q migrations shared services
USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["python", "-c", "raise SystemExit('name a service: uvicorn services.<name>.main:app')"]
