"""What the tender of a Xen domain is told.

Shared with that tender, which stays in memory.
"""

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Order:
    """All that the tender of a domain is told.

    `xl` is what starts xl. The domain is called `temporary` until it runs, and `name` from then on;
    `config` is written to `file` for xl. `memory` is in MiB. `alone` says that it cannot be made
    beside what is there before it: both have a volume, and one writes to it. `replaces` are the
    uuids of the guest's own domains that it comes after, `adopts` of those that no tender pauses:
    somebody else has made them, or theirs was killed.
    """

    xl: list[str]
    name: str
    temporary: str
    uuid: str
    file: str
    config: str
    memory: int
    alone: bool = False
    replaces: list[str] = field(default_factory=list)
    adopts: list[str] = field(default_factory=list)

    @property
    def argument(self) -> str:
        """It as one argument of the tender's."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, argument: str) -> "Order":
        """Return the order that an argument is."""
        return cls(**json.loads(argument))
