import importlib
import re

from grpo_core.algorithms.baselines import BASES
from grpo_core.algorithms.group_objectives import GROUP_OBJECTIVES
from grpo_core.algorithms.normalisers import NORMALISERS
from grpo_core.algorithms.norms import NORMS, WHOLES
from grpo_core.algorithms.penalties import DEAD_ZONE, PENALTIES
from grpo_core.algorithms.registry import Registry
from grpo_core.algorithms.selections import DROPS, SCALES
from grpo_core.algorithms.surrogates import LEVELS, SURROGATES
from grpo_core.algorithms.values import VALUES
from grpo_core.algorithms.weights import WEIGHTS
from grpo_core.equation_pieces import CHOICES
from grpo_core.methods import METHODS
from grpo_core.methods_page import PATH, methods_markdown
from grpo_core.tasks.sampler import DATA_RULES


def test_the_page_is_current():
    assert PATH.read_text(encoding="utf-8") == methods_markdown(), "run `python -m grpo_core.methods_page`"


def test_the_page_names_every_registered_choice_and_method():
    page = methods_markdown()
    credit = (VALUES, BASES, NORMS, SCALES, DROPS, WHOLES)
    choices = [name for registry in (*credit, GROUP_OBJECTIVES, SURROGATES, WEIGHTS, LEVELS, PENALTIES, NORMALISERS, DATA_RULES) for name in registry]
    assert not [name for name in (*choices, *METHODS) if f"`{name}`" not in page]
    assert f"{DEAD_ZONE:.0e}".replace("e-04", "e-4") in page


def test_every_choice_lies_where_the_page_says():
    for choice in CHOICES:
        home = vars(importlib.import_module("grpo_core." + choice.home.removesuffix(".py").replace("/", ".")))
        registries = [held for held in home.values() if isinstance(held, Registry | dict)]
        assert any(set(held) == set(choice.pieces) for held in registries), f"{choice.home} does not hold {choice.title}"


def test_every_method_cites_a_paper():
    assert all(re.fullmatch(r"arXiv:\d{4}\.\d{5}", m.paper) for m in METHODS.values())
