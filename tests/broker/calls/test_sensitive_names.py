"""Names that say that a secret stands under them: word by word, and the search that must not miss one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enclave_broker.broker.calls.middleware.redact import REDACTED
from enclave_broker.broker.calls.sensitive_names import (
    SENSITIVE_NAMES,
    SENSITIVE_WORDS,
    SensitiveNames,
    is_sensitive,
    may_hold_sensitive,
)

SENSITIVE = (
    *("accessToken", "clientSecret", "authToken", "userPassword", "dbPassword", "db_password", "API-KEY", "x-api-key"),
    *("set-cookie", "pwd", "aws_secret_access_key", "cvc", "credit_card", "privateKey", "password", "Password"),
    *("PASSWORD", "passwd", "passphrase", "pass_phrase", "secret", "token", "refreshToken", "id_token"),
    *("next_page_token", "apikey", "apiKey", "api.key", "ApiKey", "Authorization", "proxy-authorization", "cookies"),
    *("credential", "credentials", "private_key", "PRIVATE-KEY", "accessKeyId", "cvv", "CVV", "pin"),
    *("pinCode", "userPin", "PIN", "PINCode", "pin2", "otp", "otp_code", "cardNumber"),
    *("card_number", "iban", "IBAN", "ssn", "customer-ssn", "userSSN"),
)
HARMLESS = (
    *("user", "name", "shipping", "mapping", "spinner", "pinned", "opinion", "option"),
    *("hotplate", "cryptotparam", "key", "keyboard", "monkey", "card", "cards", "number"),
    *("access", "private", "author", "passenger", "pass", "classname", "crossnode", "urbane"),
    *("HOPPING_PINS", "shape", "description"),
)


@pytest.mark.parametrize("name", SENSITIVE)
def test_a_name_that_says_that_it_holds_a_secret_is_sensitive(name: str) -> None:
    assert is_sensitive(name)
    assert may_hold_sensitive(msgspec.json.encode({"a": 1, name: "x"}))
    assert SensitiveNames().value({"deep": [{name: "x"}]}) == {"deep": [{name: REDACTED}]}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_name_in_which_such_a_word_only_happens_to_stand_is_not(name: str) -> None:
    assert not is_sensitive(name)
    assert not may_hold_sensitive(msgspec.json.encode({"a": 1, name: "x"}))


@pytest.mark.parametrize(
    "value", ["password", 'say "password": x', '{"password": 1}', "token:", ["pin"], "\\", {"a": 'secret":'}]
)
def test_what_stands_in_a_value_is_no_name(value: Any) -> None:
    assert not may_hold_sensitive(msgspec.json.encode({"note": value, "b": value}))


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ({"max_tokens": 5, "tokenCount": 2.5}, {"max_tokens": 5, "tokenCount": 2.5}),
        ({"max_tokens": "5"}, {"max_tokens": REDACTED}),
        ({"hasToken": True, "password": None}, {"hasToken": True, "password": None}),
        ({"pin": 1234, "cardNumber": 4000}, {"pin": REDACTED, "cardNumber": REDACTED}),
        ({"tokens": ["a"]}, {"tokens": REDACTED}),
    ],
)
def test_only_what_can_be_no_secret_stays_under_such_a_name(args: Any, shown: Any) -> None:
    assert SensitiveNames().value(args) == shown


pieces = st.sampled_from([*SENSITIVE_NAMES, *SENSITIVE_WORDS, *'_-. "\\\n\t\x01\u00e9\u212a:{}aZ0', "Shop", "ing"])
cases = st.sampled_from([str.lower, str.upper, str.title, str.capitalize, str.swapcase])
names = st.lists(st.tuples(pieces, cases), max_size=5).map(lambda parts: "".join(case(part) for part, case in parts))


@given(name=names | st.text(max_size=12), value=names)
@example(name="a\npin", value="")
@example(name='a"pin"b', value="")
@example(name="\x01pIN", value="")
@example(name="to\u212aen", value="")
def test_the_search_of_a_text_finds_every_name_that_is_sensitive(name: str, value: str) -> None:
    if is_sensitive(name):
        assert may_hold_sensitive(msgspec.json.encode({"a": value, "deep": [value, {name: value, "z": value}]}))
