"""Random sentences from a small grammar, so that clips rarely share a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_WORDS = {
    "name": "Bob|Emma|Peter|Anna|Mary|Oliver|Sophie|Paul|Naomi|Victor|Amy|Hugo|Bella|Tom|Wanda|"
    "Philip|Joy|Marco|Ruby|Fiona",
    "who": "my mother|the farmer|your brother|a painter|the old pilot|our neighbour|the baker|"
    "a small robot|the young woman|his father|the boatman|every poet",
    "did": "brought|bought|moved|painted|found|opened|saw|forgot|made|pushed|loved|borrowed|"
    "wrapped|chose|watched|repaired|emptied|compared|followed|remembered",
    "how": "big|purple|warm|empty|broken|beautiful|wooden|famous|yellow|heavy|smooth|paper|"
    "open|hollow|modern|bright|tiny|muddy|awful|ripe",
    "what": "map|boat|apple|piano|umbrella|house|bottle|window|camera|table|poem|garden|mushroom|"
    "bicycle|pump|drawing|flower|oven|violin|moon lamp|bowl|jar|album|pepper|wave",
    "where": "in the kitchen|by the harbour|near my office|above the river|on the farm|"
    "at the museum|under the arch|behind the wall|from Panama|in Oslo|by the tower|"
    "outside the village",
    "when": "today|on Monday|before supper|last autumn|at about five|in May|every morning|"
    "after the opera|two hours ago|now",
    "be": "was|became|may be|will be|seemed|must be",
    "act": "move|wait|open up|hope for more|go home|buy food|make room|help me|come along|"
    "pay my bill|fly away|jump over",
}
_WORDS = {key: text.split("|") for key, text in _WORDS.items()}
_PATTERNS = (
    "{name} {did} a {how} {what} {where}.",
    "{who} {did} the {what} {when}.",
    "{when}, {name} {did} {what}s and {what}s.",
    "the {how} {what} {be} {how}.",
    "we {act} {where} {when}.",
    "why would {name} {act}?",
    "{name} and {name} {did} {who}.",
    "oh, {who} {be} {how} {when}.",
    "you {act}, and {name} {be} {how}.",
    "how {how} {be} the {what}?",
)
_SHORT = (
    "{name} {be} {how}.",
    "{act}, {name}!",
    "oh, {how} {what}s.",
    "{when}, maybe.",
    "{name}!",
    "{what}s.",
)


def sentence(draw: np.random.Generator, short: bool = False) -> str:
    """One English sentence of about one to three seconds, or a short one to fill a gap."""

    def choose(choices: Sequence[str]) -> str:
        return choices[int(draw.integers(len(choices)))]

    pattern = choose(_SHORT if short else _PATTERNS)
    text = re.sub(r"{(\w+)}", lambda match: choose(_WORDS[match[1]]), pattern)
    return text[0].upper() + text[1:]
