"""`crateseal vendor` ended at each of its writes: what has its final name is whole; it heals."""

import os
import sys

from mirror.client.commands.vendor import vendor
from mirror.client.commands.vendored import check_vendor
from tests.fakes.holding import HoldingSource
from tests.support.bad_archives import Matrix, packed
from tests.unit.test_client_vendor import hidden, lock_of, shown

CRATES = (("alpha", "1.0.0"), ("beta", "0.2.0"), ("gamma", "1.0.0"))
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
ENDED, COMPLETED = 9, 0


def begin(folder):
    """Leave a folder of before: alpha with other contents, and a package that is superseded."""
    before = HoldingSource()
    cksum = before.hold("alpha", "1.0.0", packed(Matrix("alpha").good()))
    before.hold("delta", "1.0.0")
    assert vendor(folder, lock_of(("alpha", "1.0.0"), ("delta", "1.0.0"), alpha=cksum), before)


def source_of_all():
    source = HoldingSource()
    for crate in CRATES:
        source.hold(*crate)
    return source


def run_until(number, folder):
    """Vendor in a process of its own, which ends before its write of this number."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = number

    def end_at_last(event, arguments):
        nonlocal left
        is_new_file = event == "open" and arguments[2] & os.O_CREAT
        if event in WRITES or is_new_file:
            left -= 1
            if left == 0:
                os._exit(ENDED)

    try:
        sys.addaudithook(end_at_last)
        vendor(folder, lock_of(*CRATES), source_of_all())
        os._exit(COMPLETED)
    finally:
        os._exit(1)


def test_ended_at_any_write_it_leaves_whole_packages_only_and_the_next_run_completes(tmp_path):
    source = source_of_all()
    before = HoldingSource()
    before.hold("alpha", "1.0.0", packed(Matrix("alpha").good()))
    before.hold("delta", "1.0.0")
    number, code = 0, ENDED
    while code == ENDED:
        number += 1
        folder = tmp_path / str(number)
        begin(folder)
        code = run_until(number, folder)
        for each in check_vendor(folder, None, source):
            # What is not yet the new one is still the old one, whole.
            was = [old for old in check_vendor(folder, None, before) if old.where == each.where]
            assert each.is_proven or was[0].is_proven, (number, each)
        assert vendor(folder, lock_of(*CRATES), source).exit_code == 0
        assert shown(folder) == ["alpha-1.0.0", "beta-0.2.0", "gamma-1.0.0"]
        assert hidden(folder) == []
        assert all(each.is_proven for each in check_vendor(folder, lock_of(*CRATES), source))
    assert code == COMPLETED
    assert number > 20
