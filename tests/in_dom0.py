"""For tests that need Xen: `make test-xen` brings them, and guests, into a dom0 of its own."""

from pathlib import Path

import pytest

# Where the guests are that were compiled outside, and those of Debian.
GUESTS = Path("/srv/guests")

_CAPABILITIES = Path("/proc/xen/capabilities")

in_dom0 = [
    pytest.mark.xen,
    # All in there is emulated.
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not _CAPABILITIES.exists() or "control_d" not in _CAPABILITIES.read_text(),
        reason="this is no dom0: `make test-xen` boots one",
    ),
]
