"""The matrix of bad crate archives: each a whole `.crate`, and a word of the reason to refuse it.

    for name, bad in Matrix("demo").all().items(): …

All are of version 1.0.0. The bombs are bad under the limits that stand here.
"""

import gzip
import random
from dataclasses import dataclass

from tests.support.tar import gnu, header, pax, pax_records, raw

UNPACKED_MAX_BYTES = 2_000_000
ENTRIES_MAX = 1_000

_END = bytes(1024)
_PASSWD = "/etc/passwd"
# Bytes that do not pack, always the same.
_NOISE = random.Random(1).randbytes(20_000)


@dataclass(frozen=True)
class Bad:
    """One bad archive."""

    data: bytes
    word: str
    """Stands in the reason that a user reads."""


def packed(entries):
    return gzip.compress(entries + _END, 1, mtime=0)


def manifest(name, version="1.0.0", table="package"):
    return f'[{table}]\nname = "{name}"\nversion = "{version}"\n'.encode()


class Matrix:
    """Bad archives of one crate."""

    def __init__(self, name):
        self.name = name
        self.top = f"{name}-1.0.0"

    def all(self):
        """Return what reaches the signer."""
        return (
            self.bombs() | self.gzip() | self.paths() | self.names() | self.links()
            | self.crossings() | self.kinds() | self.readings() | self.overrides()
            | self.manifests() | self.lacking()
        )  # fmt: skip

    def good(self, more=b"", *, text=None):
        """Return the entries of a small library, with more behind them."""
        text = manifest(self.name) if text is None else text
        return self.file("Cargo.toml", text) + self.file("src/lib.rs", b"//\n") + more

    def file(self, path, data=b"", **fields):
        return raw(f"{self.top}/{path}", data, **fields)

    def link(self, path, target, kind=b"2", data=b""):
        return raw(f"{self.top}/{path}", data, kind, link=target)

    def _bad(self, word, tails):
        """Return archives that begin like a good one, all refused with the same word."""
        return {name: Bad(packed(self.good(tail)), word) for name, tail in tails.items()}

    def bombs(self):
        many = b"".join(self.file(f"{number}") for number in range(ENTRIES_MAX))
        zeros = bytes(3_000_000)
        return {
            "one huge file": Bad(packed(self.good(self.file("zeros", zeros))), "within the limit"),
            "zeros behind the end": Bad(packed(self.good() + zeros), "within the limit"),
            "many small files": Bad(packed(self.good(many)), "entries"),
            "a size that is not there": Bad(
                packed(self.good(header(f"{self.top}/a", 2**30))), "ends too early"
            ),
        }

    def no_archives(self):
        """What `sync` takes for no answer at all, so that no signer sees it."""
        return {
            "no bytes": Bad(b"", "gzip"),
            "a page": Bad(b"<!doctype html><html>Please log in</html>", "gzip"),
        }

    def gzip(self):
        whole = packed(self.good(self.file("noise", _NOISE)))
        text = b"no tar, and more than a block of it" * 99
        half = gzip.compress(self.good() + self.good()[:100], mtime=0)
        return {
            "half of it": Bad(whole[: len(whole) // 2], "end is missing"),
            "without its last bytes": Bad(whole[:-5], "end is missing"),
            "a wrong checksum in it": Bad(whole[:-8] + b"\0\0\0\0" + whole[-4:], "gzip"),
            "another member behind it": Bad(whole + whole, "one gzip member"),
            "another member behind zeros": Bad(whole + bytes(70_000) + whole, "one gzip member"),
            "no tar": Bad(gzip.compress(text, mtime=0), "tar"),
            "half a header": Bad(half, "ends too early"),
            "an empty archive": Bad(packed(b""), "empty archive"),
            "nothing unpacked": Bad(gzip.compress(b"", mtime=0), "empty archive"),
            "something behind the end": Bad(
                packed(self.good() + _END + self.good()), "after the end"
            ),
        }

    def paths(self):
        top = self.top
        tails = {
            "absolute": raw(_PASSWD),
            "absolute under the top": raw(f"/{top}/a"),
            "up and out": raw(f"{top}/../../escape"),
            "up and in again": raw(f"{top}/a/../b"),
            "up at once": raw("../escape"),
            "two top folders": raw("other-1.0.0/src/lib.rs"),
            "the top folder in another case": raw(f"{top.upper()}/a"),
            "the top folder with more": raw(f"{top}0/a"),
            "a dot first": raw(f"./{top}/a"),
            "up with backslashes": raw(f"{top}\\..\\..\\escape"),
            "up with one backslash": raw(f"{top}/a\\..\\..\\..\\escape"),
            "a drive": raw("C:/evil"),
            "a drive further on": raw(f"{top}/C:/evil"),
            "a NUL in a long name": gnu(f"{top}/a\0b"),
            "an absolute long name": gnu(_PASSWD),
            "an absolute pax path": pax(path=_PASSWD) + raw(f"{top}/a"),
            "an absolute prefix": raw("passwd", prefix=b"/etc"),
        }
        return self._bad("everything under", tails)

    def names(self):
        top = self.top
        long = {
            "a long name": gnu(f"{top}/" + "a" * 300),
            "a long path": gnu(f"{top}/" + "a/" * 2_100 + "b"),
            "a long way to a link's target": gnu("a/" * 5_000, b"K", entry=self.link("l", "a")),
        }
        twice = {
            "a file that is a folder": self.file("src"),
            "a file in a file": self.file("src/lib.rs/a"),
            "the top folder is a file": raw(top),
        }
        return self._bad("file system takes", long) | self._bad("folder too", twice)

    def links(self):
        link = self.link
        tails = {
            "a symlink out": link("l", _PASSWD),
            "a symlink up and out": link("l", "../../escape"),
            "a symlink that comes back": link("l", f"../{self.top}/src"),
            "a symlink to nothing": link("l", ""),
            "a symlink out by pax": pax(linkpath=_PASSWD) + link("l", "src"),
            "a symlink out by a long name": gnu(_PASSWD, b"K", entry=link("l", "src")),
            "a hard link out": link("l", _PASSWD, b"1"),
            "a hard link beside the top": link("l", "other/file", b"1"),
        }
        return self._bad("links that stay under", tails)

    def crossings(self):
        link = self.link
        tails = {
            "a file through a link": link("l", "src") + self.file("l/f"),
            "a file through a link in another case": link("L", "src") + self.file("l/f"),
            "a file in place of a link": link("l", "src/lib.rs") + self.file("l"),
            "a link given twice": link("l", "src") + link("l", "src/lib.rs"),
            "a link through a link": link("a/l1", "..") + link("a/l2", "l1/../x"),
        }
        return (
            self._bad("through a link", tails)
            | self._bad("backslash", {"a link with backslashes": link("l", "a\\..\\..")})
            | self._bad("with a size", {"a link with contents": link("l", "src", b"2", b"x")})
        )

    def kinds(self):
        tails = {
            "a character device": self.file("tty", kind=b"3"),
            "a block device": self.file("disk", kind=b"4"),
            "a fifo": self.file("pipe", kind=b"6"),
            "an unknown kind": self.file("what", kind=b"Z"),
            "an old sparse file": self.file("sparse", kind=b"S"),
            "a global pax header": pax(b"g", path=f"{self.top}/a"),
        }
        return self._bad("files, folders and links only", tails)

    def readings(self):
        """What readers may read in two ways."""
        tails = {
            "a number that is none": self.file("a", uid=b"zzzzzzz") + self.link("leak", _PASSWD),
            "a wrong checksum of a header": self.file("a", sum=b"000000\0 "),
            "a size below zero": self.file("a", size=b"\xff" * 12),
            "a size beyond all": self.file("a", size=b"\x80" + b"\xff" * 11),
            "no size": self.file("a", size=bytes(12)),
            "a folder with contents": self.file("a/", b"x"),
            "a long name in an old header": raw("l", b"x", b"L", magic=bytes(8)) + self.file("a"),
            "a prefix in an old header": self.file("a", magic=b"ustar\0  ", prefix=b"x"),
        }
        return self._bad("tar archive", tails)

    def overrides(self):
        """Long names and pax headers that contradict something, or each other."""
        top, entry = self.top, self.file("a")
        links = [f"linkpath={_PASSWD}", "linkpath=src"]
        tails = {
            "a sparse file by pax": pax(GNU__sparse__name=f"{top}/a") + raw("../../evil"),
            "a pax size that lies": pax(size="0") + self.file("a", self.good()),
            "a pax size without end": pax(size="9" * 60) + entry,
            "a pax size before a long name": pax(size="1") + gnu(f"{top}/a"),
            "two pax paths": pax_records(f"path={top}/one", f"path={top}/two") + entry,
            "two pax targets of a link": pax_records(*links) + self.link("l", "src"),
            "a pax record in a pax record": pax_records(f"comment=\n20 path={_PASSWD}") + entry,
            "many pax records": pax_records(*["a=b"] * 50) + entry,
            "two pax headers": pax(path="x") * 2 + entry,
            "two long names": gnu(f"{top}/a", entry=b"") * 2 + entry,
            "a long name and a pax path": gnu(f"{top}/a", entry=pax(path=f"{top}/b")) + entry,
            "a huge pax header": pax(comment="x" * 70_000) + entry,
            "a huge long name": header("l", 400_000_000, b"L"),
            "a long name without an entry": gnu(f"{top}/a", entry=b""),
        }
        return self._bad("tar archive", tails)

    def manifests(self):
        """Manifests of other crates, or of none."""
        texts = {
            "another crate's manifest": manifest("other"),
            "another version's manifest": manifest(self.name, "2.0.0"),
            "a manifest with build metadata": manifest(self.name, "1.0.0+more"),
            "a manifest in another case": manifest(self.name.upper()),
            "a manifest without a name": b'[package]\nversion = "1.0.0"\n',
            "a manifest of a workspace": b'[workspace]\nmembers = ["a"]\n',
            "an old manifest of another crate": manifest("other", table="project"),
        }
        behind = {"another crate's behind its own": self.file("Cargo.toml", manifest("other"))}
        word = "its own manifest"
        alone = {name: Bad(packed(self.good(text=text)), word) for name, text in texts.items()}
        return alone | self._bad(word, behind)

    def lacking(self):
        """Archives without a file `Cargo.toml` in its place."""
        text = manifest(self.name)
        archives = {
            "no manifest": self.file("src/lib.rs"),
            "a manifest in lower case": self.file("cargo.toml", text),
            "a manifest further down": self.file("a/Cargo.toml", text),
            "a manifest that is a folder": self.file("Cargo.toml/", kind=b"5"),
            "a manifest that is a link": self.file("a", text) + self.link("Cargo.toml", "a"),
        }
        word = f"a file {self.top}/Cargo.toml"
        return {name: Bad(packed(entries), word) for name, entries in archives.items()}
