"""What a hostile mirror does: each attack as a function that arranges it on a `Scene`."""

import json
import shutil
from dataclasses import dataclass, field

from tests.support.forging import (
    next_root,
    only,
    publish_again,
    publish_with_numbers_per_bin,
    signed_part,
)
from tests.support.hostile import tell_lies
from tests.support.stage import (
    DENIED,
    GOOD_CRATES,
    PACKAGES,
    Stage,
    line,
    lines,
    lock_text,
    sha256,
    small_crate,
)

PAST = "2020-01-01T00:00:00Z"
EVIL = small_crate("alpha", "1.0.0", "evil")
EVIL_LINE = line("alpha", "1.0.0", sha256(EVIL))
NOTE = {
    "name": "delta",
    "entries": [{"kind": "deny", "reason": "it bites", "versions": ["1.0.0"]}],
}


@dataclass
class Scene:
    """The mirrors, and what the users are led to believe beside them."""

    folder: object
    stage: Stage
    """The mirror that is asked first."""
    trap: str = ""
    """A URL where nobody must ever ask."""
    lock: str = field(default_factory=lock_text)
    wanted: tuple = ()
    """What the project depends on beside alpha and delta."""
    signed: tuple = ()
    """Index lines that are signed though they are not good: those may reach a build."""

    def other(self):
        """Return the second mirror, made when it is first spoken of."""
        folder = self.folder / "other"
        if not folder.exists():
            self.stage.copied(folder)
        return self.stage.at(folder)

    def lie(self, lie, file, /, **arguments):
        """Let the first mirror lie when it is asked for a file."""
        tell_lies(self.stage.mirror.data, {"on": self.stage.on(file), "lie": lie, **arguments})


# ---- bytes in the place of others


def changed_index_line(scene):
    scene.stage.index_file("alpha").write_bytes(lines(EVIL_LINE))


def changed_blank(scene):
    file = scene.stage.index_file("alpha")
    file.write_bytes(file.read_bytes().replace(b'"yanked":false', b'"yanked": true'))


def changed_crate(scene):
    scene.stage.crate("alpha").write_bytes(EVIL)


def everything_changed(scene):
    changed_index_line(scene)
    changed_crate(scene)
    scene.lock = lock_text({"alpha": sha256(EVIL)})


def crate_of_another_version(scene):
    scene.stage.crate("beta").write_bytes(GOOD_CRATES["beta", "1.1.0"])


def answered_with(this, that):
    """Answer one file with another, each named by a role, or by a crate for its index file."""

    def arrange(scene):
        file = {name: _file(scene.stage, name) for name in (this, that)}
        data = file[that].read_bytes()
        file[this].unlink()  # It may be a link.
        file[this].write_bytes(data)

    return arrange


def _file(stage, name):
    if name in PACKAGES:
        return stage.index_file(name)
    return stage.current(stage.bin_of(name[4:]) if name.startswith("bin ") else name)


def bins_of_one_number(scene):
    publish_with_numbers_per_bin(scene.stage.repository)
    answered_with("bin alpha", "bin beta")(scene)


def nameless_bin(scene):
    """What a thief of the bins' key could do to hide a swap: a bin that does not say its role."""
    role = scene.stage.bin_of("alpha")
    publish_again(scene.stage.repository, only(role, lambda signed: signed.pop("x-role")))


# ---- older things


def deny_delta(scene):
    """The honest past: delta was denied after a while, and the users saw that."""
    keep(scene)
    scene.stage.publish({"delta": DENIED})
    scene.stage.mirror.withhold("delta", json.dumps(NOTE).encode())
    scene.stage.sign_anew("targets", "crates")


def keep(scene):
    """Keep a copy of what is published now, to come back to."""
    scene.stage.copied(scene.folder / "old")


def old(scene):
    return scene.stage.at(scene.folder / "old")


def old_publication(scene):
    shutil.copy(old(scene).current("timestamp"), scene.stage.current("timestamp"))


def old_snapshot_by_a_thief(scene):
    """With the timestamp's key: a new timestamp that names the snapshot of before."""
    stamp = signed_part(old(scene).current("timestamp"))
    scene.stage.stamp(stamp["meta"])


def old_role_by_a_thief(role):
    """With the online keys: a new snapshot that names a role's file of before."""

    def arrange(scene):
        name = scene.stage.bin_of(role[4:]) if role.startswith("bin ") else role
        before = signed_part(old(scene).current("snapshot"))["meta"][f"{name}.json"]

        def change(changed, signed):
            if changed == "snapshot":
                signed["meta"][f"{name}.json"] = before

        scene.stage.sign_anew(change=change)

    return arrange


def old_snapshot_in_its_place(scene):
    """Without keys: the mirror moved on, its snapshot is answered with the one of before."""
    scene.stage.sign_anew()
    scene.stage.current("snapshot").write_bytes(old(scene).current("snapshot").read_bytes())


def old_bin_in_its_place(scene):
    scene.stage.sign_anew(scene.stage.bin_of("delta"))
    role = scene.stage.bin_of("delta")
    scene.stage.current(role).write_bytes(old(scene).current(role).read_bytes())


def new_snapshot_under_an_old_timestamp(scene):
    data = scene.stage.current("snapshot").read_bytes()
    old_publication(scene)
    scene.stage.current("snapshot").write_bytes(data)


def replace_online_keys(scene):
    """The honest past: the online keys were replaced, and the users saw the root that did it."""
    keep(scene)
    next_root(scene.stage.repository, replace=("timestamp", "snapshot"))
    scene.stage.sign_anew()


def old_root(scene):
    """The mirror serves what was published before that, and no newer root."""
    old_publication(scene)
    for file in scene.stage.metadata.glob("[2-9].root.json"):
        file.unlink()


def older_mirror_behind_a_broken_one(scene):
    """The first mirror talks nonsense, the second one is valid and of before."""
    shutil.copytree(scene.folder / "old", scene.folder / "other", dirs_exist_ok=True)
    scene.lie("say", scene.stage.current("timestamp"), body="<html>")


def older_mirror_behind_one_that_is_away(scene):
    """The first mirror does not answer, the second one is valid and of before."""
    shutil.copytree(scene.folder / "old", scene.folder / "other", dirs_exist_ok=True)
    away = {"on": "timestamp.json$", "lie": "say", "status": "502 Bad Gateway"}
    tell_lies(scene.stage.mirror.data, away)


# ---- what has expired


def expired(*roles):
    def arrange(scene):
        names = [
            scene.stage.bin_of(role[4:]) if role.startswith("bin ") else role for role in roles
        ]

        def change(role, signed):
            if role in names:
                signed["expires"] = PAST

        publish_again(scene.stage.repository, change)

    return arrange


def expired_root(scene):
    def change(root):
        root.expires = root.expires.replace(year=2020)

    next_root(scene.stage.repository, change)


# ---- roots and keys


def fast_forward(scene):
    """A thief of the online keys signs the highest numbers there are; the users look at that."""
    keep(scene)
    scene.stage.sign_anew(*scene.stage.bins(), number=2**52)


def recover_from_fast_forward(scene):
    """The operator's answer: another root, other keys, the numbers of before."""
    restored = old(scene)
    shutil.rmtree(scene.stage.www)
    shutil.copytree(restored.www, scene.stage.www)
    next_root(scene.stage.repository, replace=("timestamp", "snapshot"))
    scene.stage.sign_anew()


def steal_online_keys(scene):
    """A thief publishes an evil alpha, correctly signed, and the lock is made to fit."""
    scene.stage.put_crate("alpha", EVIL)
    scene.stage.publish({"alpha": lines(EVIL_LINE)})


def withheld_root(scene):
    """The second mirror has the root that revokes a thief's keys; the first is the thief's."""
    other = scene.other()
    next_root(other.repository, replace=("timestamp", "snapshot"))
    other.sign_anew()
    steal_online_keys(scene)


def revoked_keys(scene):
    next_root(scene.stage.repository, replace=("timestamp", "snapshot"))


def wrong_root(scene):
    """Another repository answers at the mirror's address."""
    stranger = Stage.made(scene.folder / "stranger")
    shutil.rmtree(scene.stage.www)
    shutil.copytree(stranger.www, scene.stage.www)


def forged_root(scene):
    """The next root, signed by somebody else's key."""
    stranger = Stage.made(scene.folder / "stranger")
    next_root(stranger.repository)
    shutil.copy(stranger.metadata / "2.root.json", scene.stage.metadata)


# ---- how bytes come


def lying(lie, about, **arguments):
    """Lie about a role's file, an index file, or a crate."""

    def arrange(scene):
        scene.lie(lie, _on_the_wire(scene.stage, about), **arguments)

    return arrange


def _on_the_wire(stage, about):
    return stage.crate(about[6:]) if about.startswith("crate ") else _file(stage, about)


def redirected(about, where):
    def arrange(scene):
        file = _on_the_wire(scene.stage, about)
        address = where.format(trap=scene.trap, file=file)
        scene.lie("say", file, status="302 Found", Location=address)

    return arrange


def removed(about):
    def arrange(scene):
        _on_the_wire(scene.stage, about).unlink()

    return arrange


# ---- what is not there


def want_answered(lie, **arguments):
    """The lock names gamma, which the mirror does not have, and which it tells stories about."""

    def arrange(scene):
        scene.lock = lock_text({"gamma": "0" * 64}, more=("gamma",))
        scene.wanted = ("gamma",)
        rule = {"on": "^POST /api/v1/want", "lie": lie, **arguments}
        tell_lies(scene.stage.mirror.data, rule)

    return arrange


def said(**fields):
    return want_answered("say", body=json.dumps(fields))


# ---- signed, and bad all the same


def line_with_a_key_twice(scene):
    twice = line("alpha", "1.0.0")[:-1] + b',"cksum":"%s"}' % sha256(EVIL).encode()
    _sign_line(scene, twice)
    scene.lock = lock_text({"alpha": sha256(EVIL)})


def line_that_climbs(scene):
    _sign_line(scene, line("alpha", "1.0.0/../../../../x", sha256(EVIL)))


def line_about_another_crate(scene):
    _sign_line(scene, EVIL_LINE.replace(b'"alpha"', b'"../../alpha"', 1))


def _sign_line(scene, data):
    scene.stage.put_crate("alpha", EVIL)
    scene.stage.publish({"alpha": lines(data)})
    scene.signed = (data,)
