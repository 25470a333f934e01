#!/usr/bin/env bash
# Writes requirements/constraints.txt anew: the newest versions that requirements/*.txt admit, from a fresh environment.
# `lock.sh isaac` does so for requirements/isaac-constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = isaac ]; then
  locked=requirements/isaac-constraints.txt files=(isaac ros)
else
  locked=requirements/constraints.txt files=(base ros dev)
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/lock.XXXXXX")
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check $(printf -- "-r requirements/%s.txt " "${files[@]}")
"$work/venv/bin/pip" freeze >"$work/frozen"
# A constraint has to be a plain version: torch==2.13.0+cpu is 2.13.0 on every index.
if grep -vE '^[A-Za-z0-9._-]+==[^ ]+$' "$work/frozen"; then
  echo "lock: the lines above are not NAME==VERSION; $locked is unchanged" >&2
  exit 1
fi
{ grep '^#' "$locked"; sed 's/+[^+]*$//' "$work/frozen"; } >"$work/constraints"
install -m 644 "$work/constraints" "$locked.new"
mv "$locked.new" "$locked"
echo "$(grep -c == "$locked") versions in $locked"
