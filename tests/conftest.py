"""What tests share."""

import os
import shutil
import signal

import pytest
from hypothesis import settings

# How long an example takes says something of the machine, and nothing of what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Whoever started us in a shell's background has us ignore the keyboard's signals; what tests start
# must not.
for _number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


def need(program):
    """Return the path of a program; without it skip on a laptop, fail where everything must run."""
    path = shutil.which(program)
    if path is None:
        reason = f"{program} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def need_root():
    """Go on as root only; elsewhere skip on a laptop, fail where everything must run."""
    if os.geteuid() != 0:
        reason = "this test makes users and namespaces: it needs root"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
