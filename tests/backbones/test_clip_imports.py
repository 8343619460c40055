"""Who uses no CLIP does not wait for open_clip, which brings transformers along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.integration
def test_models_do_not_import_open_clip():
    code = "import models, sys; assert not {'open_clip', 'transformers'} & set(sys.modules)"
    repository = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=repository).returncode == 0
