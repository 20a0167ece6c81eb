# The exporter of metrics about runs and GPUs. docs/images.md tells how it is built.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS tools
WORKDIR /build
COPY constraints.txt infra/images/install.sh ./
RUN --mount=type=cache,target=/var/cache/pip sh install.sh tools

FROM tools AS wanted
COPY pyproject.toml infra/images/requirements.py ./
RUN python3 requirements.py pyproject.toml monitor > wanted.txt

FROM tools AS packages
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
    PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /home/telecine
CMD ["telecine", "list"]
COPY --from=tools /build/user /
COPY --from=tools /opt/telecine /opt/telecine
COPY --from=packages /packages /
COPY --from=source /source /
ARG VERSION=unknown
ARG REVISION=
ARG SOURCE=
ENV TELECINE_GIT_COMMIT=${REVISION}
LABEL org.opencontainers.image.title="telecine-monitor" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
