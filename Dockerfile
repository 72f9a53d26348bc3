# slackwater as an image.
#
#   docker build -t slackwater .                     builds the program inside, too
#   docker build -t slackwater-demo --target demo .  with the demo beside it, for docker-compose.yml
#   dev/image [--demo]                               with programs that were built outside, without a network
#
# All end in the same stages; BINARY and DEMO_BINARY say where their programs come from.
ARG BINARY=builder
ARG DEMO_BINARY=demo-builder

FROM docker.io/library/rust:1-bookworm AS builder
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake libssl-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p slackwater \
 && install -D --strip target/release/slackwater /out/slackwater

FROM builder AS demo-builder
RUN cargo build --release --locked -p slackwater-migrations \
 && install -D --strip target/release/crm-demo /out/crm-demo

# Programs from outside: `dev/image` gives a context that holds them, and nothing else.
FROM scratch AS prebuilt
COPY slackwater /out/slackwater

FROM scratch AS demo-prebuilt
COPY crm-demo /out/crm-demo

FROM ${BINARY} AS program
FROM ${DEMO_BINARY} AS demo-program

FROM docker.io/library/debian:bookworm-slim AS base
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin slackwater
COPY --from=program /out/slackwater /usr/local/bin/slackwater
USER 10001:10001

FROM base AS demo
COPY --from=demo-program /out/crm-demo /usr/local/bin/crm-demo
COPY migrations/crm_demo/demo migrations/crm_demo/migration.yaml /usr/local/share/crm-demo/
ENTRYPOINT ["/usr/local/share/crm-demo/demo"]

# What is built where no stage is named.
FROM base AS image
ENTRYPOINT ["slackwater"]
