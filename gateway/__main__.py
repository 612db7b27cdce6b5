"""`python -m gateway`."""

from __future__ import annotations

import sys

from gateway.server import main

sys.exit(main())
