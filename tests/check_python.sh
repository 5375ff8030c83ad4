#!/usr/bin/env bash
# All Python is as ruff formats it and has nothing to say about it (ruff.toml; the version in tests/requirements.txt, since
# others differ in details). Exit code 77: skipped. To format and mend: tests/check_python.sh -i
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^ruff==//p' tests/requirements.txt)
for tool in .venv/bin/ruff ruff ""; do
    [ -n "$tool" ] || { echo "SKIPPED: no ruff $version; ./quickstart test makes one in .venv"; exit 77; }
    [ "$("$tool" --version 2>/dev/null)" = "ruff $version" ] && break
done
if [ "${1-}" = -i ]; then
    "$tool" check --no-cache --fix .
    exec "$tool" format --no-cache .
fi
"$tool" format --no-cache --diff .
"$tool" check --no-cache .
