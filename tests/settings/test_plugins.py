"""pydantic's plugins see all that is checked; none is looked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_no_plugin_of_pydantic_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "prying.py").write_text("print('here I am')\nplugin = None\n")
    told = tmp_path / "prying-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: prying\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[pydantic]\nprying = prying:plugin\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import rotator.settings; print('prying' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "False\n"
