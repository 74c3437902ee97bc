#!/usr/bin/env bash
# Builds the image and runs programs and a whole command in it, on a read-only root:
# by Docker where it answers, else by buildah (make image-test, as root).
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! docker info >/dev/null 2>&1; then
	exec make image-test
fi
image=webordinary/claude-code:latest
docker build --platform linux/amd64 --tag "$image" .
run() { docker run --rm --platform linux/amd64 --read-only "$@"; }
run "$image" version
if run "$image" health; then
	echo "health says that a worker lives, and there is none" >&2
	exit 1
fi
run -e ANTHROPIC_API_KEY= "$image" demo --output json --dir /workspace/demo
