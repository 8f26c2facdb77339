"""The JSON document of a report, held to its published schema."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fido2.utils import websafe_decode
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

import killswitch
from killswitch.converge import Limits
from killswitch.document import SCHEMA_VERSION, order_document, proof_document, report_document
from killswitch.driving import Pressed
from killswitch.exit_codes import ExitCode
from killswitch.journal.store import NewEvent
from killswitch.model import Attempt, HaltReport, Mode, Note, Outcome, Proof, StepResult
from killswitch.verdict import Intent
from tests.engine.simulator import (
    ORIGIN,
    Faults,
    Simulator,
    Thing,
    WorldStep,
    make_assignment,
    make_order,
)

SCHEMA: dict[str, Any] = json.loads(
    (Path(killswitch.__file__).parent / "schemas" / f"report-v{SCHEMA_VERSION}.json").read_text(
        encoding="utf-8"
    )
)
VALIDATOR = Draft202012Validator(SCHEMA)
PROOF = Proof(
    credential_id=bytes(range(48)),
    client_data_json=b'{"type":"webauthn.get"}',
    authenticator_data=bytes(37),
    signature=b"\xff\xfe\xfd" * 24,
    key_label="blue",
    operator="anna",
    user_verified=False,
    counter=4_294_967_295,
    flags=1,
    counter_regressed=True,
)
NOTE = Note("positions", "2 positions stay open", "close them by hand")


def halt(seed: int, intent: Intent = Intent.PERFORM, mode: Mode = Mode.LIVE) -> HaltReport:
    """Run one halt of a random world with random troubles."""
    simulator = Simulator(seed)
    rng = simulator.rng
    steps = []
    for number in range(rng.randint(0, 3)):
        things = [Thing(f"thing {n}", phase=n, live=rng.random() < 0.8) for n in range(1, 3)]
        blind = rng.choice([0, 0, 10_000])
        steps.append(WorldStep(f"s{number}", things, simulator.now, blind_looks=blind))
        simulator.faults[f"world s{number}"] = Faults.draw(rng)
    record = WorldStep("ordered", [Thing("m")], simulator.now, name="journal", evidence=True)
    simulator.faults["journal ordered"] = Faults.draw(rng)
    if rng.random() < 0.2:
        simulator.press_at(ORIGIN + rng.random() * 10, Pressed.TWICE)
    assignment = make_assignment(tuple(steps), intent=intent, mode=mode, record=record)
    if rng.random() < 0.5:
        assignment = replace(assignment, proof=PROOF)
    return simulator.run(assignment, Limits())


def as_json(report: HaltReport, *, sandbox: bool = False) -> dict[str, Any]:
    """Return the document as another tool reads it."""
    document = report_document(report, sandbox=sandbox)
    read: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    return read


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema within `schema`, and itself."""
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    inner += [each for each in (schema.get("items"), *schema.get("anyOf", ())) if each]
    for each in inner:
        yield from parts(each)


# The schema.


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION


def test_every_object_is_closed_and_every_field_required_and_described() -> None:
    objects = [part for part in parts(SCHEMA) if "properties" in part]
    assert len(objects) == 7
    for part in objects:
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
        for field in part["properties"].values():
            described = (
                SCHEMA["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field
            )
            assert described["description"].endswith(".")


def test_the_schemas_words_are_the_codes_words() -> None:
    assert SCHEMA["$defs"]["outcome"]["enum"] == [outcome.value for outcome in Outcome]
    order = SCHEMA["$defs"]["order"]["properties"]
    assert order["mode"]["enum"] == [mode.value for mode in Mode]
    assert set(SCHEMA["properties"]["exit_code"]["enum"]) <= {int(code) for code in ExitCode}
    for outcome in Outcome:
        assert f"{outcome.value}:" in SCHEMA["$defs"]["outcome"]["description"]


# Documents.


@pytest.mark.parametrize(
    ("intent", "mode"),
    [(Intent.PERFORM, Mode.LIVE), (Intent.REHEARSE, Mode.DRILL), (Intent.LOOK, Mode.DRILL)],
)
def test_whatever_a_run_comes_to_its_document_fits_the_schema(intent: Intent, mode: Mode) -> None:
    first = random.randrange(2**32)
    print(f"first seed {first}")
    seen: set[str] = set()
    for seed in range(first, first + 60):
        document = as_json(halt(seed, intent, mode), sandbox=seed % 2 == 0)
        VALIDATOR.validate(document)
        seen |= {result["outcome"] for result in document["results"]}
    assert len(seen) >= 3, "a simulator without trouble would prove nothing"


def test_a_document_says_what_the_report_says() -> None:
    simulator = Simulator(seed=7)
    step = WorldStep("prod", [Thing("key 1")], simulator.now)
    report = simulator.run(replace(make_assignment((step,)), proof=PROOF), Limits())
    noted = replace(report.results[0], notes=(NOTE,))
    report = replace(report, results=(noted, *report.results[1:]), degraded=("no alert",))
    document = as_json(report)
    VALIDATOR.validate(document)
    assert document["killswitch"] == killswitch.__version__
    assert document["order"]["mode"] == "live"
    assert (document["halted"], document["exit_code"]) == (True, 5)
    assert document["degraded"] == ["no alert"]
    assert document["started_at"] == "2026-11-21T03:14:07.000+00:00"
    assert document["not_done"] == [
        {"kind": "positions", "text": "2 positions stay open", "hint": "close them by hand"}
    ]
    (result,) = document["results"]
    assert (result["step"], result["system"], result["outcome"]) == ("world", "prod", "verified")
    (target,) = [each for each in result["targets"] if each["target"] == "key 1"]
    assert target["attempts"][0]["summary"] == "ended"


def test_every_time_is_rounded_to_milliseconds() -> None:
    document = as_json(halt(seed=3))
    times: list[float | None] = [document["verified_s"], document["elapsed_s"]]
    for result in document["results"]:
        times += [result["started_s"], result["ended_s"]]
        for target in result["targets"]:
            for attempt in target["attempts"]:
                times += [attempt["started_s"], attempt["ended_s"]]
    assert len(times) > 6
    for seconds in times:
        assert seconds is None or seconds == round(seconds, 3)


def test_what_a_receipt_keeps_is_not_taken_for_a_time() -> None:
    report = halt(seed=3)
    target = report.results[0].targets[0]
    kept = replace(target, attempts=(Attempt("end", 0.1, 0.2, evidence={"took_s": "0.12345"}),))
    result: StepResult = replace(report.results[0], targets=(kept,))
    document = as_json(replace(report, results=(result,)))
    VALIDATOR.validate(document)
    assert document["results"][0]["targets"][0]["attempts"][0]["evidence"] == {"took_s": "0.12345"}


def test_an_order_is_written_with_the_fields_that_were_signed() -> None:
    order = make_order(Mode.DRILL)
    assert json.loads(json.dumps(order_document(order))) == json.loads(order.to_bytes())


def test_a_proof_keeps_its_exact_bytes() -> None:
    document = proof_document(PROOF)
    for field in ("credential_id", "client_data_json", "authenticator_data", "signature"):
        assert websafe_decode(document[field]) == getattr(PROOF, field)
    assert (document["counter"], document["counter_regressed"]) == (4_294_967_295, True)


def test_a_document_can_be_kept_in_the_journal_as_it_is() -> None:
    report = replace(halt(seed=5), proof=PROOF)
    document = report_document(report, sandbox=True)
    raw = NewEvent("h1.completed", "halt.completed", "2026-11-21T03:14:07Z", document).to_bytes()
    assert json.loads(raw)["data"] == as_json(report, sandbox=True)


@pytest.mark.parametrize("place", [(), ("order",), ("proof",), ("results", 0), ("not_done", 0)])
def test_a_field_too_many_or_too_few_does_not_fit(place: tuple[str | int, ...]) -> None:
    report = replace(halt(seed=11), proof=PROOF)
    noted = replace(report.results[0], notes=(NOTE,))
    report = replace(report, results=(noted, *report.results[1:]))
    for field in ("new", "gone"):
        document: Any = as_json(report)
        part = document
        for key in place:
            part = part[key]
        if field == "new":
            part["new"] = 1
        else:
            part.popitem()
        with pytest.raises(ValidationError):
            VALIDATOR.validate(document)
