#!/usr/bin/env bash
# Prints the path of a Python of the version asked for, installing it with apt where that offers it:
# find_python.sh 3.12 [ROS_PREFIX]
set -euo pipefail
version=$1 ros=${2:-}
is_it() { [ "$("$1" -c 'import sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$version" ]; }
found() { for each in "$@"; do if is_it "$each"; then command -v "$each"; exit 0; fi; done; }
# An installed ROS 2 is bound to the system's Python.
if [ -f "$ros/setup.bash" ]; then
  found /usr/bin/python3
  echo "find_python: Isaac Lab needs Python $version, and the ROS 2 in $ros is bound to another" >&2
  exit 1
fi
found "python$version" "$HOME"/.pyenv/versions/"$version".*/bin/python3 "$HOME"/.local/share/uv/python/cpython-"$version"*/bin/python3
"$(dirname "$0")"/install_apt.sh --if-offered "python$version" "python$version-venv" >&2
found "python$version"
echo "find_python: Isaac Lab needs Python $version and there is none on the PATH, from pyenv, uv or apt: install one" >&2
exit 1
