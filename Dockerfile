# One image for every part of fraudstream: worker, one-shot commands, producers. Build: docker build -t fraudstream .

FROM python:3.12-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/fraudstream
# The dependencies are a layer of their own: it is built again only when what is declared or pinned changes.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*p['dependencies'], *p['optional-dependencies']['late-labels'], sep='\n')" > requirements.txt \
    && /opt/fraudstream/bin/pip install --constraint constraints.txt --requirement requirements.txt
RUN pip install --constraint constraints.txt hatchling
COPY README.md LICENSE ./
COPY src src
COPY producers producers
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/fraudstream/bin/pip install --no-deps dist/*.whl

# No compiler and no system library is added: the wheels bring what they link to (scikit-learn its own libgomp).
FROM python:3.12-slim-bookworm
# A fixed number, so that a volume's owner is the same in every image and `runAsNonRoot` can check it.
RUN groupadd --gid 10001 fraudstream \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin fraudstream \
    && install -d -o fraudstream -g fraudstream /var/lib/fraudstream
COPY --from=build /opt/fraudstream /opt/fraudstream
# One thread for each numerical library, set before any of them is imported: their threads would fight over the cores.
# onnxruntime 1.29 and newer reports to its publisher unless it is told not to before it is loaded.
ENV PATH=/opt/fraudstream/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    ORT_DISABLE_TELEMETRY=1 \
    FRAUDSTREAM_MODEL__REGISTRY=/var/lib/fraudstream/registry \
    FRAUDSTREAM_HEALTH_FILE=/tmp/fraudstream-status.json \
    FRAUDSTREAM_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/fraudstream
# The worker writes its status every 2 s; this asks for a fresh one that says ready. A worker that waits for Redis or
# Kafka is unhealthy but not dead: it goes on by itself, so nothing should kill it for that.
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 CMD ["fraudstream", "doctor", "--worker"]
ENTRYPOINT ["fraudstream"]
CMD ["worker"]
