"""``python -m gs_search`` is ``gs-search``."""

from __future__ import annotations

import sys

from gs_search.cli import main

sys.exit(main())
