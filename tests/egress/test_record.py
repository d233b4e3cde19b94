"""The record: bounded, its sums exact, and a flood of one verdict leaves the other one's entries in place."""

from guardhouse.egress.record import EgressLedger, EgressRecord, refused_lines
from guardhouse.limits import EGRESS_RECORD_TEXT_MAX_CHARS, EGRESS_RECORDS_MAX


def record(host: str, verdict: str, **more: object) -> EgressRecord:
    return EgressRecord(protocol="connect", host=host, port=443, verdict=verdict, bytes_up=1, bytes_down=2, **more)


def test_a_flood_of_one_verdict_keeps_the_other() -> None:
    """Whichever comes in masses, the first of the other kind stays, and what is left out is counted."""
    for flood, rare in (("allow", "deny"), ("deny", "allow")):
        ledger = EgressLedger()
        for _ in range(EGRESS_RECORDS_MAX + 50):
            ledger.add(record("flood.example", flood))
        assert ledger.add(record("rare.example", rare))
        said = ledger.as_json()
        assert said["connections"][-1]["host"] == "rare.example"
        assert said["left_out"] == 50
        assert len(said["connections"]) == EGRESS_RECORDS_MAX + 1
        assert said["bytes_up"] == EGRESS_RECORDS_MAX + 51
        assert {said["allowed"], said["refused"]} == {1, EGRESS_RECORDS_MAX + 50}


def test_long_texts_are_clipped_and_say_so() -> None:
    """A URL of any length takes a bounded part of the record."""
    url = "GET http://a.example/" + "x" * 10_000
    said = record("a.example", "allow", url=url).as_json()["url"]
    assert said == url[:EGRESS_RECORD_TEXT_MAX_CHARS] + f"… ({len(url)} characters)"


def test_refused_lines() -> None:
    """Each refused target once, five at most, the rest counted; nothing where there is no proxy."""
    ledger = EgressLedger()
    ledger.add(record("good.example", "allow"))
    for number in range(7):
        for _ in range(2):
            ledger.add(record(f"bad{number}.example", "deny", reason="no entry"))
    lines = refused_lines(ledger.as_json())
    assert lines[0] == "the egress proxy refused bad0.example:443: no entry"
    assert lines[-1] == "and 2 further targets, which the result lists"
    assert len(lines) == 6
    assert refused_lines(None) == []
