"""A mirror's folder made in place, without its processes: what the far side's tests look at."""

import hashlib
import shutil
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mirror.core.layout import (
    DELEGATION,
    TARGET_PATTERNS,
    crate_file,
    note_path,
    target_file,
    target_path,
)
from mirror.core.names import CrateId, parse_name
from tests.fakes.tuf import Repository
from tests.support.crates import crate_bytes, index_file
from tuf_repo.core.update import Target
from tuf_repo.trial import TrialPlan, init_trial

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


class MirrorFolder:
    """A data folder with a signed repository and crates."""

    def __init__(self, data, *, trial=True, now=None):
        self._stand_in(data, now or time.time())
        extra = {"x-crateseal": {"trial": True}} if trial else {}
        plan = TrialPlan(DELEGATION, TARGET_PATTERNS, 2, extra, lambda _counts: {})
        init_trial(
            self.repository.storage,
            data / "keys",
            data / "offline-keys",
            plan,
            **self.repository.outside(),
        )

    def _stand_in(self, data, now):
        self.data = data
        self.www = data / "www"
        self.metadata = self.www / "tuf" / "metadata"
        self.repository = Repository(data, now=now)

    def copied(self, data):
        """Return a mirror of its own with all that this one has."""
        shutil.copytree(self.data, data, symlinks=True)
        return self.at(data)

    def at(self, data):
        """Return the mirror in this folder, which is a copy of this one's."""
        copy = type(self).__new__(type(self))
        copy._stand_in(data, self.repository.now)
        return copy

    def hold(self, *crates):
        """Publish these `(name, version)`s: one index file a name, one crate file each."""
        versions = {}
        for name, version in crates:
            versions.setdefault(name, []).append(version)
            self._write(crate_file(CrateId(name, version)), crate_bytes(name, version))
        self.publish({name: index_file(name, *each) for name, each in versions.items()})

    def publish(self, files):
        self._publish({target_path(parse_name(name)): data for name, data in files.items()})

    def withhold(self, name, note):
        self._publish({note_path(parse_name(name)): note})

    def _publish(self, targets):
        changes = {}
        for path, data in targets.items():
            sha256 = hashlib.sha256(data).hexdigest()
            self._write(target_file(path, sha256), data)
            changes[path] = Target(len(data), sha256)
        self.repository.publish(self.repository.open(), changes)

    def _write(self, path, data):
        file = self.www / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def file(self, pattern):
        """Return the one file under `www/` of this pattern."""
        (file,) = self.www.glob(pattern)
        return file

    def current(self, role):
        """Return the newest metadata file of a role."""
        files = self.metadata.glob(f"*.{role}.json")
        return max(files, key=lambda file: int(file.name.partition(".")[0]))

    def lock(self, *crates, extra=""):
        """Write a lock file that names these; return its path."""
        path = self.data / "Cargo.lock"
        packages = [
            locked(name, version, hashlib.sha256(crate_bytes(name, version)).hexdigest())
            for name, version in crates
        ]
        path.write_text("version = 4\n\n" + "\n".join(packages) + extra)
        return path


def locked(name, version, checksum, source=CRATES_IO):
    return (
        f'[[package]]\nname = "{name}"\nversion = "{version}"\n'
        f'source = "{source}"\nchecksum = "{checksum}"\n'
    )


def flip(file, offset=None):
    """Change one bit of a file, in its middle unless told."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if offset is None else offset] ^= 1
    file.write_bytes(data)


@contextmanager
def answering(answer, answer_post=None, port=0):
    """Serve on loopback: `answer(path)` returns status, headers and body; yield the URL.

    A POST is answered likewise, or by `answer_post(body)` where that is given.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(*answer(self.path))

        def _send(self, status, headers, body):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(*(answer_post(body) if answer_post else answer(self.path)))

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def from_folder(www):
    """Return an `answer` that is a plain static file server."""

    def answer(path):
        file = www / path.lstrip("/")
        return (200, {}, file.read_bytes()) if file.is_file() else (404, {}, b"not there\n")

    return answer
