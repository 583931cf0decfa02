// The groups of one step as a table; a row opens its group. Rows are real links, so that they also open in a new tab.
function dots(group) {
  if (group.rollouts.length > 24) {
    const bar = el("div", "share", null, { title: `${group.correct} of ${group.rollouts.length} correct` });
    const part = el("div");
    part.style.width = `${(100 * group.correct) / group.rollouts.length}%`;
    bar.append(part);
    return bar;
  }
  const box = el("span", "dots", null, { role: "img", "aria-label": `${group.correct} of ${group.rollouts.length} correct` });
  box.style.minWidth = `${14 * Math.min(group.rollouts.length, 12)}px`;
  for (const { kind, reward, note } of group.rollouts)
    box.append(el("span", `dot ${kind}${note && " replayed"}`, null, { title: `${kind}, reward ${reward}${note}` }));
  return box;
}

function row(group) {
  const line = el("tr", "", null, { "data-group": group.index });
  const link = el("a", "mono clamp outside", group.prompt, { href: group.href, title: group.prompt });
  link.style.display = "block";
  const prompt = el("td", "prompt");
  prompt.append(link);
  const rewards = el("td");
  rewards.append(dots(group));
  const outcome = el("td");
  outcome.append(chip(group.outcome));
  const reason = el("td", "wide reason clamp muted outside", group.reason, { title: group.reason });
  line.append(
    el("td", "index num", String(group.index)), prompt, rewards, outcome,
    el("td", "right num", group.mean), el("td", "right num wide", group.std), reason,
  );
  return line;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const frame = parentElement.querySelector(".frame");
  frame.onclick = (event) => {
    const line = event.target.closest("tbody tr");
    if (!line || !plainClick(event)) return;
    event.preventDefault();
    setTriggerValue("group", +line.dataset.group);
  };
  if (unchanged(parentElement, data)) return;
  const head = el("tr");
  for (const [title, style] of [["#", ""], ["Prompt", ""], ["Rewards", ""], ["Outcome", ""], ["Mean", "right"], ["Std", "right wide"], ["Kept in the loss", "wide"]])
    head.append(el("th", style, title, { scope: "col" }));
  const table = el("table", "", null, { "aria-label": data.label }), top = el("thead"), body = el("tbody");
  top.append(head);
  body.append(...data.groups.map(row));
  table.append(top, body);
  frame.replaceChildren(table);
}
