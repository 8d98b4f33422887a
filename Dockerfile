# docker build .
# Where no registry or index is to be had: --build-arg BASE=… names a local image with Python >= 3.11 and pip, and a
# folder `wheels` beside this file with --build-arg PIP_NO_INDEX=1 holds what would be downloaded.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
ARG PIP_NO_INDEX
ARG SOURCE_DATE_EPOCH
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_FIND_LINKS=/src/wheels PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/run.txt wheel[s] wheels/
# Without pip in what is shipped: the base's own installs into the environment from outside.
RUN python -m venv --without-pip /opt/rotator \
 && python -m pip --python /opt/rotator/bin/python install --quiet --no-compile --require-hashes -r wheels/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY config/rotator.toml config/
COPY packaging/sbom.py packaging/
COPY systemd systemd
COPY rotator rotator
RUN python -m pip --python /opt/rotator/bin/python install --quiet --no-compile --no-deps . \
 && /opt/rotator/bin/python packaging/sbom.py > /opt/rotator/sbom.cdx.json \
 && /opt/rotator/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/rotator/lib

FROM ${BASE}
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="rotator" \
      org.opencontainers.image.description="A valid OAuth 2.0 access token, always there" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/rotator /opt/rotator
ENV PATH=/opt/rotator/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STATE_DIRECTORY=/var/lib/rotator \
    RUNTIME_DIRECTORY=/run/rotator \
    CONFIGURATION_DIRECTORY=/etc/rotator
RUN install -d -m 0700 -o 65532 -g 65532 /var/lib/rotator \
 && install -d -m 0711 -o 65532 -g 65532 /run/rotator
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["rotator", "health"]
ENTRYPOINT ["rotator"]
CMD ["run"]
