"""Where the shared files (config/, urdf/, launch/, policies/) are, in a checkout and once installed."""

import os
from functools import lru_cache
from pathlib import Path

from .errors import UserError

ENVIRONMENT_VARIABLE = "HUMANOID_RL_SHARE"


def _holds_resources(directory: Path) -> bool:
    return (directory / "config").is_dir() and (directory / "urdf").is_dir()


def _is_checkout(directory: Path) -> bool:
    """Resources beside this package's sources: any folder above may happen to have a config/ and an urdf/."""
    return _holds_resources(directory) and (directory / "src" / "humanoid_rl_core").is_dir()


def share_dir() -> Path:
    """Directory that holds config/, urdf/, launch/ and policies/.

    In this order: $HUMANOID_RL_SHARE, the source checkout this module lies in (also through the links of a
    `colcon build --symlink-install`), the installed package humanoid_rl of the ament index.

    Raises:
        UserError: none of them has both config/ and urdf/.
    """
    return _share_dir(os.environ.get(ENVIRONMENT_VARIABLE, ""), os.environ.get("AMENT_PREFIX_PATH", ""))


@lru_cache
def _share_dir(override: str, ament_prefix_path: str) -> Path:
    if override:
        directory = Path(override).expanduser().resolve()
        if not _holds_resources(directory):
            raise UserError(
                f"{ENVIRONMENT_VARIABLE}={override} has no config/ and urdf/: "
                "point it to a checkout or to share/humanoid_rl"
            )
        return directory
    for directory in Path(__file__).resolve().parents:
        if _is_checkout(directory):
            return directory
    # The index is read by its documented layout, so that machines without ROS need no ament package.
    for prefix in filter(None, ament_prefix_path.split(os.pathsep)):
        directory = Path(prefix) / "share" / "humanoid_rl"
        if _holds_resources(directory):
            return directory
    raise UserError(
        "config/ and urdf/ were not found: source install/setup.bash, "
        f"or set {ENVIRONMENT_VARIABLE} to a checkout of humanoid_rl"
    )
