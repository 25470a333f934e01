#!/usr/bin/env bash
# Installs the Debian/Ubuntu packages named, if they are missing: install_apt.sh PACKAGE...
set -euo pipefail
missing=()
for package in "$@"; do
  # A tool that is already on the PATH needs no package.
  command -v "$package" >/dev/null || dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo)
echo "installing with apt: ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
