"""A source that hands out what it was given, with no mirror behind it.

    FakeSource({"serde": b"…"}, {"serde 1.0.0": b"…"})

In place of bytes: an error, which is raised, or a function, whose result is taken (it may wait, or
raise what is no error of ours).
"""

import hashlib
import threading

from mirror.client.source.source import Verified
from mirror.client.source.standing import Standing, Tally
from mirror.errors import AbsentError


class FakeSource:
    def __init__(self, files=None, crates=None, refresh=None):
        self.files = files or {}
        self.crates = crates or {}
        self.on_refresh = refresh or (lambda: None)
        self.said = Standing("http://mirror.example/", timestamp_version=7)
        self.tally = Tally()
        self.calls = []
        self._lock = threading.Lock()

    def refresh(self, max_age=None):
        self._note("refresh", max_age)
        self.on_refresh()
        return self.standing()

    def standing(self):
        return self.said

    def index_file(self, name):
        self._note("index_file", name)
        data = _taken(self.files, name)
        return Verified(data, hashlib.sha256(data).hexdigest())

    def digest(self, name):
        self._note("digest", name)
        return hashlib.sha256(_taken(self.files, name)).hexdigest()

    def crate(self, crate):
        self._note("crate", str(crate))
        return _taken(self.crates, str(crate))

    def prefetch(self, names, *, follow=False):
        self._note("prefetch", (tuple(names), follow))

    def called(self, what):
        """Return what was asked for, in order."""
        with self._lock:
            return [about for kind, about in self.calls if kind == what]

    def _note(self, kind, about):
        with self._lock:
            self.calls.append((kind, about))


def _taken(held, what):
    found = held.get(what)
    if found is None:
        raise absent(what, proved=False)
    if isinstance(found, Exception):
        raise found
    return found() if callable(found) else found


def absent(what, *, proved):
    return AbsentError(
        what, "http://mirror.example/", "its index file", "no such line", "ask", proved=proved
    )
