"""Old images: which `publish --keep` removes from the tree."""

import bz2

from mirage_hooks.boot import artifact
from mirage_hooks.boot.repository import Repository
from publisher import DESCRIBED, FIRST, SECOND, THIRD, Publisher, other


def test_so_many_images_stay_and_their_siblings_too(job: Publisher) -> None:
    config = job.folder / "config.ml"
    config.write_text("open Mirage\n")
    commits = [f"{number:040x}" for number in range(1, 6)]
    for number, commit in enumerate(commits):
        job.publish("--keep", "2", "--with", config, content=other(number), commit=commit)
    images = [path for path in job.paths() if path.endswith(".bz2")]
    assert images == [f"unix/{commit}/www.unix.bz2" for commit in commits[-2:]]
    assert sum(path.endswith("config.ml") for path in job.paths()) == 5
    assert sum(path.endswith(".sha256") for path in job.paths()) == 2


def test_what_went_out_of_the_tree_is_in_the_history(job: Publisher) -> None:
    for number, commit in enumerate((FIRST, SECOND)):
        job.publish("--keep", "1", content=other(number), commit=commit)
    old = artifact.locate(Repository(job.upstream).revision("main~1"), "unix/{latest}/www.unix.bz2")
    with old.blob.open() as stream:
        assert bz2.decompress(stream.read()) == other(0)


def test_images_of_other_guests_stay(job: Publisher) -> None:
    for number, commit in enumerate((FIRST, SECOND)):
        job.publish(guest="api", content=other(number), commit=commit)
    job.publish("--keep", "1", commit=THIRD)
    assert {f"unix/{one}/api.unix.bz2" for one in (FIRST, SECOND, THIRD)} < set(job.paths())


def test_an_image_that_a_manifest_pins_stays(job: Publisher) -> None:
    pinned = f"unix/{FIRST}/www.unix.bz2"
    job.publish(content=other(1))
    table = DESCRIBED.replace("www.unix", "www.unix.bz2")
    job.bring({"mirage-hooks.toml": f'{table}[guest.old]\ntarget="unix"\nimage="{pinned}"\n'})
    job.publish("--keep", "1", content=other(2), commit=SECOND)
    assert pinned in job.paths()


def test_what_was_there_before_counts_as_oldest(job: Publisher) -> None:
    job.bring({"unix/ffff/www.unix.bz2": "x", "unix/latest": "ffff"})
    job.publish(content=other(1), commit=FIRST)
    job.publish("--keep", "2", content=other(2), commit=SECOND)
    assert [path for path in job.paths() if path.endswith(".bz2")] == [
        f"unix/{FIRST}/www.unix.bz2",
        f"unix/{SECOND}/www.unix.bz2",
    ]
