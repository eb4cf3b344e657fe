"""Which hosts are this machine, told by their names alone."""

import pytest

from mirror.core.addresses import is_loopback


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("mirror.localhost", True),
        ("localhost.example.org", False),
        ("notlocalhost", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_the_rest(host, loopback):
    assert is_loopback(host) == loopback
