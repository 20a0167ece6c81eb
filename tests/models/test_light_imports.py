"""What a DAG, a sweep or a curation image may import must not pull in torch."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["telecine_models.backlot", "telecine_models.video_dit.config"])
def test_module_imports_without_torch(module: str) -> None:
    code = f"import sys, {module}; print({{'torch', 'diffusers', 'jaxtyping', 'scipy', 'PIL'}} & set(sys.modules))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "set()"
