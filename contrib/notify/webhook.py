#!/usr/bin/env python3
"""Post what mirage-hooks tells of to a chat: to a webhook that takes `{"text": ...}`.

Slack, Mattermost and Rocket.Chat have such webhooks. The address is a secret, so it stands in a
file of its own, which only its owner can read. In host.toml:

    [notify]
    command = ["/usr/local/bin/mirage-hooks-webhook", "/etc/mirage/webhook"]

Standard input is one event, as docs/reference.md describes it. Ends with 1 where it is not posted.
"""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

# mirage-hooks gives the command 10 s; so there is time left to say what was wrong.
_SECONDS = 8


def text_of(event: dict[str, object]) -> str:
    """Return the message for people: where it happened, then what."""
    first, *more = str(event["message"]).split("\n")
    # The lines behind the first are a guest's console, or a hint.
    quoted = "".join(f"\n> {line.strip()}" for line in more)
    return f"*{event['host']}* {event['repository']} ({event['branch']}): {first}{quoted}"


def post(url: str, text: str) -> None:
    """Post a text. Raises OSError (urllib's errors are such), ValueError for no address."""
    request = urllib.request.Request(  # noqa: S310 - the operator's own address
        url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=_SECONDS).close()  # noqa: S310


def main() -> int:
    """Post the event on standard input to the address in the file that is named."""
    try:
        url = Path(sys.argv[1]).read_text(encoding="utf-8").strip()
        post(url, text_of(json.load(sys.stdin)))
    except urllib.error.HTTPError as error:
        print(f"the webhook answers {error.code} {error.reason}", file=sys.stderr)
    except (OSError, ValueError) as error:
        # Not the address: what is said here is logged.
        print(f"not posted: {getattr(error, 'reason', type(error).__name__)}", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
