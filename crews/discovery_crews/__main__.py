"""`python -m discovery_crews`: run a crew or the mapping engine without a cluster."""

from __future__ import annotations

import sys

from discovery_crews.cli import main

sys.exit(main())
