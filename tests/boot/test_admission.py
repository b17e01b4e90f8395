"""What a host allows of what a manifest asks, and how the rest is refused."""

import os
from pathlib import Path

import pytest

from manifests import WWW, Read, Refusal, commit
from mirage_hooks.boot import admission, manifest
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Boot, Domain
from mirage_hooks.boot.host import Host, Limits
from support import USER

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs guests as other users")
user_only = pytest.mark.skipif(os.geteuid() == 0, reason="root may run guests as any user")


def test_memory_up_to_the_hosts_limit_is_taken(read: Read) -> None:
    bound = Host("main", user=USER, limits=Limits(memory=64))
    assert read(f"{WWW}memory = 64\n", bound)["www"].memory == 64


@pytest.mark.parametrize("memory", [65, 2**31, 2**63, 10**30])
def test_memory_above_the_hosts_limit_is_refused(refusal: Refusal, memory: int) -> None:
    bound = Host("main", user=USER, limits=Limits(memory=64))
    message = f"guest www: memory {memory} MiB is more than this host allows (64)"
    assert refusal(f"{WWW}memory = {memory}\n", bound) == message


@pytest.mark.parametrize("target", ["hvt", "spt", "virtio", "xen"])
def test_a_target_that_the_host_does_not_allow_is_refused(refusal: Refusal, target: str) -> None:
    text = f'[guest.www]\ntarget = "{target}"\nimage = "x"\n'
    assert refusal(text) == f"guest www: target {target} is not allowed on this host"


def test_a_guest_is_refused_where_the_host_allows_another_target_only(refusal: Refusal) -> None:
    bound = Host("main", user=USER, limits=Limits(targets=("hvt",)))
    assert refusal(WWW, bound) == "guest www: target unix is not allowed on this host"


XEN = '[guest.www]\ntarget = "xen"\nimage = "x"\n[guest.www.domain]\n'


def test_a_domain_has_one_vcpu_where_the_host_says_nothing(refusal: Refusal) -> None:
    bound = Host("main", user=USER, limits=Limits(targets=("xen",)))
    message = "guest www: vcpus 2 is more than this host allows (1)"
    assert refusal(f"{XEN}vcpus = 2\n", bound) == message


def test_a_domain_for_hvm_is_refused_where_the_host_says_nothing(refusal: Refusal) -> None:
    bound = Host("main", user=USER, limits=Limits(targets=("xen",)))
    message = "guest www: a domain of type hvm is not allowed on this host"
    assert refusal(f'{XEN}type = "hvm"\n', bound) == message


def test_a_domain_may_be_what_the_host_allows(read: Read) -> None:
    limits = Limits(targets=("xen",), vcpus=2, domains=("hvm",))
    bound = Host("main", user=USER, limits=limits)
    found = read(f'{XEN}vcpus = 2\ntype = "hvm"\n', bound)["www"]
    assert found.domain == Domain(type="hvm", vcpus=2)


def test_a_template_asks_for_no_more_than_the_host_allows(folder: Path) -> None:
    text = '[guest.www]\ntarget = "xen"\nimage = "x"\ntemplate = "xl.conf.in"\n'
    revision = commit(folder, text, {"xl.conf.in": b"type = 'hvm'"})
    with pytest.raises(ConfigError, match="type hvm is not allowed on this host"):
        manifest.read_guests(revision, Host("main", user=USER, limits=Limits(targets=("xen",))))


def test_a_recorded_domain_is_refused_whose_type_the_host_allows_no_more() -> None:
    bound = Host("main", limits=Limits(targets=("xen",), domains=("pvh",)))
    with pytest.raises(ConfigError, match="type pv is not allowed on this host"):
        admission.admit(Boot(target="xen", image="x", domain=Domain(type="pv")), bound)


@root_only
def test_root_does_not_run_a_guest_as_root(refusal: Refusal) -> None:
    message = "guest www: a unix guest is native code, and root does not run it as root"
    assert refusal(WWW, Host("main")) == message


@root_only
def test_a_user_named_for_the_guest_alone_is_enough_for_root(read: Read) -> None:
    assert read(WWW, Host("main", guest={"www": {"user": "nobody"}}))["www"].user == "nobody"


@root_only
def test_a_user_named_for_the_guest_comes_before_the_one_for_all(read: Read) -> None:
    bound = Host("main", user="daemon", guest={"www": {"user": "nobody"}})
    assert read(WWW, bound)["www"].user == "nobody"


@user_only
def test_a_guest_runs_as_who_runs_mirage_hooks_where_that_is_not_root(read: Read) -> None:
    assert read(WWW, Host("main"))["www"].user is None


@user_only
def test_another_user_can_be_named_only_where_root_runs_the_guests(refusal: Refusal) -> None:
    message = "guest www: user 'root' can be given only where root runs the guests"
    assert refusal(WWW, Host("main", user="root")) == message


@pytest.mark.parametrize("user", ["no-such-user", "", "a b", "0", "a\0b", "a\nb"])
def test_a_user_that_does_not_exist_is_refused(refusal: Refusal, user: str) -> None:
    message = f"guest www: user {user!r} does not exist on this host"
    assert refusal(WWW, Host("main", user=user)) == message
