#!/usr/bin/env bash
# One file of tests/e2e under the project's .venv, else under the Python that CMake found. Exit code 77: skipped.
set -euo pipefail
for python in "$(dirname "$0")/../.venv/bin/python" "${PYTHON_FALLBACK:-python3}"; do
    if "$python" -c 'import h5py, numpy, pytest' 2>/dev/null; then
        exec "$python" -m pytest -q -rs -p no:cacheprovider "$@"
    fi
done
echo "SKIPPED: no Python with pytest and h5py; ./quickstart test makes one in .venv"
exit 77
