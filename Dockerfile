# The worker and all it needs, for linux/amd64. docs/operations.md says how to build
# it, and how to try it where there is no Docker and no registry.
ARG GO_IMAGE=docker.io/library/golang:1.26.8-bookworm
ARG NODE_IMAGE=docker.io/library/node:22.23.3-bookworm-slim
ARG BASE_IMAGE=docker.io/library/debian:12.12-slim

FROM --platform=linux/amd64 ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG REVISION=unknown
RUN CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.revision=${REVISION}" -o /out/ ./cmd/...

# The Claude Code CLI by its native package, pinned with its hash by the lock file
# that the tests use as well.
FROM --platform=linux/amd64 ${NODE_IMAGE} AS node
WORKDIR /cli
COPY tools/npm/package.json tools/npm/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund

FROM --platform=linux/amd64 ${BASE_IMAGE}
# git's second level and bubblewrap's version are those of Debian 12; what follows
# them are Debian's own security fixes, which are wanted.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
       bubblewrap=0.8.0-* ca-certificates git=1:2.39.* \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 1000 appuser \
    && useradd --uid 1000 --gid 1000 --create-home --home-dir /home/appuser --shell /usr/sbin/nologin appuser \
    && install --directory --owner=appuser --group=appuser /workspace /mnt/efs
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules/npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
    && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
COPY --from=node /cli/node_modules/@anthropic-ai/claude-code-linux-x64/claude /usr/local/bin/claude
COPY --from=build /out/webordinary /out/keeper /usr/local/bin/
# Setuid: it gives each project's agent and packages a user of their own. Only the
# worker's group may execute it, and it looks whether it was installed like this.
# (Not by COPY --chmod: not every builder takes the setuid bit there.)
RUN chown root:appuser /usr/local/bin/keeper && chmod 4750 /usr/local/bin/keeper
COPY --from=build /out/keeper /usr/local/bin/webordinary-keeper

ARG VERSION=devel
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Claude Code Container" \
      org.opencontainers.image.description="Turns plain-language instructions into deployed websites" \
      org.opencontainers.image.source="https://github.com/webordinary/claude-code-container" \
      org.opencontainers.image.vendor="WebOrdinary" \
      org.opencontainers.image.licenses="LicenseRef-Proprietary" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV LANG=C.UTF-8 HOME=/home/appuser
USER appuser
# Not a directory that an instruction may write to: run reads .env.local here.
WORKDIR /
# All that is written; the rest may be read-only.
VOLUME ["/workspace", "/mnt/efs", "/tmp"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/local/bin/webordinary", "health"]
# The worker is process 1 itself, and collects orphans.
ENTRYPOINT ["/usr/local/bin/webordinary"]
CMD ["run"]
