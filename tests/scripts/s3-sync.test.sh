#!/usr/bin/env bash
# Tests the deployment of a built site to a bucket: what is uploaded, in which order,
# and what is deleted, against an S3 on this machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec make test-s3
