#!/usr/bin/env bash
# Runs a command in the environment of the workspace.
set -euo pipefail
source /workspace/tools/environment.sh
exec "$@"
