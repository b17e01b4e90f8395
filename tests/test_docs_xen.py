"""docs/xen.md quotes what we say. Its commands are run in a dom0, by test_xen_page.py."""

import pages
from practice import PAGE


def test_every_message_of_the_page_is_one_of_ours() -> None:
    assert pages.strange(PAGE.read_text()) == []
