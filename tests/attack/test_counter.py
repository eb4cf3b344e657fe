"""Crash, restore, two signers from one backup: a host without keys looks for one number twice.

The host keeps every file that was ever signed, also those that a crash or a restore lost, and
answers with another content of the *same* number wherever there is one. Stock python-tuf must
believe none of it. The same stories told with numbers per bin show what would happen without.
"""

import pytest

from tests.fakes.tuf import target
from tests.support.histories import PATHS, PerBin, World, successes
from tuf_repo.core.times import DAY

FIRST = {path: target(1) for path in PATHS}


def after_a_crash(world, _tmp_path):
    """(a) Bins and snapshot are in place, the timestamp is not; then another publication."""
    world.publish(FIRST)
    world.crash_before_the_timestamp({path: target(2) for path in PATHS[::2]})
    world.start(later=5)
    world.publish({path: target(3) for path in PATHS[::3]})
    world.crash_before_the_timestamp(dict.fromkeys(PATHS[1::2]))
    world.start(later=5)
    world.publish({PATHS[0]: None, PATHS[1]: target(4)})
    return [world]


def after_a_restore(world, tmp_path):
    """(b) A copy of the whole folder, a day old; what was published since is lost to us alone."""
    world.publish(FIRST)
    backup = world.copied(tmp_path / "backup")
    for quarter in range(4):
        world.start(later=DAY // 4)
        world.publish({path: target(10 + quarter) for path in PATHS[quarter::2]})
    # No random distance anywhere: the time that passed is enough.
    restored = backup.start(later=DAY + 60)
    for generation in range(4):
        restored.publish({path: target(20 + generation) for path in PATHS[generation::3]})
    return [world, restored]


def after_two_starts(world, tmp_path):
    """(c) One backup, two machines, each publishing; neither knows of the other."""
    world.publish(FIRST)
    twins = [world.copied(tmp_path / name) for name in ("one", "two")]
    for number, twin in enumerate(twins):
        twin.start(entropy=1_000_003 + 2_000_029 * number, later=60)
        for generation in range(4):
            changes = {path: target(100 * number + generation) for path in PATHS[generation::2]}
            twin.publish({**changes, PATHS[number]: None})
    return twins


STORIES = [after_a_crash, after_a_restore, after_two_starts]


@pytest.mark.parametrize("story", STORIES)
def test_no_number_has_two_contents_and_no_client_is_deceived(tmp_path, story):
    worlds = story(World(tmp_path / "data").begin(), tmp_path)
    contents = worlds[0].kept
    assert len(contents) > 12
    assert {number for number, signed in contents.items() if len(signed) > 1} == set()
    for world in worlds:
        assert successes(world, tmp_path / "c", thorough=True) == []


@pytest.mark.parametrize("story", STORIES)
def test_with_numbers_per_bin_the_same_host_deceives_clients(tmp_path, story):
    """The control: the same story, host and clients."""
    worlds = story(PerBin(tmp_path / "data").begin(), tmp_path)
    for world in worlds:
        believed = successes(world, tmp_path / "c")
        assert any(got is None for _, got, _ in believed), "no crate was made to seem absent"
    if story is not after_a_crash:
        everywhere = [found for world in worlds for found in successes(world, tmp_path / "c")]
        assert any(got is not None for _, got, _ in everywhere), "no lost content came back"


def test_two_starts_that_draw_the_same_number_would_meet(tmp_path):
    """The control of the random distance: same backup, same second, same draw."""
    world = World(tmp_path / "data").begin()
    world.publish(FIRST)
    twins = [world.copied(tmp_path / name).start(entropy=5, later=60) for name in ("one", "two")]
    for number, twin in enumerate(twins):
        twin.publish({path: target(100 * number) for path in PATHS})
    assert any(len(signed) > 1 for signed in world.kept.values())
    assert successes(twins[0], tmp_path / "c")


def test_a_restore_that_forgot_the_time_would_meet_what_was_lost(tmp_path):
    """The control of the distance per second: the clock stands where the backup was made."""
    world = World(tmp_path / "data").begin()
    world.publish(FIRST)
    backup = world.copied(tmp_path / "backup")
    world.start(later=1)
    world.publish({path: target(10) for path in PATHS})
    restored = backup.start(later=1)
    restored.publish({path: target(20) for path in PATHS})
    assert successes(restored, tmp_path / "c")
