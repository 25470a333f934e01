#!/usr/bin/env bash
# Installs the Debian/Ubuntu packages named, if they are missing: install_apt.sh [--if-offered] PACKAGE...
# With --if-offered, a package that the distribution does not have is named in one line instead of an error.
set -euo pipefail
if_offered=; [ "${1:-}" = --if-offered ] && { if_offered=1; shift; }
missing=()
for package in "$@"; do
  # A tool that is already on the PATH needs no package.
  command -v "$package" >/dev/null && continue
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [[ $status == *'ok installed'* ]] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo)
echo "installing with apt: ${missing[*]}"
"${sudo[@]}" apt-get update -qq
if [ -n "$if_offered" ]; then
  offered=()
  for package in "${missing[@]}"; do
    # Into a variable first: `grep -q` at the end of a pipe leaves early, and pipefail calls that a failure.
    policy=$(LC_ALL=C apt-cache policy "$package")
    if grep -q '^  Candidate: [^(]' <<<"$policy"; then offered+=("$package")
    else echo "apt has no package $package here; going on without it"; fi
  done
  [ ${#offered[@]} -eq 0 ] && exit 0
  missing=("${offered[@]}")
fi
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
