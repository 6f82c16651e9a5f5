# One image for the services, the console, the migrations and the setups; compose picks by command.
# Two builds from the same base image have the same layers: bytecode refers to no time, and every file has the same one.
ARG PYTHON=python:3.12.12-slim-bookworm

FROM ${PYTHON} AS dependencies
ENV PYTHONHASHSEED=0
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/* && python -m venv /opt/installer && python -m venv --without-pip /opt/aam
COPY requirements.txt services/console/assets.txt /
RUN /opt/installer/bin/pip --python /opt/aam/bin/python install --no-cache-dir --disable-pip-version-check --no-deps \
        --no-compile --only-binary :all: --require-hashes -r /requirements.txt \
    && /opt/installer/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes --target /assets -r /assets.txt \
    && install -D -m 0644 /assets/django_htmx/static/django_htmx/htmx-2.min.js /opt/aam/share/aam/htmx-2.min.js \
    && rm -rf /opt/installer
# Tests, type stubs, sources of extensions and debug symbols are a quarter of what the packages bring. Rich and Pygments
# would be loaded by every service: httpx, structlog and pgqueuer use them only in commands and on terminals.
RUN rm -r /opt/aam/lib/python3.*/site-packages/rich /opt/aam/lib/python3.*/site-packages/pygments \
    && find /opt/aam -type d \( -name tests -o -name test \) -prune -exec rm -r {} + \
    && find /opt/aam -type f -regextype posix-extended -regex '.*\.(pyi|pyx|pxd|c|cc|cpp|h|hpp|a|lib)' -delete \
    && find /opt/aam -type f -name '*.so' -not -path '*.libs/*' -exec strip --strip-debug {} + \
    && /opt/aam/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/aam/lib \
    && mkdir -p /layer/opt && mv /opt/aam /layer/opt/ && find /layer -exec touch --no-dereference --date=@0 {} +

FROM ${PYTHON} AS application
ENV PYTHONHASHSEED=0
WORKDIR /app
COPY alembic.ini ./
COPY deploy/passwords.sh deploy/
COPY migrations migrations
COPY shared shared
COPY services services
RUN chmod -R u=rwX,go=rX . && python -m compileall -q --invalidation-mode unchecked-hash . \
    && mkdir /layer && cp -R /app /layer/ && find /layer -exec touch --date=@0 {} +

FROM ${PYTHON}
LABEL org.opencontainers.image.title="Adaptive API Mesh"
ENV PATH=/opt/aam/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A named volume takes over the owner of the folder it is mounted on.
RUN install -d -o 10001 -g 10001 -m 0700 /run/aam /run/passwords /run/migration \
        /run/settings/orchestrator /run/settings/auth_broker /run/settings/drift_repair_agent \
        /run/settings/schema_observer /run/settings/rag_engine /run/settings/console \
        /run/keys/orchestrator /run/keys/drift_repair_agent /run/keys/public /run/key /run/first-key \
    && find /run -exec touch --date=@0 {} +
COPY --from=dependencies /layer /
COPY --from=application /layer /
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["python", "-c", "raise SystemExit('name a service: uvicorn services.<name>.main:app')"]
