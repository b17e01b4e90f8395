"""Users: who they are."""

import os

import pytest

from mirage_hooks.boot import users
from mirage_hooks.boot.errors import HostError


def test_a_user_without_a_name_is_known_by_number() -> None:
    assert users.user_name(3_999_999_999) == "3999999999"


def test_no_user_is_who_runs_this() -> None:
    assert users.uid_of(None) == os.geteuid()


@pytest.mark.parametrize("user", ["no-such-user", "", "a\0b"])
def test_a_user_who_does_not_exist_is_a_fault_of_the_host(user: str) -> None:
    with pytest.raises(HostError, match="does not exist on this host"):
        users.account_of(user)
