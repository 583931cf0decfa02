"""Settings that a config may have and that cannot act: each said in one sentence, before anything is trained."""

from __future__ import annotations

from grpo_core.config import RunConfig
from grpo_core.rules import GROUP_REWARDS


def structural_notes(config: RunConfig) -> list[str]:
    """What a valid config asks for that cannot happen by construction, one sentence each with a way out; usually none."""
    notes = []
    method, once = config.method_row, config.updates_per_rollout == 1 and not config.replays
    llds = any(p.knob == "llds_coef" and config.strength(p.knob, p.coef) > 0 for p in method.penalties)
    if llds and once:
        notes.append(
            "LLDS is exactly zero in this run: with one update per rollout batch the policy never differs from the one that sampled; "
            "set epochs or minibatches to 2 or more"
        )
    if "llds_coef" in method.knobs and not llds:
        notes.append("LLDS is off in this run, as llds_coef is 0; leave it empty for the method's own weight, or take method=grpo")
    if config.preferences and config.gepo_coef == 0:
        notes.append("preferences are not read in this run, as gepo_coef is 0; leave it empty for the method's own weight")
    parts = len(config.rewards) or 1
    if any(c.value == "parts" for c in method.credit) and parts + bool(config.overlong_buffer) == 1:
        notes.append(
            f"{method.title} has one reward part to normalise in this run, so it does what GRPO does but for the scale of a step; "
            "set overlong_buffer above 0 or give rewards a second part"
        )
    if once and any(p.name in ("k2_before", "kl_hinge") and config.strength(p.knob, p.coef) > 0 for p in method.penalties):
        notes.append(
            f"{method.title}'s penalty on what has moved is exactly zero in this run: with one update per rollout batch nothing has; "
            "set epochs or minibatches to 2 or more"
        )
    if config.llds_gate == "action":
        notes.append("llds_gate=action does the same as response here: completions are single-turn, and such a completion is one action")
    if once and any(getattr(config, name) is not None for name in ("clip_low", "clip_high", "clip_cap")):
        notes.append("nothing can be clipped in this run: with one update per rollout batch every ratio is 1; set epochs or minibatches to 2 or more")
    acts = [name for name in ("on_collapse", "webhook") if getattr(config, name) != RunConfig.model_fields[name].default]
    if acts and (config.record == "off" or not config.diagnose_every):
        why = "record=off" if config.record == "off" else "diagnose_every=0"
        notes.append(f"{' and '.join(acts)} never acts in this run: with {why} nothing is diagnosed while it trains")
    if config.retention != "all" and config.record == "off":
        notes.append(f"retention={config.retention} thins nothing in this run, as record=off keeps no tokens")
    if config.replay_size and not int(config.replay_share * config.prompts_per_step):
        notes.append(
            f"nothing is ever replayed in this run: replay_share={config.replay_share:g} of {config.prompts_per_step} groups is less than one; "
            f"set replay_share to {1 / config.prompts_per_step:.2g} or more"
        )
    if method.sampler == "hinted" and config.hint_strength and not config.hints:
        notes.append(f"{method.title} gives no hints in this run, as the data has no worked answers; set gold_column to a column with worked completions")
    if rule := GROUP_REWARDS.get(config.group_reward):
        notes += [f"group_reward={rule.name} assumes: {rule.assumes}"] if rule.assumes else []
    if config.nthr_every and config.group_size == 1:
        notes.append("nthr_every measures nothing in this run: with group_size=1 no group holds correct and wrong rollouts")
    if config.nthr_every and config.record == "off":
        notes.append(f"nthr_every={config.nthr_every} measures what record=off does not keep; set nthr_every=0 or record=full")
    return notes
