"""A stranger: stock python-tuf, given one root file and two URLs. Nothing of ours is imported here.

    python stranger.py 1.root.json MIRROR-URL TARGET ABSENT-TARGET

prints what it proved as one JSON object; any doubt is a traceback and exit code 1.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

from tuf.ngclient import Updater


def main(root: str, mirror: str, target: str, absent: str) -> None:
    """Prove one target, with its bytes, and the absence of another."""
    with tempfile.TemporaryDirectory() as folder:
        updater = Updater(
            metadata_dir=folder,
            metadata_base_url=f"{mirror}/tuf/metadata/",
            target_dir=folder,
            target_base_url=f"{mirror}/tuf/targets/",
            bootstrap=Path(root).read_bytes(),
        )
        info = updater.get_targetinfo(target)
        if info is None:
            sys.exit(f"{target}: not in the signed metadata")
        data = Path(updater.download_target(info)).read_bytes()
        proven = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "length": len(data),
            "absent": updater.get_targetinfo(absent) is None,
        }
    sys.stdout.write(json.dumps(proven) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
