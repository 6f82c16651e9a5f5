# One image for the five services, the migrations and the setups; compose picks by command.
ARG PYTHON=python:3.12.12-slim-bookworm

FROM ${PYTHON} AS dependencies
COPY requirements.txt /
RUN python -m venv /opt/aam \
    && /opt/aam/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes -r /requirements.txt

FROM ${PYTHON}
LABEL org.opencontainers.image.title="Adaptive API Mesh"
ENV PATH=/opt/aam/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A named volume takes over the owner of the folder it is mounted on.
RUN install -d -o 10001 -g 10001 -m 0700 /run/aam /run/passwords /run/migration \
        /run/settings/orchestrator /run/settings/auth_broker /run/settings/drift_repair_agent \
        /run/settings/schema_observer /run/settings/rag_engine \
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
