"""Decisions a second by length and number of rules, beside a naive loop over the same rules.

Run: python bench/policy.py [--json]. Times are processor time (a decision waits for nothing), medians of interleaved
rounds; compare only inside one run.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

from guardhouse.policy import Policy, decide, policy_from_pairs
from guardhouse.policy.model import Context
from guardhouse.policy.rulebook import rulebook_of
from guardhouse.policy.shell import read_command

SHORT = "kubectl get pods -n web"
ROUNDS = 7


def rules(count: int) -> list[list[str]]:
    """A deny for everything, then prefixes, inner stars and exact commands, the way people write them."""
    made = [["*", "deny"]]
    for number in range(count - 2):
        match number % 4:
            case 0:
                made.append([f"tool{number} get *", "allow"])
            case 1:
                made.append([f"tool{number % 40} --name=n{number}* list", "allow"])
            case 2:
                made.append([f"app{number}", "allow"])
            case _:
                made.append([f"tool{number} delete *", "deny"])
    return [*made, ["kubectl get *", "allow"]][:count]


def naive(pairs: list[list[str]]) -> Callable[[str], str]:
    """One compiled expression a rule, tried from the first to the last: what a straightforward checker does."""
    compiled = []
    for pattern, action in pairs:
        body = ".*".join(re.escape(part) for part in pattern.removesuffix(" *").split("*"))
        tail = "(?: .*)?" if pattern.endswith(" *") else ""
        compiled.append((re.compile(body + tail, re.DOTALL), action))

    def judge(text: str) -> str:
        verdict = "deny"
        for expression, action in compiled:
            if expression.fullmatch(text):
                verdict = action
        return verdict

    return judge


def time_us(work: Callable[[], Any], *, at_least_s: float = 0.02) -> float:
    """Microseconds of one call, over enough calls to fill the time."""
    calls, elapsed = 1, 0.0
    while True:
        start = time.process_time()
        for _ in range(calls):
            work()
        elapsed = time.process_time() - start
        if elapsed >= at_least_s:
            return elapsed / calls * 1e6
        calls *= 4


def fresh(text: str) -> Callable[[], str]:
    """Texts that differ at each call, so that no cache of whole texts answers."""
    counter = iter(range(10**9))
    return lambda: f"{text} x{next(counter)}"


def interleaved(works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            samples[name].append(time_us(work))
    return {name: statistics.median(values) for name, values in samples.items()}


def bench_rules(count: int) -> dict[str, float]:
    pairs = rules(count)
    start = time.process_time()
    policy: Policy = policy_from_pairs(pairs)
    decide(policy, SHORT)
    load_ms = (time.process_time() - start) * 1e3
    loop = naive(pairs)
    book = rulebook_of(policy)
    assert book is not None
    new_short, new_long = fresh(SHORT), fresh(SHORT + " " + "a" * 10_000)
    subject = SHORT.replace(" ", "\0")
    times = interleaved(
        {
            "decide_short_us": lambda: decide(policy, SHORT),
            "decide_new_short_us": lambda: decide(policy, new_short()),
            "decide_new_10k_chars_us": lambda: decide(policy, new_long()),
            "match_only_us": lambda: book.find([subject], Context()),
            "naive_match_only_us": lambda: loop(SHORT),
            "decide_unknown_word_us": lambda: decide(policy, 'kubectl get "$x"'),
        }
    )
    return {
        "rules": count,
        "load_and_first_ms": load_ms,
        **times,
        "decisions_per_s": 1e6 / times["decide_new_short_us"],
    }


def time_reading(text: Callable[[], str]) -> float:
    return time_us(lambda: read_command(text()), at_least_s=0.005)


def bench_reading() -> list[dict[str, float]]:
    """The reader by length: the time for a character must stay about the same."""
    found = []
    for length in (100, 1_000, 10_000, 50_000, 100_000):
        for name, unit in (
            ("plain words", "abc "),
            ("pipeline", "ls -l 'a b' | "),
            ("substitutions", 'echo "$(ls $x)"; '),
        ):
            body = (unit * (length // len(unit) + 1))[:length].rsplit(unit, 1)[0] + "ls"
            took = statistics.median(time_reading(fresh(body)) for _ in range(3))
            found.append({"text": name, "chars": len(body), "read_us": took, "ns_per_char": took * 1e3 / len(body)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = {"decisions": [bench_rules(count) for count in (10, 1_000, 10_000)], "reading": bench_reading()}
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for row in results["decisions"]:
        print("  ".join(f"{key}={value:,.1f}" for key, value in row.items()))
    for row in results["reading"]:
        print(
            f"{row['text']:>14} {row['chars']:>8} chars {row['read_us']:>12,.0f} us {row['ns_per_char']:>8,.0f} ns/char"
        )


if __name__ == "__main__":
    main()
