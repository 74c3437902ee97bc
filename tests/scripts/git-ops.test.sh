#!/usr/bin/env bash
# Tests what the worker does with git: clone, thread branches, commits, merges and
# pushes, against a real git server on this machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec make test-git
