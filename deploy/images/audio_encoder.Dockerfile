# The audio encoder. With CUDA:  docker build -f deploy/images/audio_encoder.Dockerfile -t visavis/audio-encoder:TAG .
# For processors:  add --build-arg BASE=ubuntu:24.04 --build-arg TORCH_BUILD=cpu  and tag it TAG-cpu.
# torch brings CUDA's libraries itself; the base carries what NVIDIA's container toolkit looks for.
# BASE is pinned by its tag until `make pin-images` has asked the registry for the digest (docs/operations.md).
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE} AS build
ARG TORCH_BUILD=cuda
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY constraints.txt constraints-cpu.txt ./
# First and alone: gigabytes that change rarely. uv knows where PyTorch's processor builds are (docs/decisions/0001).
RUN --mount=type=cache,target=/root/.cache \
    python3 -m venv /opt/visavis \
    && if [ "${TORCH_BUILD}" = cpu ]; then \
        python3 -m venv /opt/uv \
        && /opt/uv/bin/pip install --constraint constraints.txt uv \
        && /opt/uv/bin/uv pip install --python /opt/visavis/bin/python --torch-backend cpu \
            --constraint constraints.txt torch; \
    else \
        /opt/visavis/bin/pip install --constraint constraints.txt torch; \
    fi
COPY pyproject.toml setup.py README.md LICENSE ./
COPY configs configs
COPY visavis visavis
RUN --mount=type=cache,target=/root/.cache \
    if [ "${TORCH_BUILD}" = cpu ]; then \
        /opt/visavis/bin/pip install --constraint constraints.txt --constraint constraints-cpu.txt '.[audio-encoder,tracing]'; \
    else \
        /opt/visavis/bin/pip install --constraint constraints.txt '.[audio-encoder,tracing]'; \
    fi

FROM ${BASE} AS run
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/visavis /opt/visavis
WORKDIR /app
COPY services/*.py services/
COPY services/audio_encoder services/audio_encoder
# Of the presets that have been trained; the library looks here (visavis/models/shipped_weights.py).
COPY weights /opt/visavis/share/visavis/weights
# The root file system may be read-only; /tmp is all that is written to.
ENV PATH=/opt/visavis/bin:${PATH} \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    VISAVIS_LISTEN_ADDRESS=0.0.0.0:50051 \
    VISAVIS_METRICS_ADDRESS=0.0.0.0:9464 \
    VISAVIS_HEALTH_ADDRESS=0.0.0.0:50060
USER 10001:10001
EXPOSE 50051 9464 50060
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=6 CMD ["visavis", "health", "127.0.0.1:50060"]
ENTRYPOINT ["python", "-m", "services.audio_encoder"]
