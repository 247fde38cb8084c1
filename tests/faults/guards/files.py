"""The guards of what comes from files, models and receivers."""

from __future__ import annotations

from .model import CORE, DatabaseGuard, Guard

REFERENCES = "tests/store/test_artefact_references.py"
WIRE = "core/discovery_core/wire"

ARTEFACTS = (
    Guard("a result refers to its own flow's artefacts", f"{CORE}/execution.py",
          "_of_flow(flow_id, digest).with_for_update(",
          "select(Artefact).where(Artefact.digest == digest).with_for_update(",
          f"{REFERENCES}::test_s17_a_result_names_no_artefact_of_another_flow"),
    Guard("only its own flow's artefacts are pinned", f"{CORE}/execution.py",
          "                        await _require_artefact(session, flow.flow_id, digest)\n", "",
          f"{REFERENCES}::test_s17_no_artefact_of_another_flow_is_pinned"),
    Guard("the form of artefacts' names", f"{WIRE}/model.py",
          "^[A-Za-z][A-Za-z0-9_-]{0,63}$", "",
          f"{REFERENCES}::test_s17_names_of_artefacts_are_of_a_closed_form[upload/x]"),
    Guard("a result has no name of an input", f"{WIRE}/model.py", "if name in PINNED:", "if False:",
          f"{REFERENCES}::test_s17_names_of_artefacts_are_of_a_closed_form[source]"),
)  # fmt: skip

FILES: tuple[Guard | DatabaseGuard, ...] = (*ARTEFACTS,)
