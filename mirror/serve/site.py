"""What this mirror holds, looked up in the signed metadata and nowhere else.

An index file is there because its target stands in a bin of the current publication, a crate
because a line of such an index file names its version. A file on the disk alone is nothing.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from mirror.core.index import IndexFile, IndexLimits, find_entry, parse_index_file
from mirror.core.layout import (
    INDEX,
    METADATA_DIR,
    TARGETS_DIR,
    WITHHELD,
    crate_file,
    name_of_target,
    note_path,
    target_file,
    target_path,
)
from mirror.core.names import CrateId, CrateName
from mirror.errors import PublicationError, RejectedError
from mirror.serve.files import Dress, Files, Stored
from mirror.serve.notes import Note, parse_note
from mirror.store.publication import Publication, Publications

LINES_KEPT = 20_000
NOTES_KEPT = 10_000
"""Names of which we remember whether the current publication has a note on them."""

NOT_HELD_YET = "is not held by this mirror: it is on no list of it, or could not be fetched yet"
"""In mode list, before it is signed that all of the list is held."""

_FOR_EVER = (b"cache-control", b"public, max-age=31536000, immutable")
_FOR_A_MOMENT = (b"cache-control", b"public, max-age=5")
_VARY = (b"vary", b"accept-encoding")
_GZIP = (b"content-encoding", b"gzip")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_JSON = (b"content-type", b"application/json")
_BYTES = (b"content-type", b"application/octet-stream")

_INDEX_FILE = (Dress((_TEXT, _FOR_A_MOMENT, _VARY)), Dress((_TEXT, _FOR_A_MOMENT, _VARY, _GZIP)))
_TARGET_FILE = (Dress((_TEXT, _FOR_EVER, _VARY)), Dress((_TEXT, _FOR_EVER, _VARY, _GZIP)))
_METADATA_FILE = Dress((_JSON, _FOR_EVER, _VARY))
_PACKED_METADATA_FILE = Dress((_JSON, _FOR_EVER, _VARY, _GZIP))
_TIMESTAMP_FILE = Dress((_JSON, _FOR_A_MOMENT))
_CRATE_FILE = Dress((_BYTES, _FOR_EVER))

_METADATA = re.compile(
    r"[1-9][0-9]{0,15}\.(?:root|snapshot|targets|[a-z][a-z0-9]{0,31}(?:-[0-9a-f]{1,8})?)\.json"
)
_TARGET = re.compile(
    rf"((?:{INDEX}|{WITHHELD})/[a-z0-9_/-]{{1,70}})/([0-9a-f]{{64}})\.([a-z0-9_-]+)"
)


@dataclass(frozen=True, slots=True)
class Line:
    """What the published index file says about one version."""

    crate: CrateId
    """The name in the case the line has: only that is the crate's path."""
    cksum: str


class Site:
    """Look-ups in the current publication, with the files they lead to."""

    def __init__(
        self, www: Path, publications: Publications, files: Files, *, offline: bool = False
    ) -> None:
        self.www = www
        self.files = files
        self._publications = publications
        self._offline = offline
        self._lines: OrderedDict[tuple[str, str], Line | None] = OrderedDict()
        self._notes: dict[CrateName, Note | None] = {}
        self._notes_of: Publication | None = None

    def current(self) -> Publication:
        """Return what is published now.

        Raises:
            PublicationError: nothing is, or its metadata cannot be read.
        """
        return self._publications.current()

    def index_file(self, publication: Publication, path: str, *, gzip: bool) -> Stored | None:
        """Return the index file of a target path `index/…`, or None: it is not published.

        Raises:
            PublicationError: it is published, and its file is missing.
        """
        info = publication.target(path)
        if info is None:
            return None
        return self._target(target_file(path, info.sha256), info.sha256, _INDEX_FILE, gzip=gzip)

    def target(self, path: str, *, gzip: bool) -> Stored | None:
        """Return what lies at `/tuf/targets/PATH`: of this publication or of a kept one."""
        found = _TARGET.fullmatch(path)
        if not found:
            return None
        folder, sha256, base = found.groups()
        try:
            name_of_target(f"{folder}/{base}")
        except RejectedError:
            return None
        if not self.files.exists(f"{TARGETS_DIR}/{path}"):
            return None
        return self._target(f"{TARGETS_DIR}/{path}", sha256, _TARGET_FILE, gzip=gzip)

    def _target(self, file: str, sha256: str, dress: tuple[Dress, Dress], *, gzip: bool) -> Stored:
        plain, packed = dress
        stored = self.files.get(f"{file}.gz", packed, f"{sha256}-gzip") if gzip else None
        stored = stored or self.files.get(file, plain, sha256)
        if stored is None:
            raise PublicationError(file, "the file of a signed target", "no such file")
        return stored

    def metadata(self, file: str) -> Stored | None:
        """Return the metadata file of that name, of this publication or of a kept one."""
        path = f"{METADATA_DIR}/{file}"
        if file == "timestamp.json":
            return self.files.get(path, _TIMESTAMP_FILE)
        if not _METADATA.fullmatch(file):
            return None
        return self.files.get(path, _METADATA_FILE, file)

    async def packed_metadata(self, file: str) -> Stored | None:
        """Return the same compressed; None for the timestamp, too: it is small and short-lived."""
        if not _METADATA.fullmatch(file):
            return None
        path = f"{METADATA_DIR}/{file}"
        return await self.files.get_packed(path, _PACKED_METADATA_FILE, f"{file}-gzip")

    def crate(self, line: Line) -> Stored | None:
        """Return the crate file of a signed line, or None: it was not fetched yet."""
        return self.files.get(crate_file(line.crate), _CRATE_FILE, line.cksum)

    def line(self, publication: Publication, crate: CrateId) -> Line | None:
        """Return the published index line of a version, or None."""
        path = target_path(crate.canonical_name)
        info = publication.target(path)
        if info is None:
            return None
        key = (info.sha256, crate.version)
        if key in self._lines:
            return self._lines[key]
        line = self._find_line(target_file(path, info.sha256), crate)
        self._lines[key] = line
        if len(self._lines) > LINES_KEPT:
            self._lines.popitem(last=False)
        return line

    def _find_line(self, file: str, crate: CrateId) -> Line | None:
        data = self._read(file)
        try:
            entry = find_entry(data, crate.canonical_name, crate.version)
        except RejectedError as error:
            raise PublicationError(file, "the index file that was signed", str(error)) from error
        return Line(entry.crate, entry.cksum) if entry else None

    def lacks_line(self, publication: Publication, crate: CrateId) -> bool:
        """Whether the published index file, as far as it is upstream's, lacks this version."""
        # In mode list it names only what is held, and `sync` fetches only what is on the list.
        if (
            self.is_list(publication)
            or publication.target(target_path(crate.canonical_name)) is None
        ):
            return False
        return self.line(publication, crate) is None

    def published_file(self, publication: Publication, name: CrateName) -> str | None:
        """Return where the published index file of a name lies, or None: it is not published."""
        path = target_path(name)
        info = publication.target(path)
        return None if info is None else target_file(path, info.sha256)

    def parsed(self, file: str, name: CrateName) -> IndexFile:
        """Read and parse a published index file; any thread may: it looks nothing up.

        Raises:
            PublicationError: it is missing, or no index file of that name.
        """
        try:
            return parse_index_file(name, self._read(file), IndexLimits())
        except RejectedError as error:
            raise PublicationError(file, "the index file that was signed", str(error)) from error

    def holds_crate(self, crate: CrateId) -> bool:
        """Whether the crate file of a signed line is here."""
        return self.files.exists(crate_file(crate))

    def note(self, publication: Publication, name: CrateName) -> Note | None:
        """Return why a crate, or a version of it, is withheld, or None: there is no note on it.

        Asked at each request for a crate, so it costs nothing where nothing is withheld, and a
        look-up in a dictionary elsewhere.

        Raises:
            PublicationError: there is a note, and its file is missing.
        """
        if not publication.withholds:
            return None
        if publication is not self._notes_of or len(self._notes) >= NOTES_KEPT:
            self._notes, self._notes_of = {}, publication
        if name not in self._notes:
            self._notes[name] = self._read_note(publication, name)
        return self._notes[name]

    def _read_note(self, publication: Publication, name: CrateName) -> Note | None:
        path = note_path(name)
        info = publication.target(path)
        return None if info is None else parse_note(self._read(target_file(path, info.sha256)))

    def is_list(self, publication: Publication) -> bool:
        """Whether only what is on a list is mirrored."""
        return publication.state.get("mode") == "list"

    def may_come(self, publication: Publication) -> bool:
        """Whether what is not published may still be fetched: not where absence is signed."""
        if self._offline:
            return False
        is_cache = publication.state.get("mode") == "cache"
        return is_cache or not publication.state.get("complete_as_of")

    def may_crate_come(self, publication: Publication) -> bool:
        """Whether a crate that does not lie here may still be fetched."""
        # In mode list the index names only what is held, so that the rest is as absent as a name.
        return self.may_come(publication) if self.is_list(publication) else not self._offline

    def why_absent(self, publication: Publication, what: CrateName | CrateId) -> str:
        """Return in one line what it means that this is not published."""
        state = publication.state
        as_of = state.get("complete_as_of")
        if self.is_list(publication) and as_of:
            return f"{what} is not on the list of this mirror"
        if self._offline:
            return f"{what} is not held by this mirror, which is offline"
        if self.is_list(publication):
            return f"{what} {NOT_HELD_YET}"
        if state.get("mode") == "cache" or not as_of:
            return f"{what}: upstream has no such crate, or it is not mirrored here"
        return f"{what} is not in the index that this mirror follows, complete as of {as_of}"

    def _read(self, file: str) -> bytes:
        data = self.files.read(file)
        if data is None:
            raise PublicationError(file, "the file of a signed target", "no such file")
        return data
