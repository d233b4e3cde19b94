"""Secrets taken out on the host before anything leaves it: output, argument vectors, logs, results. Pure."""

from guardhouse.redaction.entries import Literal, Pattern
from guardhouse.redaction.errors import RedactionError
from guardhouse.redaction.load import RedactionRules, load_rules
from guardhouse.redaction.stream import RedactionStream, Redactor
from guardhouse.redaction.structured import SecretNames, redact_argv, redact_data
from guardhouse.redaction.values import literals_of, parse_value_lines

__all__ = [
    "Literal",
    "Pattern",
    "RedactionError",
    "RedactionRules",
    "RedactionStream",
    "Redactor",
    "SecretNames",
    "literals_of",
    "load_rules",
    "parse_value_lines",
    "redact_argv",
    "redact_data",
]
