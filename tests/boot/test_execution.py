"""Plans that several guests, or the operator's word, make hard to carry out."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.boot import artifact
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.store import Store
from polling import poll
from support import COMMAND, Site, free_port, get, run

BROKEN = b"#!/bin/sh\nexit 3\n"


def publish(site: Site, guests: dict[str, tuple[int, bytes]]) -> None:
    """Commit a manifest of guests, each with its port and its image."""
    site.count += 1
    folder = site.upstream / "unix" / f"{site.count:040x}"
    folder.mkdir(parents=True)
    text = ""
    for name, (port, image) in guests.items():
        (folder / f"{name}.unix").write_bytes(image)
        text += (
            f'[guest.{name}]\ntarget = "unix"\nimage = "unix/{{latest}}/{name}.unix"\n'
            f'args = ["--ipv4=127.0.0.1/8", "--port={port}"]\n[guest.{name}.check]\n'
            f'http = "http://127.0.0.1:{port}/"\nwithin = "3s"\n'
        )
    (site.upstream / "mirage-hooks.toml").write_text(text)
    (site.upstream / "unix" / "latest").write_text(f"{folder.name}\n")
    site.commit(f"publish {site.count}")


@pytest.fixture
def image(compiled: Callable[[str], Path]) -> Callable[[str], bytes]:
    """Return a function that returns the image of a page."""
    return lambda page: compiled(page).read_bytes()


def test_what_is_rolled_back_gets_its_port_from_a_guest_that_was_stopped_for_it(
    site: Site, image: Callable[[str], bytes]
) -> None:
    port = site.port
    publish(site, {"b": (port, image("one"))})
    site.pull()
    site.install("--deploy")
    publish(site, {"a": (port, image("two"))})
    site.pull()
    assert get(port) == "two"
    publish(site, {"b": (port, BROKEN)})
    site.pull()
    assert get(port) == "one"


def test_a_guest_is_left_alone_whose_port_is_not_let_go_after_all(
    site: Site, image: Callable[[str], bytes]
) -> None:
    first, second, third = site.port, free_port(), free_port()
    images = {name: image(page) for name, page in {"a": "one", "b": "two", "c": "three"}.items()}
    publish(
        site, {"a": (first, images["a"]), "b": (second, images["b"]), "c": (third, images["c"])}
    )
    site.pull()
    site.install("--deploy")
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = somebody.getsockname()[1]
        publish(
            site, {"a": (second, images["a"]), "b": (third, images["b"]), "c": (taken, images["c"])}
        )
        site.pull()
    assert [get(port) for port in (first, second, third)] == ["one", "two", "three"]
    assert "failed" not in site.outcomes("a")


def test_a_guest_is_not_stopped_while_one_that_may_take_its_place_waits_for_its_next_try(
    site: Site, image: Callable[[str], bytes]
) -> None:
    publish(site, {"a": (site.port, image("one"))})
    site.pull()
    site.install("--deploy")
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        publish(site, {"b": (somebody.getsockname()[1], image("two"))})
        site.pull()
        waits = site.state.fault("b")
        poll(site)
    assert waits is not None
    assert site.state.fault("b") == waits
    assert site.page() == "one"


def test_a_pinned_guest_is_deployed_again_after_its_pointer_was_broken_and_mended(
    twice: Site,
) -> None:
    twice.command("rollback", "www")
    (twice.upstream / "unix" / "latest").write_text("a/b\n")
    twice.commit("a pointer that leads nowhere")
    assert "done, but for what cannot be booted: www" in twice.pull().stderr
    twice.publish("three")
    twice.pull()
    assert twice.page() == "three"


def test_a_rollback_of_a_guest_that_left_the_repository_is_refused(
    twice: Site, image: Callable[[str], bytes]
) -> None:
    publish(twice, {"other": (free_port(), image("one"))})
    twice.pull()
    done = twice.command("rollback", "www", check=False)
    assert (done.returncode, "there is no guest 'www'" in done.stderr) == (3, True)


def test_a_stop_leaves_the_trigger_to_a_deploy(deployed: Site) -> None:
    deployed.state.trigger.write_text("push\n")
    deployed.command("stop", "www")
    assert deployed.state.trigger.read_text() == "push\n"
    deployed.command("deploy")
    assert deployed.state.trigger.read_text() == ""


def test_a_policy_that_is_taken_over_leaves_all_settled(deployed: Site) -> None:
    deployed.check = 'alive = "1s"'
    deployed.publish()
    deployed.pull()
    assert deployed.state.settled.exists()


def test_a_commit_that_a_killed_converge_did_not_pin_is_pinned_by_the_next(deployed: Site) -> None:
    commit = deployed.git("rev-parse", "HEAD").stdout.strip()
    deployed.git("update-ref", "-d", f"refs/mirage-hooks/keep/{commit}")
    deployed.state.settled.unlink()
    deployed.command("deploy")
    assert f"refs/mirage-hooks/keep/{commit}" in deployed.git("for-each-ref").stdout


def test_a_host_file_of_an_old_date_is_found_changed_by_a_push(deployed: Site) -> None:
    run("git", "checkout", "-q", "-b", "live", cwd=deployed.upstream)
    deployed.tell_host(branch="live")
    os.utime(deployed.state.host_file, (1, 1))  # as mv, cp -p and rsync leave it
    deployed.publish("two")
    run("git", "push", "-q", str(deployed.clone), "live", cwd=deployed.upstream)
    assert deployed.page() == "two"


def test_what_cannot_be_a_guest_s_name_is_refused_without_a_bug_report(deployed: Site) -> None:
    done = run("sh", "-c", f"{COMMAND} stop \"$(printf '\\377')\"", cwd=deployed.clone, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)


def test_guests_that_share_an_image_may_have_it_unpacked_at_once(deployed: Site) -> None:
    tip = Repository(deployed.clone).tip("main")
    blob = artifact.locate(tip, "unix/{latest}/www.unix").blob
    store = Store(deployed.clone.parent / "another-store", 1 << 28)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(store.add(blob).sha256)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    assert len(set(found)) == 1
