"""How long tests wait for what must happen."""

from typing import Final

# Only a test that fails waits so long; threads of a busy machine may stop for seconds.
PATIENCE_SECONDS: Final = 30.0
