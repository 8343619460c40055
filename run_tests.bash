#!/usr/bin/env bash
# Set up and run the checks: bash run_tests.bash [pytest arguments]
# Without arguments: lint and everything but the slow tests. The slow ones: bash run_tests.bash -m slow
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/environment.bash
set_up_environment requirements-dev.txt
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
[ $# -gt 0 ] || set -- -m "not slow" --durations=10
exec "$PYTHON" -m pytest "$@"
