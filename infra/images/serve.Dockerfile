# The service that samples a registered model. docs/images.md tells how it is built.
# TORCH_BUILD=cu130 takes torch with CUDA, whose wheels bring the libraries along: the base needs only Python 3.11.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS tools
WORKDIR /build
COPY constraints.txt infra/images/install.sh ./
RUN --mount=type=cache,target=/var/cache/pip sh install.sh tools

# Torch is a layer of its own, which train and serve share.
FROM tools AS torch
ARG TORCH_BUILD=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/${TORCH_BUILD}
RUN --mount=type=cache,target=/var/cache/pip \
    sed -n "s/^torch==.*/&+${TORCH_BUILD}/p" constraints.txt > torch.txt && \
    sh install.sh packages / torch.txt --no-deps --extra-index-url "${TORCH_INDEX}"

FROM tools AS wanted
COPY pyproject.toml infra/images/requirements.py ./
RUN python3 requirements.py pyproject.toml serve > wanted.txt

FROM torch AS packages
COPY --from=wanted /build/wanted.txt ./
RUN --mount=type=cache,target=/var/cache/pip sh install.sh packages /packages wanted.txt

FROM tools AS source
COPY pyproject.toml README.md LICENSE ./
COPY platform platform
COPY components components
COPY models models
RUN sh install.sh source /source

FROM ${BASE_IMAGE}
ENV PATH=/opt/telecine/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp USER=telecine \
    PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /home/telecine
CMD ["telecine", "list"]
COPY --from=tools /build/user /
COPY --from=torch /opt/telecine /opt/telecine
COPY --from=packages /packages /
COPY --from=source /source /
ARG VERSION=unknown
ARG REVISION=
ARG SOURCE=
ENV TELECINE_GIT_COMMIT=${REVISION}
LABEL org.opencontainers.image.title="telecine-serve" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
