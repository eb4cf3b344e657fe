"""The first publication of a repository, from the signed files of its offline roles.

Safe to stop at any write: until the first `timestamp.json` is committed nothing is trusted yet, and
a new run starts over, with numbers of its own. A committed repository is never touched.
"""

from __future__ import annotations

from collections.abc import Callable

from tuf_repo.core.roles import Policy
from tuf_repo.core.update import State
from tuf_repo.counting import Known, start_numbers
from tuf_repo.errors import MetadataError
from tuf_repo.publisher import Keys, Publisher
from tuf_repo.staging import Extra
from tuf_repo.storage import Storage
from tuf_repo.succession import Files, verify_first


def begin(  # noqa: PLR0913 - what comes from outside is an argument, each by its name
    storage: Storage,
    keys: Keys,
    files: Files,
    extra: Extra,
    *,
    now: float,
    policy: Policy,
    entropy: Callable[[], int],
    wait: Callable[[float], object],
) -> None:
    """Publish a repository without targets.

    Args:
        storage: where it is to be; nothing is committed there yet.
        keys: the online keys at hand.
        files: `1.root.json` (and later ones), the files of `targets` and of the role below.
        extra: extra signed fields of the first timestamp (`x-…`).
        now: seconds since 1970.
        policy: durations.
        entropy: as for `Publisher.open`.
        wait: as for `Publisher.open`.

    Raises:
        CeremonyError: a file is missing, or not part of a ceremony.
        MetadataError: a file does not verify, or files lie there that are not ours to remove.
        KeyFileError: keys are not kept apart, or an online key is not at hand.
        OSError: the disk.
    """
    found = verify_first(files, now=now)
    keys.signers_for(found.trust)
    clear_unfinished(storage)
    storage.mark_setup()
    state = State(0, 0, 0, {}, None, 0, {}, {})
    known = Known(max(facts.version for facts in found.trust.fixed.values()), None)
    numbers = start_numbers(storage, known, now=now, policy=policy, entropy=entropy(), wait=wait)
    publisher = Publisher(storage, keys, found.trust, state, numbers, policy)
    publisher.commit(publisher.stage({}, extra, now=now, succession=found))
    storage.clear_setup()


def clear_unfinished(storage: Storage) -> None:
    """Remove what a set-up left that did not end.

    Raises:
        MetadataError: files lie there that no set-up of ours left.
    """
    files = storage.files()
    if files and not storage.setup_unfinished():
        raise MetadataError(
            str(storage.path), "an empty folder, or one with a timestamp.json", min(files)
        )
    for file in files:
        storage.remove(file)
    storage.recover()
