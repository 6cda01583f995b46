"""What a check of a bundle found: what is wrong, and what was shown, in sentences.

Decides nothing; no file, no clock. Source of truth: `verify.py`, which fills it.
"""

from dataclasses import dataclass, field
from typing import Final

from wattledger_collector.verify_together import Claim

# Of more problems than these, the first tell enough; of a longer sentence, its beginning does.
PROBLEMS_MAX: Final = 50
LINE_MAX: Final = 1_000


@dataclass(slots=True)
class Verdict:
    """problems: empty if all is as it was signed. facts: what was checked. conclusion: what that shows, if all is well.

    claim: what the statement says of itself, to be compared with others; None for what is no statement.
    """

    problems: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    conclusion: str = "every figure follows from the leaves"
    claim: Claim | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def complain(self, text: str) -> None:
        """Add a problem, unless there are enough."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)

    def tell(self, text: str) -> None:
        """Add a fact, once."""
        if text not in self.facts:
            self.facts.append(text)


def shown(text: str) -> str:
    """A sentence as one line that a terminal only shows: names in a bundle are somebody else's words.

    Signs that move the cursor, change colours or turn the direction of writing are written out, and so is a name whose
    letters look like those of another.
    """
    line = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    if not line.isascii():
        line += f" (in ASCII: {ascii(line)[1:-1]})"
    return line if len(line) <= LINE_MAX else f"{line[:LINE_MAX]} ..."
