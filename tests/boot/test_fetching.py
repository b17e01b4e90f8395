"""Why a fetch failed, in words that help."""

import pytest

from mirage_hooks.boot import fetching

# What git, ssh and curl say, as seen; and the words that stand for it.
SAID = {
    "ssh: Could not resolve hostname nowhere.example: Name or service not known\n"
    "fatal: Could not read from remote repository.\n\n"
    "Please make sure you have the correct access rights\nand the repository exists.\n": (
        "it cannot be reached: ssh: Could not resolve hostname nowhere.example"
    ),
    "fatal: unable to access 'http://127.0.0.1:1/x/': Failed to connect to 127.0.0.1 port 1 after "
    "0 ms: Couldn't connect to server\n": "it cannot be reached: fatal: unable to access",
    "fatal: unable to connect to 127.0.0.1:\n127.0.0.1[0: 127.0.0.1]: errno=Connection refused\n": (
        "it cannot be reached: fatal: unable to connect to 127.0.0.1:; 127.0.0.1[0"
    ),
    "git@host: Permission denied (publickey).\nfatal: Could not read from remote repository.\n": (
        "this user's key is not accepted there: git@host: Permission denied (publickey)."
    ),
    "git@host: Permission denied (publickey,password).\n": "key is not accepted there",
    "fatal: Unable to create temporary file '/x/.git/objects/pack/tmp_pack_XXXXXX': Permission "
    "denied\nfatal: fetch-pack: invalid index-pack output\n": (
        "files of the repository cannot be written: fatal: Unable to create temporary file"
    ),
    "error: insufficient permission for adding an object to repository database .git/objects\n"
    "fatal: failed to write object\n": "files of the repository cannot be written",
    "fatal: could not create work tree dir 'x': Permission denied\n": "cannot be written",
    "error: cannot open '.git/FETCH_HEAD': Permission denied\n": "cannot be written",
    "error: cannot lock ref 'refs/heads/x': Unable to create '/x/.git/refs/heads/x.lock': "
    "Permission denied\n": "files of the repository cannot be written",
    "fatal: unable to access 'http://x/': The requested URL returned error: 403\n": (
        "it does not let this user do that: fatal: unable to access"
    ),
    "fatal: unable to access 'http://x/': The requested URL returned error: 503\n": (
        "it cannot serve just now"
    ),
    "fatal: http://x/y.git/info/refs not valid: is this a git repository?\n": (
        "what answers there is no git server"
    ),
    "fatal: unable to update url base from redirection:\n  asked for: http://x/y.git/info/refs\n"
    "   redirect: http://x/signin\n": "what answers there is no git server",
    "git@host: Permission denied (password).\n": "it asks for a password",
    "fatal: could not read Username for 'https://example.org': terminal prompts disabled\n": (
        "it asks for a password"
    ),
    "fatal: Authentication failed for 'https://example.org/x/'\n": "it asks for a password",
    "Host key verification failed.\nfatal: Could not read from remote repository.\n": (
        "its host key is not the known one: Host key verification failed."
    ),
    "fatal: couldn't find remote ref refs/heads/main\n": "that branch is gone there",
    "fatal: detected dubious ownership in repository at '/srv/up'\n": (
        "git does not trust the owner of that repository"
    ),
    "error: unable to write file: No space left on device\n": "the disk is full",
    "error: cannot update ref 'refs/mirage-hooks/upstream': couldn't write '/srv/x.lock'\n": (
        "the disk is full"
    ),
    "fatal: unable to access 'https://x/': server certificate verification failed\n": (
        "its certificate is not accepted"
    ),
    "fatal: '/srv/gone' does not appear to be a git repository\n": "there is no such repository",
    "error: cannot lock ref 'refs/remotes/origin/main': Unable to create '/main.lock': exists\n": (
        "another git is at work here, or was killed at it"
    ),
    "fatal: something new\n": "main could not be fetched from origin: fatal: something new",
    "": "main could not be fetched from origin: git ended with 128",
}


@pytest.mark.parametrize(("said", "words"), SAID.items())
def test_a_failed_fetch_is_said_in_words_that_help(said: str, words: str) -> None:
    error = fetching.not_fetched("main", "origin", 128, said, 60)
    assert words in error.message
    assert error.hint


@pytest.mark.parametrize("said", SAID)
def test_gits_own_words_are_a_line_without_what_it_always_says(said: str) -> None:
    message = fetching.not_fetched("main", "origin", 128, said, 60).message
    assert "\n" not in message
    assert "Please make sure" not in message


@pytest.mark.parametrize("code", [124, 137])
def test_a_fetch_that_took_too_long_is_said_to(code: int) -> None:
    error = fetching.not_fetched("main", "origin", code, "", 5)
    assert error.message == "main could not be fetched from origin: it took more than 5 s"


@pytest.mark.parametrize("remote", ["https://me:secret@example.org/x", "https://secret@host/x"])
def test_no_secret_of_an_address_is_shown(remote: str) -> None:
    error = fetching.not_fetched("main", remote, 128, f"fatal: bad {remote}", 60)
    assert "secret" not in str(error)
