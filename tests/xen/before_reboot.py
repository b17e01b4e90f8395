"""Leave two sites in the test host for its reboot: one that runs, and one stopped by hand.

What becomes of them is in rebooted/test_xen_rebooted.py.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from practice import HELD, REBOOTED

for site in (REBOOTED, HELD):
    site.set_up()
    site.deploy()
HELD.command("stop", HELD.name)
