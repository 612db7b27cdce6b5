"""`python -m visavis.cli` is the `visavis` command."""

import sys

from visavis.cli.main import main

sys.exit(main())
