from grpo_core.diagnosis.causes import SIGNATURES
from grpo_core.diagnosis.page import PATH, filled
from grpo_core.diagnosis.thresholds import THRESHOLDS


def test_the_page_is_current():
    text = PATH.read_text(encoding="utf-8")
    assert text == filled(text), "run `python -m grpo_core.diagnosis.page`"


def test_the_page_names_every_signal_and_cause():
    text = PATH.read_text(encoding="utf-8")
    assert not [name for name in (*(s.name for s in SIGNATURES), *(set(THRESHOLDS) - {"policy_collapse", "probe_times"})) if f"`{name}`" not in text]
