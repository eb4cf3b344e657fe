"""What attacks share."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def folder():
    """A folder with a short name: the path of a unix socket has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="cs-") as folder:
        yield Path(folder)
