# syntax=docker/dockerfile:1

# The gateway alone, without Postgres: DATABASE_URL is required, and `serve` says so if it is
# missing. For the embedded database, build on this image: as root install postgresql, go back to
# user 10001, and mount a volume that this user owns at /var/lib/tollgate.

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

# Build ----------------------------------------------------------------------------------------
FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
WORKDIR /build

# The dependencies by themselves, under empty targets: this layer is made again only when
# Cargo.toml or Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/consume benches/ingest \
    && touch src/lib.rs \
    && echo 'fn main() {}' | tee src/main.rs benches/consume/main.rs > benches/ingest/main.rs \
    && cargo build --release --locked --bin tollgate \
    && rm -r src

# The benchmarks' empty targets stay: Cargo.toml names them. askama.toml says where templates are.
COPY askama.toml ./
COPY migrations migrations
COPY src src
# Files keep the times they have outside, which may be older than the empty build.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin tollgate \
    && target/release/tollgate --version

# Run ------------------------------------------------------------------------------------------
FROM debian:${DEBIAN}-slim
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Tollgate" \
      org.opencontainers.image.description="A Stripe webhook ingestion gateway: each signed event becomes one committed Postgres transaction" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"

# Roots for TLS to the database. Not pinned: a rebuild is to bring the newest.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 tollgate \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /var/lib/tollgate --shell /usr/sbin/nologin tollgate

COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/tollgate/
COPY --from=build /build/target/release/tollgate /usr/local/bin/tollgate

# A tollgate.toml mounted here is read without further ado.
WORKDIR /etc/tollgate
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
ENV TOLLGATE_LISTEN=0.0.0.0:8080 \
    TOLLGATE_DATA_DIR=/var/lib/tollgate
# The dashboard listens on loopback unless TOLLGATE_ADMIN_LISTEN and TOLLGATE_ADMIN_TOKEN are set.
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# The start period covers the wait for a database that comes up at the same time.
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 \
    CMD ["tollgate", "healthcheck"]
ENTRYPOINT ["tollgate"]
CMD ["serve"]
