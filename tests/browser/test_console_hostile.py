"""What scripts say, in the console in a real browser: only ever text, with nothing hidden, and bounded."""

from __future__ import annotations

import json

import pytest

from tests.browser.console import SEQS, Console, answer
from tests.http.live import Live

MARKUP = "<img src=x onerror=document.title='done'><b>bold</b><script>document.title='done'</script>"


@pytest.mark.parametrize(
    "code",
    [
        "console.log(MARKUP)",
        "console.warn(MARKUP, { [MARKUP]: MARKUP })",
        "return { [MARKUP]: MARKUP }",
        "await tools.gate.pass({ [MARKUP]: MARKUP })",
        "await callTool(MARKUP, {}).catch((error) => console.log(error.message))",
        "const error = new Error(MARKUP); error.code = MARKUP; throw error",
    ],
)
def test_what_a_script_says_is_never_markup(live: Live, console: Console, code: str) -> None:
    with live.streaming(f"const MARKUP = {json.dumps(MARKUP)};\n{code}", sessionId="s_markup") as stream:
        if "gate" in code:
            answer(live, stream.next("tool_call"), {MARKUP: MARKUP})
        stream.rest()
    console.watch("s_markup")
    console.page.until_text("#session-says", "The run has ")
    console.until_over()
    for opener in ("#session-calls button.open", "#session-events summary"):
        console.page.evaluate(f"document.querySelectorAll('{opener}').forEach((each) => each.click())")
    console.page.until_text("#session", "<img src=x")
    console.open("history")
    console.page.until_text("#history-total", "of")
    assert console.count("img, b, main script") == 0
    assert console.page.evaluate("document.title") == "enclave-broker console"


def test_the_page_itself_cannot_make_markup_or_run_a_text(console: Console) -> None:
    for way in ("document.body.innerHTML = '<b>x</b>'", "document.write('<b>x</b>')", "eval('1')", "new Function('1')"):
        tried = f"try {{ {way}; 'done' }} catch (error) {{ error.name }}"
        told = console.page.call("Runtime.evaluate", expression=tried, allowUnsafeEvalBlockedByCSP=False)
        assert told["result"]["value"] in {"TypeError", "EvalError"}, way
    console.page.problems.clear()  # the browser says so


def test_what_hides_or_turns_text_is_shown_as_an_escape(live: Live, console: Console) -> None:
    live.run(
        r"console.log('a\u202eb\u001b[2Jc\u200fd\u200be\u0000f\u2066g\u{e0041}h\u00adi\u3164j')", sessionId="s_bidi"
    )
    console.watch("s_bidi")
    console.page.until_text("#session-says", "completed")
    expected = r"a\u202eb\u001b[2Jc\u200fd\u200be\u0000f\u2066g\u{e0041}h\u00adi\u3164j"
    console.page.until_text("#session-output", expected)
    console.page.until_text("#session-events", expected)


def test_a_line_of_a_megabyte_is_bounded(live: Live, console: Console) -> None:
    code = "console.log('x'.repeat(1 << 20)); return 'y'.repeat(1 << 20)"
    live.run(code, sessionId="s_large")
    console.watch("s_large")
    console.page.until_text("#session-says", "completed")
    console.until_count("#session-events li", 3)
    console.page.evaluate("document.querySelectorAll('#session-events summary').forEach((each) => each.click())")
    console.page.until("document.querySelectorAll('#session-events pre').length === 3")
    console.page.until_text("#session-output", "characters before this")
    assert "more characters" in console.page.text("#session-result")
    assert console.page.evaluate("document.body.textContent.length") < 400_000


def test_of_ten_thousand_events_the_last_are_kept(live: Live, console: Console) -> None:
    last = live.run("for (let i = 0; i < 10_000; i++) console.log(i)", sessionId="s_many")[-1]["seq"]
    console.watch("s_many")
    console.page.until_text("#session-says", "completed")
    console.until_over()
    assert console.page.evaluate(SEQS) == list(range(last - 1999, last + 1))
    assert console.page.text("#session-events-total") == f"{last:,}, the oldest {last - 2000:,} aren't kept here"
    assert console.page.text("#session-output").endswith("9998\n9999\n")
