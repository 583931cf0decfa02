"""Methods: the catalogue. Pick one; its equation and slots are drawn from the row that trains it, beside another's if wanted."""

import streamlit as st

from grpo_core.method_row import HARMS
from grpo_core.methods import METHODS, method_name
from pages.components import methods_view, url
from pages.components.frames import part
from pages.components.text import escape

BASE = "grpo"

st.title("Methods", anchor=False, help="Every method is one row of choices over the same equation; what is drawn here is made from the row that trains.")

asked = st.query_params.get("method", BASE)
name = method_name(asked) or BASE
if method_name(asked) is None:
    st.error(f"{escape(methods_view.no_such(asked))} GRPO is shown instead.", icon=":material/search_off:")

with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    search = url.sync("q", "methods.search", st.query_params.get("q", ""), default="")
    st.text_input("Search", key="methods.search", type="search", live=True, on_change=search, placeholder="Name, paper or word", width=240)
    harm = url.sync("for", "methods.for", url.choice("for", HARMS, "") or None)
    st.selectbox(
        "Protects against", list(HARMS), index=None, key="methods.for", on_change=harm, placeholder="anything", help=methods_view.harms_help(), width=240
    )
    slot = url.sync("uses", "methods.uses", url.choice("uses", methods_view.uses(), "") or None)
    st.selectbox(
        "Uses", list(methods_view.uses()), index=None, key="methods.uses", on_change=slot, placeholder="any choice", width=320,
        format_func=methods_view.uses().get, help="A choice of one of the slots: methods that differ elsewhere share it.",
    )  # fmt: skip

fitting = methods_view.fitting(st.session_state["methods.search"], st.session_state["methods.for"], st.session_state["methods.uses"])
if fitting:
    pick = url.sync("method", "methods.method", name if name in fitting else None)
    st.pills("Method", fitting, key="methods.method", on_change=pick, format_func=lambda one: METHODS[one].title, label_visibility="collapsed")
else:
    st.info("No method fits these filters.", icon=":material/filter_alt_off:")

method = METHODS[name]
methods_view.head(method)
with st.grid(2, min_column_width=430, gap="small", border=True) as grid:
    with grid.cell():
        methods_view.equation(method)
    with grid.cell():
        methods_view.reasons(method)
with st.container(border=True, gap="small"):
    others = [one for one in METHODS if one != name]
    default = BASE if name != BASE else "dr_grpo"
    beside = url.choice("beside", others, default)
    choose = url.sync("beside", "methods.beside", beside, default=default)
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        methods_view.difference(method, METHODS[beside])
        st.selectbox("Compare with", others, key="methods.beside", on_change=choose, format_func=lambda one: METHODS[one].title, width=240)
    methods_view.strip(method, METHODS[beside])


@part(key="methods.runs", every_s=10.0)
def runs() -> None:
    methods_view.runs(method)


runs()
methods_view.rules()
