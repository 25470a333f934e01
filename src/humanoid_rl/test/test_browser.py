"""Which browser is taken."""

from pathlib import Path

import pytest
from humanoid_rl.views.browser import find_browser


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_snap_is_passed_over_for_a_browser_that_can_be_driven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_browser() is None
    program(tmp_path / "bin" / "chromium-browser", '#!/bin/sh\nexec /snap/bin/chromium "$@"\n')
    (tmp_path / "bin" / "chromium").symlink_to(program(tmp_path / "snap", "the snap program"))
    assert find_browser() is None
    chrome = program(tmp_path / "bin" / "google-chrome", "#!/bin/sh\n")
    assert find_browser() == str(chrome)
