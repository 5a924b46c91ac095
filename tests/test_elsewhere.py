"""Nothing is left on the CPU where a model is elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

HAS_ONE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
RUN = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]


@pytest.mark.skipif(not HAS_ONE, reason="this torch takes no device from Python")
def test_all_parts_run_on_another_device():
    done = subprocess.run([*RUN, str(Path(__file__).parent / "on_elsewhere.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
