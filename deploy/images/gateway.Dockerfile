# The gateway; no torch.  docker build -f deploy/images/gateway.Dockerfile -t visavis/gateway:TAG .
# BASE is pinned by its tag until `make pin-images` has asked the registry for the digest (docs/operations.md).
ARG BASE=python:3.12-slim-trixie

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python -m venv /opt/visavis
COPY constraints.txt pyproject.toml setup.py README.md LICENSE ./
COPY configs configs
COPY visavis visavis
RUN --mount=type=cache,target=/root/.cache \
    /opt/visavis/bin/pip install --constraint constraints.txt '.[gateway,tracing]'

FROM ${BASE} AS run
COPY --from=build /opt/visavis /opt/visavis
WORKDIR /app
COPY gateway gateway
# The root file system may be read-only; nothing is written.
ENV PATH=/opt/visavis/bin:${PATH} \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    VISAVIS_LISTEN_ADDRESS=0.0.0.0:50050 \
    VISAVIS_METRICS_ADDRESS=0.0.0.0:9464 \
    VISAVIS_HEALTH_ADDRESS=0.0.0.0:50060
USER 10001:10001
EXPOSE 50050 9464 50060
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 CMD ["visavis", "health", "127.0.0.1:50060"]
ENTRYPOINT ["python", "-m", "gateway"]
