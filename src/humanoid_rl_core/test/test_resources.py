"""Finding config/ and urdf/ in a checkout, by environment variable and in an installed workspace."""

from pathlib import Path

import pytest
from humanoid_rl_core.errors import UserError

from humanoid_rl_core import resources


def make_share(directory: Path) -> Path:
    (directory / "config").mkdir(parents=True)
    (directory / "urdf").mkdir()
    return directory


def test_environment_variable_comes_first(tmp_path, monkeypatch):
    share = make_share(tmp_path / "mine")
    monkeypatch.setenv("HUMANOID_RL_SHARE", str(share))
    assert resources.share_dir() == share


def test_environment_variable_to_a_wrong_place_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HUMANOID_RL_SHARE", str(tmp_path))
    with pytest.raises(UserError, match=r"HUMANOID_RL_SHARE=.* has no config/ and urdf/"):
        resources.share_dir()


def test_checkout_is_found_through_the_links_of_a_symlink_install(tmp_path, monkeypatch):
    share = make_share(tmp_path / "checkout")
    real = share / "src" / "humanoid_rl_core" / "humanoid_rl_core" / "resources.py"
    real.parent.mkdir(parents=True)
    real.touch()
    link = tmp_path / "install" / "resources.py"
    link.parent.mkdir()
    link.symlink_to(real)
    monkeypatch.delenv("HUMANOID_RL_SHARE", raising=False)
    monkeypatch.setattr(resources, "__file__", str(link))
    resources._share_dir.cache_clear()
    try:
        assert resources.share_dir() == share
    finally:
        resources._share_dir.cache_clear()


def test_folders_that_happen_to_be_above_the_module_are_no_checkout(tmp_path, monkeypatch):
    make_share(tmp_path)
    share = make_share(tmp_path / "prefix" / "share" / "humanoid_rl")
    monkeypatch.delenv("HUMANOID_RL_SHARE", raising=False)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "prefix" / "site-packages" / "resources.py"))
    resources._share_dir.cache_clear()
    try:
        assert resources.share_dir() == share
    finally:
        resources._share_dir.cache_clear()


def test_installed_package_is_found_by_the_ament_prefix_path(tmp_path, monkeypatch):
    share = make_share(tmp_path / "prefix" / "share" / "humanoid_rl")
    monkeypatch.delenv("HUMANOID_RL_SHARE", raising=False)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'other'}:{tmp_path / 'prefix'}")
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "site-packages" / "resources.py"))
    resources._share_dir.cache_clear()
    try:
        assert resources.share_dir() == share
        monkeypatch.setenv("AMENT_PREFIX_PATH", "")
        with pytest.raises(UserError, match=r"source install/setup\.bash"):
            resources.share_dir()
    finally:
        resources._share_dir.cache_clear()
