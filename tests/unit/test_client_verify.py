"""What `crateseal verify` proves, and what it says when it cannot."""

import io
import json
import time
from contextlib import closing
from hashlib import sha256

import pytest

from mirror.client.commands.verify import VerifyOptions, prove_all, run_verify
from mirror.client.fetch.fetcher import FetchLimits, HttpFetcher
from mirror.client.home.settings import ClientSettings
from mirror.client.source.cache import open_cache
from mirror.client.source.want import ROUNDS, bring
from mirror.core.layout import crate_file
from mirror.core.names import CrateId
from mirror.errors import ProofError, UnreachableError, UsageError
from mirror.seam import WANT_MAX_NAMES
from mirror.store.lockfile import read_lock
from tests.support.client import client_settings, source_over
from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.mirror_folder import MirrorFolder, answering, flip, from_folder, locked
from tuf_repo.keys import load_online_signers
from tuf_repo.signing import sign

PAIR = (("alpha", "1.0.0"), ("beta", "0.2.0"))


@pytest.fixture
def mirror(tmp_path):
    mirror = MirrorFolder(tmp_path)
    mirror.hold(*PAIR)
    return mirror


SETTINGS = ClientSettings._fields


def verify(held, /, clock=time.time, **said):
    """Run the command on a client's own, empty folders; return exit code and output."""
    out = io.StringIO()
    options = {key: value for key, value in said.items() if key not in SETTINGS}
    settings = client_settings(held.data, **{key: said[key] for key in said if key in SETTINGS})
    code = run_verify(VerifyOptions(**options), settings, clock, out)
    return code, out.getvalue()


def fingerprint(mirror):
    return sha256((mirror.metadata / "1.root.json").read_bytes()).hexdigest()


def test_every_package_of_a_lock_is_proven_from_the_mirrors_own_folder(mirror):
    code, text = verify(mirror, lock=mirror.lock(*PAIR), data=mirror.data)
    assert code == 0
    assert "proven      alpha 1.0.0" in text
    assert "2 of 2 packages of crates.io proven" in text


def test_every_package_of_a_lock_is_proven_over_http_with_a_root_file(mirror):
    with answering(from_folder(mirror.www)) as url:
        root = mirror.metadata / "1.root.json"
        code, text = verify(mirror, lock=mirror.lock(*PAIR), mirror=url, root=root)
    assert code == 0, text


def test_every_package_of_a_lock_is_proven_over_http_with_the_roots_fingerprint(mirror):
    with answering(from_folder(mirror.www)) as url:
        options = {"mirror": url, "root_sha256": fingerprint(mirror).upper()}
        code, text = verify(mirror, lock=mirror.lock(*PAIR), **options)
    assert code == 0, text
    assert fingerprint(mirror) in text


def test_a_root_with_another_fingerprint_is_refused_and_nothing_else_is_looked_at(mirror):
    with answering(from_folder(mirror.www)) as url, pytest.raises(ProofError) as caught:
        verify(mirror, lock=mirror.lock(*PAIR), mirror=url, root_sha256="0" * 64)
    assert "1.root.json" in caught.value.where
    assert caught.value.got == fingerprint(mirror)


def test_a_trial_root_is_said(tmp_path):
    for name, trial in (("trial", True), ("ceremony", False)):
        mirror = MirrorFolder(tmp_path / name, trial=trial)
        mirror.hold(*PAIR)
        _, text = verify(mirror, lock=mirror.lock(*PAIR), data=mirror.data)
        assert ("TRIAL" in text) == trial


# ---- tampering


def findings(mirror, *crates):
    code, text = verify(mirror, lock=mirror.lock(*(crates or PAIR)), data=mirror.data, json=True)
    report = json.loads(text)
    assert report["exit_code"] == code
    return code, {each["name"]: each for each in report["packages"]}


def test_a_changed_byte_of_a_crate_is_a_finding_about_that_package_alone(mirror):
    file = mirror.file("crates/alpha/*.crate")
    flip(file)
    code, packages = findings(mirror)
    assert code == 1
    assert packages["beta"]["status"] == "proven"
    assert packages["alpha"]["finding"]["where"] == str(file)
    assert packages["alpha"]["finding"]["got"] == sha256(file.read_bytes()).hexdigest()


def test_a_changed_byte_of_an_index_file_is_a_finding_about_that_package_alone(mirror):
    file = mirror.file("tuf/targets/index/al/ph/*.alpha")
    signed = sha256(file.read_bytes()).hexdigest()
    flip(file)
    code, packages = findings(mirror)
    assert code == 1
    assert packages["beta"]["status"] == "proven"
    found = packages["alpha"]["finding"]
    assert found["where"] == str(file)
    assert signed in found["expected"]
    assert sha256(file.read_bytes()).hexdigest() in found["got"]


@pytest.mark.parametrize("longer", [b"x", b"\n"])
def test_an_index_file_that_grew_is_a_finding(mirror, longer):
    file = mirror.file("tuf/targets/index/al/ph/*.alpha")
    file.write_bytes(file.read_bytes() + longer)
    code, packages = findings(mirror)
    assert code == 1
    assert packages["alpha"]["status"] == "finding"


@pytest.mark.parametrize("role", ["snapshot", "targets", "crates"])
def test_a_changed_byte_of_metadata_is_a_finding_that_names_the_file(mirror, role):
    file = mirror.current(role)
    flip(file)
    code, packages = findings(mirror)
    assert code == 1
    assert {each["status"] for each in packages.values()} == {"finding"}
    assert packages["alpha"]["finding"]["where"] == str(file)


@pytest.mark.parametrize("part", [0, 1, 2, 3, 4, 5, 6, 7])
def test_a_changed_byte_anywhere_in_the_timestamp_is_a_finding(mirror, part):
    file = mirror.metadata / "timestamp.json"
    flip(file, file.stat().st_size * part // 8)
    code, packages = findings(mirror)
    assert code == 1
    assert packages["beta"]["finding"]["where"] == str(file)


def test_a_changed_byte_of_a_bin_is_a_finding_about_the_packages_in_it(mirror):
    for file in mirror.metadata.glob("*.crates-?.json"):
        flip(file)
    code, packages = findings(mirror)
    assert code == 1
    assert "crates-" in packages["alpha"]["finding"]["where"]


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_a_missing_metadata_file_is_a_finding(mirror, role):
    file = mirror.metadata / "timestamp.json" if role == "timestamp" else mirror.current(role)
    file.unlink()
    code, packages = findings(mirror)
    assert code == 1
    assert packages["alpha"]["finding"]["where"] == str(file)


def test_expired_metadata_is_a_finding(tmp_path):
    mirror = MirrorFolder(tmp_path, now=time.time() - 3 * 86_400)
    mirror.hold(*PAIR)
    code, packages = findings(mirror)
    assert code == 1
    assert "expired" in packages["alpha"]["finding"]["expected"]


def test_the_locks_checksum_must_be_the_signed_one(mirror):
    lock = mirror.lock()
    lock.write_text(locked("alpha", "1.0.0", "0" * 64))
    code, text = verify(mirror, lock=lock, data=mirror.data)
    assert code == 1
    assert "lock's checksum 000" in text


def test_a_lock_without_a_checksum_proves_nothing(mirror):
    lock = mirror.lock()
    text = locked("alpha", "1.0.0", "").replace('checksum = ""\n', "")
    lock.write_text(text)
    code, text = verify(mirror, lock=lock, data=mirror.data)
    assert code == 1
    assert "it has none" in text


def test_the_last_line_of_a_version_counts(mirror):
    crate = crate_bytes("alpha", "1.0.0")
    lines = [index_line("alpha", "1.0.0"), index_line("alpha", "1.0.0", sha256(crate).hexdigest())]
    mirror.publish({"alpha": b"\n".join(lines) + b"\n"})
    assert findings(mirror)[0] == 0
    mirror.publish({"alpha": b"\n".join(reversed(lines)) + b"\n"})
    assert findings(mirror)[0] == 1


# ---- what is not there


def test_a_crate_that_is_not_in_signed_metadata_is_not_held(mirror):
    code, packages = findings(mirror, *PAIR, ("gamma", "1.0.0"))
    assert code == 1
    assert packages["gamma"]["status"] == "not held"
    assert packages["alpha"]["status"] == "proven"


def test_a_version_that_the_signed_index_file_lacks_is_not_held(mirror):
    code, packages = findings(mirror, ("alpha", "1.0.1"))
    assert code == 1
    assert packages["alpha"]["status"] == "not held"


def test_a_crate_file_that_lies_nowhere_is_not_held(mirror):
    mirror.file("crates/alpha/*.crate").unlink()
    code, packages = findings(mirror)
    assert code == 1
    assert packages["alpha"]["status"] == "not held"


def test_a_signed_note_says_why_a_crate_is_withheld(mirror):
    note = {"name": "gamma", "entries": [{"kind": "quarantine", "reason": "it\x1b[31m bites"}]}
    mirror.withhold("gamma", json.dumps(note).encode())
    _, packages = findings(mirror, ("gamma", "1.0.0"))
    assert packages["gamma"]["finding"]["got"] == "withheld: quarantine: it [31m bites"


def test_a_version_that_the_operator_denies_is_not_proven_though_its_bytes_are_there(mirror):
    name, version = PAIR[0]
    yanked = index_file(name, version).replace(b'"yanked":false', b'"yanked":true')
    entry = {"kind": "deny", "reason": "it bites", "versions": [version]}
    mirror.publish({name: yanked})
    assert findings(mirror)[0] == 0
    mirror.withhold(name, json.dumps({"name": name, "entries": [entry]}).encode())
    code, packages = findings(mirror)
    assert code == 1
    assert packages[name]["finding"]["got"] == "withheld: deny: it bites"
    # A note about another version says nothing of this one.
    entry["versions"] = ["9.9.9"]
    mirror.withhold(name, json.dumps({"name": name, "entries": [entry]}).encode())
    assert findings(mirror)[0] == 0


def test_a_crate_file_that_is_not_on_disk_comes_from_the_mirrors_server(mirror):
    crate = crate_file(CrateId(*PAIR[0]))
    data = (mirror.www / crate).read_bytes()
    (mirror.www / crate).unlink()
    with answering(lambda path: (200, {}, data if path == f"/{crate}" else b"?")) as url:
        (mirror.www / "status.json").write_text(json.dumps({"public_url": url}))
        code, packages = findings(mirror)
    assert code == 0, packages


def test_the_server_of_a_folder_is_trusted_no_more_than_any_other(mirror):
    mirror.file("crates/alpha/*.crate").unlink()
    with answering(lambda _path: (200, {}, b"something else")) as url:
        (mirror.www / "status.json").write_text(json.dumps({"public_url": url}))
        code, packages = findings(mirror)
    assert code == 1
    assert packages["alpha"]["finding"]["where"].startswith(url)


@pytest.mark.parametrize("status", ["{", "[]", '{"public_url": 3}', '{"public_url": "file:///"}'])
def test_a_folder_without_a_usable_server_is_read_from_disk_alone(mirror, status):
    (mirror.www / "status.json").write_text(status)
    assert findings(mirror)[0] == 0


def test_a_mirror_is_asked_once_for_the_index_files_that_it_lacks(mirror):
    asked = []

    def answer(path):
        if path == "/api/v1/want":
            asked.append(path)
            mirror.hold(("gamma", "1.0.0"))
        return from_folder(mirror.www)(path)

    lock = mirror.lock(*PAIR, ("gamma", "1.0.0"))
    with answering(answer) as url:
        code, text = verify(mirror, lock=lock, mirror=url, root_sha256=fingerprint(mirror))
    assert code == 0, text
    assert len(asked) == 1


class Wanting:
    """A mirror that lacks names, and is asked for them: `answer(names, round)` is what it says."""

    def __init__(self, mirror, answer):
        self._mirror = mirror
        self._answer = answer
        self._static = from_folder(mirror.www)
        self.asked = []
        self.pauses = []

    def verify(self, names):
        """Return what becomes of a lock that names version 1.0.0 of each."""
        lock = read_lock(self._mirror.lock(*((name, "1.0.0") for name in names)))
        with answering(self._static, self._want) as url:
            server = HttpFetcher(url, FetchLimits(), sleep=self.pauses.append)
            with source_over(self._mirror, self._mirror.data, server) as source:
                return list(prove_all(lock.crates, source))

    def _want(self, body):
        names = json.loads(body)["names"]
        self.asked.append(names)
        return 200, {}, json.dumps(self._answer(names, len(self.asked))).encode()


def test_what_is_still_being_fetched_is_asked_for_again(mirror):
    def answer(names, number):
        if number < 3:
            return {"pending": ["delta", "never asked for"]}
        mirror.hold(("gamma", "1.0.0"), ("delta", "1.0.0"))
        return {"pending": []}

    wanting = Wanting(mirror, answer)
    results = wanting.verify(["alpha", "gamma", "delta"])
    assert [result.status for result in results] == ["proven"] * 3
    assert wanting.asked == [["delta", "gamma"], ["delta"], ["delta"]]
    assert len(wanting.pauses) == 2


def test_what_is_being_fetched_for_ever_is_told_as_such_and_not_as_an_absence(mirror):
    wanting = Wanting(mirror, lambda names, _number: {"pending": names})
    alpha, gamma = wanting.verify(["alpha", "gamma"])
    assert (alpha.status, gamma.status) == ("proven", "unreachable")
    assert "still fetching" in str(gamma.error)
    assert len(wanting.asked) == ROUNDS


@pytest.mark.parametrize("said", [[], {}, {"pending": 3}, {"pending": [["gamma"]]}, None])
def test_an_answer_that_says_nothing_of_use_is_none(mirror, said):
    wanting = Wanting(mirror, lambda _names, _number: said)
    assert wanting.verify(["gamma"])[0].status == "not held"
    assert len(wanting.asked) == 1


def test_a_lock_of_many_names_is_asked_for_in_portions(mirror):
    names = [f"gamma{number:04}" for number in range(WANT_MAX_NAMES + 1)]
    asked = []

    def want(body):
        asked.append(json.loads(body)["names"])
        return 200, {}, json.dumps({"pending": asked[-1][-1:] if len(asked) < 3 else []}).encode()

    with answering(from_folder(mirror.www), want) as url:
        server = HttpFetcher(url, FetchLimits(), sleep=lambda _seconds: None)
        with closing(server):
            assert bring([server], names) == frozenset()
    assert asked == [names[:WANT_MAX_NAMES], names[WANT_MAX_NAMES:], names[-2:]]


# ---- a mirror that does not answer


def test_a_mirror_that_nobody_answers_for_is_unreachable(mirror):
    with answering(from_folder(mirror.www)) as url:
        pass
    lock, root = mirror.lock(*PAIR), mirror.metadata / "1.root.json"
    code, text = verify(mirror, lock=lock, mirror=url, root=root)
    assert code == 3
    assert "is the mirror running" in text
    with pytest.raises(UnreachableError, match="is the mirror running"):
        verify(mirror, lock=lock, mirror=url, root_sha256="0" * 64)


def test_a_mirror_that_fails_is_unreachable_and_a_finding_outweighs_that(mirror):
    def answer(path):
        if "beta-0.2.0.crate" in path:
            return 500, {}, b"tired"
        return from_folder(mirror.www)(path)

    lock, root = mirror.lock(*PAIR), mirror.metadata / "1.root.json"
    with answering(answer) as url:
        code, text = verify(mirror, lock=lock, mirror=url, root=root)
        assert code == 3
        assert "answered 500: tired" in text
        flip(mirror.file("crates/alpha/*.crate"))
        assert verify(mirror, lock=lock, mirror=url, root=root)[0] == 1


def test_a_broken_mirror_is_an_error_even_for_a_lock_that_names_nothing(mirror):
    flip(mirror.metadata / "timestamp.json")
    with pytest.raises(ProofError):
        verify(mirror, lock=mirror.lock(), data=mirror.data)


# ---- options


def test_a_root_that_is_none_is_a_usage_error(mirror, tmp_path):
    for data in (b"{}", b"\xff", b""):
        (tmp_path / "root").write_bytes(data)
        with pytest.raises(UsageError, match="no TUF root"):
            verify(mirror, lock=mirror.lock(), mirror="http://a.example", root=tmp_path / "root")


def test_a_folder_that_is_no_mirror_is_a_usage_error(tmp_path):
    mirror = MirrorFolder(tmp_path / "one")
    with pytest.raises(UsageError, match="no root there"):
        verify(mirror, lock=mirror.lock(*PAIR), data=tmp_path / "two")


def test_what_does_not_come_from_crates_io_is_listed_as_not_covered(mirror):
    git = locked("delta", "1.0.0", "0" * 64, source="git+https://example.org/x#1")
    own = '\n[[package]]\nname = "me"\nversion = "0.1.0"\n'
    code, text = verify(mirror, lock=mirror.lock(*PAIR, extra=git + own), data=mirror.data)
    assert code == 0
    assert "not covered delta 1.0.0 (git+https://example.org/x#1)" in text
    assert "1 local package: not looked at\n" in text
    assert "2 of 2" in text


def test_index_files_are_matched_by_the_name_in_lower_case(mirror):
    crate = crate_bytes("Gamma", "1.0.0")
    mirror.publish({"gamma": index_line("Gamma", "1.0.0", sha256(crate).hexdigest())})
    file = mirror.www / crate_file(CrateId("Gamma", "1.0.0"))
    file.parent.mkdir(parents=True)
    file.write_bytes(crate)
    assert findings(mirror, ("Gamma", "1.0.0"))[0] == 0


def test_a_bin_that_was_signed_for_another_role_is_refused(mirror):
    signer = load_online_signers(mirror.data / "keys").bins
    for file in mirror.metadata.glob("*.crates-?.json"):
        signed = json.loads(file.read_bytes())["signed"] | {"x-role": "crates-f"}
        file.write_bytes(sign(signed, signer))
    code, packages = findings(mirror)
    assert code == 1
    assert packages["alpha"]["finding"]["got"] == "metadata signed for the role 'crates-f'"


def test_every_signed_hash_counts_as_in_python_tuf(mirror):
    signer = load_online_signers(mirror.data / "keys").bins
    for file in mirror.metadata.glob("*.crates-?.json"):
        signed = json.loads(file.read_bytes())["signed"]
        for info in signed["targets"].values():
            info["hashes"]["sha512"] = "0" * 128
        file.write_bytes(sign(signed, signer))
    code, packages = findings(mirror)
    assert code == 1
    assert "every other hash" in packages["alpha"]["finding"]["expected"]
    assert packages["alpha"]["finding"]["where"] == str(
        mirror.file("tuf/targets/index/al/ph/*.alpha")
    )


# ---- single crates


def test_a_crate_is_proven_by_name_and_version_without_a_lock(mirror):
    code, text = verify(mirror, crates=("alpha@1.0.0", "Beta@0.2.0"), data=mirror.data)
    assert code == 0, text
    assert "proven      alpha 1.0.0" in text
    assert "2 of 2" in text


def test_of_a_name_alone_the_newest_version_that_is_not_yanked_is_proven(mirror):
    mirror.hold(("alpha", "1.0.0"), ("alpha", "1.2.0"), ("alpha", "2.0.0"), ("alpha", "3.0.0-rc.1"))
    lines = index_file("alpha", "1.0.0", "1.2.0", "2.0.0", "3.0.0-rc.1").splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"yanked":false', b'"yanked":true')
    mirror.publish({"alpha": b"".join(lines)})
    code, text = verify(mirror, crates=("alpha",), data=mirror.data, json=True)
    [package] = json.loads(text)["packages"]
    assert (code, package["version"], package["status"]) == (0, "1.2.0", "proven")


def test_a_name_without_a_version_to_take_and_one_that_is_not_held_are_told(mirror):
    yanked = index_file("alpha", "1.0.0").replace(b'"yanked":false', b'"yanked":true')
    mirror.publish({"alpha": yanked})
    code, text = verify(mirror, crates=("alpha", "gamma"), data=mirror.data, json=True)
    alpha, gamma = json.loads(text)["packages"]
    assert code == 1
    assert alpha["finding"]["expected"] == "a version that is not yanked"
    assert (gamma["name"], gamma["version"], gamma["status"]) == ("gamma", None, "not held")


@pytest.mark.parametrize("text", ["", "a b", "../x", "alpha@", "alpha@one"])
def test_what_is_no_crate_is_a_usage_error(mirror, text):
    with pytest.raises(UsageError, match="NAME@VERSION"):
        verify(mirror, crates=(text,), data=mirror.data)


# ---- what is verified, and against what


def test_a_mirror_that_changed_since_it_was_proven_is_found_out(mirror):
    said = {"lock": mirror.lock(*PAIR), "root_sha256": fingerprint(mirror)}
    with answering(from_folder(mirror.www)) as url:
        assert verify(mirror, mirror=url, **said)[0] == 0
        flip(mirror.file("crates/alpha/*.crate"))
        assert verify(mirror, mirror=url, **said)[0] == 1


def test_while_another_process_has_the_cache_a_folder_is_verified_all_the_same(mirror, tmp_path):
    folder = tmp_path / "vendor"
    folder.mkdir()
    root_id = fingerprint(mirror)[:16]
    cache = client_settings(mirror.data).cache_dir / root_id
    with open_cache(cache, 10**9):
        code, text = verify(mirror, vendor=folder, lock=mirror.lock(*PAIR), data=mirror.data)
    assert code == 1
    assert "a folder of this package" in text


def test_a_vendored_folder_and_cargos_cache_are_looked_at_when_asked_for(mirror, tmp_path):
    folder = tmp_path / "vendor" / "alpha"
    folder.mkdir(parents=True)
    (folder / "Cargo.toml").write_text('[package]\nname = "alpha"\nversion = "1.0.0"\n')
    home = tmp_path / "cargo"
    cache = home / "registry" / "cache" / "index.crates.io-1949cf8c6b5b557f"
    cache.mkdir(parents=True)
    (cache / "beta-0.2.0.crate").write_bytes(b"changed")
    code, text = verify(
        mirror,
        vendor=folder.parent,
        cache=True,
        environment={"CARGO_HOME": str(home), "HOME": str(tmp_path)},
        data=mirror.data,
        json=True,
    )
    report = json.loads(text)
    assert code == report["exit_code"] == 1
    assert report["lock"] is None
    assert {each["where"]: each["status"] for each in report["on_disk"]} == {
        str(folder): "finding",
        str(cache / "beta-0.2.0.crate"): "finding",
    }


def test_what_a_user_has_to_know_is_in_both_outputs(mirror):
    root = mirror.metadata / "1.root.json"
    lock = mirror.lock(*PAIR)
    with answering(from_folder(mirror.www)) as url:
        said = {"lock": lock, "root": root, "mirror": ("http://127.0.0.1:9/", f"{url}/")}
        code, text = verify(mirror, **said)
        assert code == 0
        assert "mirror http://127.0.0.1:9/: " in text
        report = json.loads(verify(mirror, **said, json=True)[1])
    assert report["mirror"] == f"{url}/"
    assert report["others"][0][0] == "http://127.0.0.1:9/"
    assert any("TRIAL" in warning for warning in report["warnings"])
    assert report["trusted"] == "command line"
