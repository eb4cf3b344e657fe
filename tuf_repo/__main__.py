"""`python -m tuf_repo` is `tuf-repo`."""

import sys

from tuf_repo.cli import main

sys.exit(main())
