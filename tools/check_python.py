"""Exits with one clear line unless this interpreter is one the pinned wheels exist for."""

import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        f"humanoid_rl needs Python 3.11, 3.12 or 3.13, found {sys.version.split()[0]}: "
        "install one and run make with PYTHON=python3.11"
    )
