"""The main job, end to end: a pull replaces the guest, a broken image is rolled back."""

from support import Site


def test_a_pull_replaces_the_running_guest(deployed: Site) -> None:
    deployed.publish("two")
    pull = deployed.pull()
    assert deployed.page() == "two"
    assert "www: replace: image unix/…/www.unix" in pull.stderr
    assert "network: host sockets, 127.0.0.1/8 (netmask 255.0.0.0)" in pull.stderr
    assert deployed.outcomes() == ["ended", "healthy"]
