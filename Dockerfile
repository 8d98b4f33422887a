# Built with `docker build .`; where no registry is to be had: --build-arg BASE=… and a folder of wheels with
# --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/src/wheels.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/run.txt requirements/run.txt
RUN python -m venv --copies /opt/rotator \
 && /opt/rotator/bin/pip install --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY rotator rotator
RUN /opt/rotator/bin/pip install --no-deps . \
 && /opt/rotator/bin/python -m compileall -q /opt/rotator

FROM ${BASE}
LABEL org.opencontainers.image.title="rotator" \
      org.opencontainers.image.description="A valid OAuth 2.0 access token, always there" \
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
ENTRYPOINT ["rotator"]
CMD ["run"]
