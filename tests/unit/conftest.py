"""What tests of drafts begin with: people with keys, and what their first draft says."""

import os

import pytest

from tests.fakes.people import People
from tests.fakes.tuf import NOW, Repository
from tuf_repo.core.roles import Policy
from tuf_repo.core.root import next_files
from tuf_repo.proposal import read_proposal


@pytest.fixture(scope="module")
def people():
    return People()


@pytest.fixture(scope="module")
def base(people):
    return people.base()


@pytest.fixture(scope="module")
def offline(people):
    return read_proposal(people.init()).new


@pytest.fixture(scope="module")
def parts(offline):
    """The signed parts of the first files."""
    return next_files(None, offline, offline.files, NOW, Policy())


@pytest.fixture
def trial(tmp_path):
    """A trial, published, in its data folder."""
    made = Repository(tmp_path / "data")
    made.base.mkdir()
    made.init()
    os.rename(made.base / "offline", made.base / "offline-keys")
    return made
