# One image for every service: a static program, the certificates that it trusts, and two empty directories.
#
#   docker build -t aileron .                                            for this machine
#   docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7 .  for all
#
# BuildKit builds it, which is what Docker has used since version 23. Where no registry can be reached, deploy/image
# makes the same image of a program that was built outside.

FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates clang musl-tools python3-pip \
 && pip install --break-system-packages --no-cache-dir cargo-zigbuild ziglang
WORKDIR /src
COPY . .
ARG TARGETARCH
# Told by GET /health; the image has no repository to find it in.
ARG MANAGER_COMMIT
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    deploy/build aileron-image "$TARGETARCH" /out/image/aileron
RUN install -D -m 644 /etc/ssl/certs/ca-certificates.crt /out/image/etc/ssl/certs/ca-certificates.crt \
 && install -d /out/own/state /out/own/data

# From here on deploy/image takes it word by word; /out is then a directory that it has filled.
FROM scratch
LABEL org.opencontainers.image.title="Aileron" \
      org.opencontainers.image.description="Federated learning over MQTT" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
COPY --from=build /out/image/ /
# New volumes take the owner of the directory that they are mounted on.
COPY --from=build --chown=65532:65532 /out/own/ /
USER 65532:65532
WORKDIR /state
ENTRYPOINT ["/aileron"]
CMD ["--help"]
