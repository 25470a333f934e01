"""The C++ tests (test/cpp, Google Test) as part of the one run that `make test` is.

`colcon test` runs the same executables by itself.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def test_cpp(cpp_test: Path | None, cpp_build: Path) -> None:
    if cpp_test is None:
        pytest.fail(
            f"no C++ tests in {cpp_build}: run `make build`; if they are still missing, Google Test is "
            "(apt install libgtest-dev)",
            pytrace=False,
        )
    run = subprocess.run([cpp_test], check=False, capture_output=True, text=True, timeout=240)
    if "ThreadSanitizer: unexpected memory mapping" in run.stderr:
        # GCC before 14 on a kernel that randomises more address bits than it knows of.
        pytest.skip("ThreadSanitizer does not run on this kernel: sysctl vm.mmap_rnd_bits is above 28")
    assert run.returncode == 0, run.stdout + run.stderr
