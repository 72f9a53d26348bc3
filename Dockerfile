# slackwater as an image.
#
#   docker build -t slackwater .                     builds the program inside, too
#   dev/image                                        with a program that was built outside, without a network
#
# Both end in the same last stage; BINARY says where its program comes from.
ARG BINARY=builder

FROM docker.io/library/rust:1-bookworm AS builder
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake libssl-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p slackwater \
 && install -D --strip target/release/slackwater /out/slackwater

# A program from outside: `dev/image` gives a context that holds it, and nothing else.
FROM scratch AS prebuilt
COPY slackwater /out/slackwater

FROM ${BINARY} AS program

FROM docker.io/library/debian:bookworm-slim AS image
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin slackwater
COPY --from=program /out/slackwater /usr/local/bin/slackwater
USER 10001:10001
ENTRYPOINT ["slackwater"]
