"""What a dry run says of prompts that do not fit, and of how answers are drawn."""

import json
from pathlib import Path

from constitutional_ai.engines.base import Own
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.settings import load_settings
from constitutional_ai.stages import preview


def test_the_estimate_leaves_out_prompts_that_fill_the_context(tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": "How do I pick a lock? " * n}) for n in (1, 900, 2)]
    file = tmp_path / "red.jsonl"
    file.write_text("\n".join(rows))
    settings = load_settings("lab", ["model.path=lab:xxs", f"prompts.red_team={file}"])
    text = preview.dry_run(settings, *preview.engine_or_reason(settings))
    said = text.splitlines()
    (line,) = (line for line in said if line.startswith("prompts.red_team"))
    assert "1 of 3 prompts leave no room" in line and line.endswith(f"{file}:2")
    revise = next(line for line in said if line.startswith("revise "))
    assert int(revise.split()[1]) == 2 * 9  # an answer, four critiques, four revisions


def test_a_preview_says_what_is_drawn_with_and_who_says_so() -> None:
    engine = ScriptedEngine(lambda _: "")
    engine.own = Own(0.7, 0.8)
    settings = load_settings("qwen-0.5b", ["sample.temperature=0.5"])
    assert list(preview.drawn_with(settings, engine))[:2] == [
        "revise draws with temperature 0.7 (the model's own), top_p 0.8 (the model's own)",
        "sample draws with temperature 0.5 (the run file), top_p 0.8 (the model's own)",
    ]
    (revise, *_) = preview.drawn_with(settings, None)
    assert revise == "revise draws with temperature the model's own, top_p the model's own"
