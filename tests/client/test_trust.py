"""`crateseal trust`: what it takes to be remembered, and that nothing else ever is."""

import hashlib
import io
import json
import subprocess
import time
from contextlib import ExitStack

import pytest

from mirror.client.commands.trusting import TrustOptions, run_trust
from mirror.client.home.settings import read_settings
from mirror.client.trust.memory import Remembered, version_of
from mirror.client.trust.store import How, NewTrust, TrustStore
from mirror.errors import ExpiredError, ProofError, UnreachableError, UsageError
from tests.support import forging
from tests.support.mirror_folder import MirrorFolder, answering, flip, from_folder
from tests.support.processes import CRATESEAL, crateseal, environment

AWAY = "http://127.0.0.1:1/"
DAY = 86_400


class User:
    """Somebody on the far side, with a home of their own."""

    def __init__(self, home):
        home.mkdir()
        self.home = home
        self.environment = {"HOME": str(home)}

    @property
    def store(self):
        return TrustStore(self.home / ".config" / "crateseal")

    def trust(self, *urls, root=None, root_sha256=None, **options):
        """Run the command; return what it prints."""
        out = io.StringIO()
        said = {"root": root, "root_sha256": root_sha256}
        settings = read_settings(said, self.environment)
        assert run_trust(TrustOptions(urls, **options), settings, time.time, out) == 0
        return out.getvalue()

    def run(self, *arguments, cwd, **more):
        """Run a command as a process."""
        folders = {"XDG_CONFIG_HOME": None, "XDG_CACHE_HOME": None, "XDG_RUNTIME_DIR": None}
        return crateseal(*arguments, cwd=cwd, **{**self.environment, **folders, **more})


@pytest.fixture
def user(tmp_path):
    return User(tmp_path / "home")


def made(folder, **options):
    """Make a mirror's folder with all its keys."""
    folder.mkdir(exist_ok=True)
    mirror = MirrorFolder(folder, **{"trial": False, **options})
    (folder / "offline").symlink_to("offline-keys")
    mirror.hold(("alpha", "1.0.0"))
    return mirror


@pytest.fixture
def mirror(tmp_path):
    return made(tmp_path / "mirror")


@pytest.fixture
def serve():
    """Serve folders on loopback until the test ends; return their URLs."""
    with ExitStack() as stack:
        yield lambda mirror: stack.enter_context(answering(from_folder(mirror.www))) + "/"


def root(mirror, version=1):
    return (mirror.metadata / f"{version}.root.json").read_bytes()


def fingerprint(mirror, version=1):
    return hashlib.sha256(root(mirror, version)).hexdigest()


# ---- the three ways to name a root


def test_a_mirror_is_remembered_by_the_fingerprint_of_its_root(user, mirror, serve):
    url = serve(mirror)
    text = user.trust(url, root_sha256=fingerprint(mirror))
    assert text.splitlines()[:3] == [
        url,
        f"  fingerprint  {fingerprint(mirror)}",
        "  trusted by   a fingerprint that you gave",
    ]
    (trust,) = user.store.all()
    assert (trust.root_id, trust.mirrors) == (fingerprint(mirror)[:16], (url,))
    assert trust.memory.load().timestamp == (mirror.metadata / "timestamp.json").read_bytes()
    assert user.trust() == text


def test_a_mirror_is_remembered_by_the_file_of_its_root(user, mirror, serve):
    user.trust(serve(mirror), root=str(mirror.metadata / "1.root.json"))
    (trust,) = user.store.all()
    assert (trust.how, trust.initial.data) == (How.FILE, root(mirror))


def test_the_fingerprint_of_any_version_of_the_root_will_do(user, mirror, serve):
    forging.next_root(mirror.repository)
    forging.next_root(mirror.repository)
    user.trust(serve(mirror), root_sha256=fingerprint(mirror, 2))
    (trust,) = user.store.all()
    assert trust.initial.data == root(mirror, 2)
    assert trust.memory.load().root == root(mirror, 3)


def test_another_fingerprint_is_refused_and_nothing_is_remembered(user, mirror, serve):
    prefix = fingerprint(mirror)[:63]
    other = prefix + ("0" if fingerprint(mirror)[63] != "0" else "1")
    with pytest.raises(ProofError, match=f"expected the fingerprint {other}"):
        user.trust(serve(mirror), root_sha256=other)
    with pytest.raises(UsageError, match="all 64 hex digits"):
        user.trust(serve(mirror), root_sha256=prefix)
    assert user.store.all() == ()


def test_on_first_use_the_mirrors_own_word_counts_and_is_marked_from_then_on(user, mirror, serve):
    text = user.trust(serve(mirror), on_first_use=True)
    assert fingerprint(mirror) in text
    assert "first use: nobody vouched for it" in text
    assert user.trust() == text
    (trust,) = json.loads(user.trust(json=True))["trusted"]
    assert (trust["how"], trust["fingerprint"]) == ("first use", fingerprint(mirror))


def test_on_first_use_the_root_of_the_ceremony_counts_and_not_that_of_the_trial(
    user, tmp_path, serve
):
    mirror = made(tmp_path / "trial", trial=True)
    forging.next_root(mirror.repository, lambda root: root.unrecognized_fields.pop("x-crateseal"))
    user.trust(serve(mirror), on_first_use=True)
    assert user.store.find().initial.data == root(mirror, 2)


@pytest.mark.parametrize(
    "urls",
    [("http://crates.example.org",), ("http://192.0.2.1/",), ("http://localhost.example.org/",)],
)
def test_first_use_over_http_is_for_this_machine_only(user, mirror, serve, urls):
    with pytest.raises(UsageError, match="--on-first-use is for https or this machine only"):
        user.trust(serve(mirror), *urls, on_first_use=True)
    assert user.store.all() == ()


def test_without_a_root_no_mirror_is_remembered(user, mirror, serve):
    with pytest.raises(UsageError, match="not trusted yet; say which root you trust"):
        user.trust(serve(mirror))
    with pytest.raises(UsageError, match="say one of them"):
        user.trust(serve(mirror), on_first_use=True, root_sha256=fingerprint(mirror))
    assert user.store.all() == ()


@pytest.mark.parametrize("data", [b"", b"{}", b"not a root", b'{"signed": {"version": 1}}'])
def test_a_file_that_is_no_root_is_refused(user, mirror, serve, tmp_path, data):
    file = tmp_path / "root.json"
    file.write_bytes(data)
    with pytest.raises(ProofError, match="expected a root that its keys have signed"):
        user.trust(serve(mirror), root=str(file))


# ---- a known mirror


def test_another_root_for_a_known_mirror_is_refused_unless_it_shall_replace(
    user, mirror, serve, tmp_path
):
    # The operator began anew; or somebody has the mirror's name now.
    served = [mirror]

    def answer(path):
        return from_folder(served[-1].www)(path)

    with answering(answer) as url:
        user.trust(url, root_sha256=fingerprint(mirror))
        old = mirror
        mirror = made(tmp_path / "anew")
        served.append(mirror)
        with pytest.raises(UsageError, match="known with another root"):
            user.trust(url, root_sha256=fingerprint(mirror))
        with pytest.raises(UsageError, match="known with another root"):
            user.trust(url, on_first_use=True)
        assert user.store.find().initial.data == root(old)
        user.trust(url, root_sha256=fingerprint(mirror), replace=True)
    assert user.store.find().initial.data == root(mirror)


def test_a_later_root_of_a_known_chain_is_no_other_root_and_adds_the_mirror(user, mirror, serve):
    first = serve(mirror)
    user.trust(first, on_first_use=True)
    forging.next_root(mirror.repository)
    second = serve(mirror)
    user.trust(second, root_sha256=fingerprint(mirror, 2))
    (trust,) = user.store.all()
    assert (trust.mirrors, trust.initial.data) == ((first, second), root(mirror))
    # Who vouches for a root of the chain vouches for the newest.
    assert trust.how is How.FINGERPRINT
    assert trust.memory.load().root == root(mirror, 2)


def test_beside_a_known_mirror_another_needs_no_root_of_its_own(user, mirror, serve):
    first, second = serve(mirror), serve(mirror)
    user.trust(first, root_sha256=fingerprint(mirror))
    user.trust(first, second)
    assert user.store.find().mirrors == (first, second)


def test_a_chain_that_forks_from_the_known_one_is_not_joined(user, mirror, serve):
    url = serve(mirror)
    other = forging.next_root(
        mirror.repository, lambda root: root.unrecognized_fields.update(x=1), write=False
    )
    forging.next_root(mirror.repository)
    known = NewTrust(root(mirror), (url,), How.FIRST_USE, Remembered(other))
    user.store.remember(known)
    with pytest.raises(ProofError, match="mirror of another repository"):
        user.trust(url, root_sha256=fingerprint(mirror, 2))
    assert user.store.find().how is How.FIRST_USE


def test_a_mirror_with_another_root_of_that_version_is_none_of_the_repository(
    user, mirror, serve, tmp_path
):
    user.trust(serve(mirror), root_sha256=fingerprint(mirror))
    fork = mirror.copied(tmp_path / "fork")
    forging.next_root(fork.repository, lambda root: root.unrecognized_fields.update(x=1))
    forging.next_root(mirror.repository)
    with pytest.raises(ProofError, match="mirror of another repository"):
        user.trust(serve(mirror), serve(fork), root_sha256=fingerprint(mirror, 2))


def test_a_mirror_is_forgotten(user, mirror, serve):
    first, second = serve(mirror), serve(mirror)
    user.trust(first, second, root_sha256=fingerprint(mirror))
    assert second in user.trust(forget=(first.rstrip("/"),))
    assert "no mirror is trusted yet" in user.trust(forget=(second,))


# ---- several mirrors


def test_a_mirror_that_is_away_is_remembered_with_a_warning_if_another_verified(
    user, mirror, serve
):
    url = serve(mirror)
    text = user.trust(AWAY, url, root_sha256=fingerprint(mirror))
    assert f"warning: {AWAY}: not verified yet" in text
    assert user.store.find().mirrors == (AWAY, url)


@pytest.mark.parametrize("how", ["file", "fingerprint", "first use"])
def test_mirrors_that_are_all_away_are_not_remembered(user, mirror, how):
    said = {
        "file": {"root": str(mirror.metadata / "1.root.json")},
        "fingerprint": {"root_sha256": fingerprint(mirror)},
        "first use": {"on_first_use": True},
    }[how]
    with pytest.raises(UnreachableError):
        user.trust(AWAY, **said)
    assert user.store.all() == ()


def spoil_timestamp(mirror):
    flip(mirror.metadata / "timestamp.json")


def spoil_snapshot(mirror):
    flip(mirror.current("snapshot"))


def forge_root(mirror):
    data = forging.next_root(mirror.repository)
    (mirror.metadata / "2.root.json").write_bytes(data.replace(b'"version":2', b'"version":3'))


def make_up_root(mirror):
    (mirror.metadata / "2.root.json").write_bytes(b"{}")


@pytest.mark.parametrize("spoil", [spoil_timestamp, spoil_snapshot, forge_root, make_up_root])
def test_one_that_lies_refuses_all(user, mirror, serve, tmp_path, spoil):
    liar = mirror.copied(tmp_path / "liar")
    spoil(liar)
    good, bad = serve(mirror), serve(liar)
    for urls in ((good, bad), (bad, good), (bad,)):
        with pytest.raises(ProofError) as caught:
            user.trust(*urls, root_sha256=fingerprint(mirror))
        assert bad in caught.value.where
    assert user.store.all() == ()


def test_a_mirror_of_another_repository_refuses_all(user, mirror, serve, tmp_path):
    other = made(tmp_path / "other")
    with pytest.raises(ProofError, match="this is a mirror of another repository"):
        user.trust(serve(mirror), serve(other), root_sha256=fingerprint(mirror))
    assert user.store.all() == ()


def test_a_host_that_withholds_the_newest_root_does_not_keep_it_from_us(
    user, mirror, serve, tmp_path
):
    old = mirror.copied(tmp_path / "old")
    forging.next_root(mirror.repository)
    user.trust(serve(old), serve(mirror), root_sha256=fingerprint(mirror))
    assert user.store.find().memory.load().root == root(mirror, 2)


def test_a_mirror_that_is_only_behind_is_not_accused(user, mirror, serve, tmp_path):
    behind = mirror.copied(tmp_path / "behind")
    forging.next_root(mirror.repository, replace=("timestamp", "snapshot"))
    forging.publish_again(mirror.repository, lambda _role, _signed: None)
    fresh = serve(mirror)
    user.trust(fresh, root_sha256=fingerprint(mirror))
    late = serve(behind)
    text = user.trust(fresh, late)
    assert f"warning: {late}: not verified yet" in text
    trust = user.store.find()
    assert trust.mirrors == (fresh, late)
    assert version_of(trust.memory.load().root) == 2


def test_a_mirror_whose_metadata_has_expired_is_not_enough_by_itself(user, serve, tmp_path):
    now = time.time()
    mirror = made(tmp_path / "mirror", now=now - 30 * DAY)
    stale = mirror.copied(tmp_path / "stale")
    with pytest.raises(ExpiredError):
        user.trust(serve(stale), root_sha256=fingerprint(stale))
    assert user.store.all() == ()
    mirror.repository.now = now
    mirror.hold(("beta", "1.0.0"))
    text = user.trust(serve(stale), serve(mirror), root_sha256=fingerprint(mirror))
    assert "not verified yet" in text


def test_a_page_of_something_else_is_no_mirror(user):
    wrong_url = "is this the URL of a Crateseal mirror"
    with (
        answering(lambda _path: (404, {}, b"nothing here")) as url,
        pytest.raises(UnreachableError, match=wrong_url),
    ):
        user.trust(url, root_sha256="0" * 64)
    with answering(lambda _path: (200, {}, b"<html>log in</html>")) as url:
        with pytest.raises(ProofError, match="expected the fingerprint"):
            user.trust(url, root_sha256="0" * 64)
        with pytest.raises(ProofError, match="expected a root"):
            user.trust(url, on_first_use=True)


# ---- as processes


def test_a_hostile_checkout_brings_no_trust(user, tmp_path):
    checkout = made(tmp_path / "evil").data.rename(tmp_path / "checkout")
    (checkout / "crateseal-data").symlink_to(".")
    for name in ("mirror.toml", "client.toml"):
        (checkout / name).write_text(f'mirror = "{AWAY}"\ndata = "crateseal-data"\n')
    (checkout / "trust").mkdir()
    (checkout / "Cargo.lock").write_text("version = 4\n")
    listed = user.run("trust", cwd=checkout)
    assert (listed.returncode, listed.stdout.split(";")[0]) == (0, "no mirror is trusted yet")
    for command in (["verify"], ["vendor", "vendor"], ["proxy"], ["cargo-config"]):
        run = user.run(*command, cwd=checkout)
        assert run.returncode == 2, (command, run)
        assert "no mirror is trusted yet; `crateseal trust URL" in run.stderr


def test_trust_at_once_in_many_processes_loses_no_mirror(user, mirror, serve, tmp_path):
    urls = [serve(mirror) for _ in range(4)]
    running = [
        subprocess.Popen(
            [*CRATESEAL, "trust", url, "--root-sha256", fingerprint(mirror)],
            env=environment(
                **user.environment, XDG_CONFIG_HOME=None, XDG_CACHE_HOME=None, XDG_RUNTIME_DIR=None
            ),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        )
        for url in urls
    ]
    assert [process.wait(30) for process in running] == [0] * 4
    assert set(user.store.find().mirrors) == set(urls)


def test_what_is_wrong_is_one_line_and_the_code_of_its_kind(user, mirror, serve, tmp_path):
    url = serve(mirror)
    for arguments, code in (
        ([url], 2),
        ([url, "--root-sha256", "3f7a91c2"], 2),
        ([url, "--root-sha256", "0" * 64], 1),
        ([AWAY, "--root-sha256", "0" * 64], 3),
        (["--forget", url], 2),
    ):
        run = user.run("trust", *arguments, cwd=tmp_path)
        assert (run.returncode, run.stderr.count("\n")) == (code, 1), run
    (user.home / ".config" / "crateseal").mkdir(parents=True, mode=0o755)
    assert user.run("trust", cwd=tmp_path).returncode == 5
