# The image of the daemon. Both stages are the same Python, the one that the suite runs on.
# Pin it by digest: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Everything that is downloaded is pinned by hash, the build back end included.
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m pip install --require-hashes --only-binary :all: --requirement requirements/build.txt
RUN python -m venv --without-pip /opt/certbaton \
    && python -m pip --python /opt/certbaton/bin/python install --no-compile \
        --require-hashes --only-binary :all: --requirement requirements/runtime.txt

# certbaton itself, with nothing fetched any more.
COPY pyproject.toml README.md ./
COPY daemon daemon
RUN python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m pip --python /opt/certbaton/bin/python install --no-compile \
        --no-index --no-deps /wheels/*.whl

# The asynchronous half of the Kubernetes client, and what only that needs: 50 of 130 MB.
# tests/chart/test_image.py imports the daemon without them.
RUN python -m pip --python /opt/certbaton/bin/python uninstall --yes \
        aiohappyeyeballs aiohttp aiohttp-retry aiosignal frozenlist multidict propcache yarl \
    && rm -r /opt/certbaton/lib/python3*/site-packages/kubernetes/aio
# The root file system is read-only, so byte code comes with it; but not that of the client's
# typed API, which is never loaded.
RUN python -m compileall -q --invalidation-mode unchecked-hash \
        -x 'kubernetes/client/(api|models)/[a-z]' /opt/certbaton/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="certbaton" \
      org.opencontainers.image.description="Obtains, renews and hands over TLS certificates" \
      org.opencontainers.image.licenses="Apache-2.0"
# Nothing is installed in a running container.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore setuptools wheel pip \
    && rm -rf /usr/local/lib/python3*/ensurepip "${HOME}/.cache"
COPY --from=build /opt/certbaton /opt/certbaton
ENV HOME=/tmp \
    PATH=/opt/certbaton/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["certbaton"]
CMD ["run", "--config", "/etc/certbaton/config.yaml"]
