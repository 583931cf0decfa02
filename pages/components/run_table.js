// The runs as a table; a row opens its run. Rows are real links, so that they also open in a new tab.
const COLUMNS = [["Run", ""], ["Status", ""], ["Diagnosis", ""], ["Progress", ""], ["Reward", ""], ["Method and task", "middle"], ["", ""]];

function spark(values) {
  const width = 96, height = 28, low = Math.min(...values), high = Math.max(...values);
  const x = (at) => (values.length > 1 ? (at * width) / (values.length - 1) : width / 2);
  const y = (value) => (high > low ? height - 3 - ((value - low) / (high - low)) * (height - 6) : height / 2);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  drawing.append(svg("polyline", { class: "spark", points: values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
  drawing.append(svg("circle", { cx: x(values.length - 1), cy: y(values.at(-1)), r: 2.4, fill: "var(--st-blue-color)" }));
  return drawing;
}

function cell(style, ...content) {
  const node = el("td", style);
  node.append(...content);
  return node;
}

function named(run) {
  const link = el("a", "name clamp outside", run.name, { href: run.verdict?.first ? run.verdict.href : run.href, title: run.run_id });
  const about = el("div", "sub clamp");
  about.append(el("span", "", run.started, { title: `${run.started_at}, ${run.run_id}` }), " · ", el("span", "num", run.size, { title: run.size_means }));
  const lines = [link, about];
  if (run.note) lines.push(el("div", "sub clamp note outside", run.note, { title: run.note }));
  if (run.tags.length) {
    const tags = el("div", "tags");
    tags.append(...run.tags.map((tag) => el("span", "tag clamp outside", tag)));
    lines.push(tags);
  }
  return cell("run", ...lines);
}

function progress(run) {
  const track = el("div", `track ${run.progress_tone}`), part = el("div");
  part.style.width = `${100 * run.share}%`;
  track.append(part);
  return cell("num progress", track, el("div", "sub", run.progress));
}

function reward(run) {
  if (!run.rewards.length) return cell("", el("span", "sub", "none yet"));
  const box = el("div", "reward");
  box.append(el("span", "value num", run.reward), spark(run.rewards));
  return cell("", box);
}

function verdict(run) {
  if (!run.verdict) return cell("verdict", el("span", "sub", "no verdict yet"));
  const link = el("a", "", null, { href: run.verdict.href, "data-act": "diagnose", title: run.verdict.sentence });
  link.append(chip(run.verdict.chip));
  return cell("verdict", link, ...(run.verdict.cause ? [el("div", "sub cause", run.verdict.cause)] : []));
}

function actions(run) {
  const edit = el("button", "quiet", "Edit", { "data-act": "edit", "data-key": `edit ${run.run_id}`, "aria-label": `Edit name, tags and note of ${run.name}` });
  const stop = el("button", "quiet danger", "Stop", { "data-act": "stop", "data-key": `stop ${run.run_id}`, "aria-label": `Stop ${run.name}` });
  return cell("actions", ...(run.alive ? [stop, edit] : [edit]));
}

function row(run) {
  const line = el("tr", "", null, { "data-run": run.run_id, "data-open": run.verdict?.first ? "diagnose" : "open" });
  line.append(
    named(run),
    cell("status", chip(run.chip), ...(run.message ? [el("div", "sub message outside", run.message, { title: run.message })] : [])),
    verdict(run), progress(run), reward(run),
    cell("middle", el("div", "", run.method), el("div", "sub outside", run.about)),
    actions(run),
  );
  return line;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const frame = parentElement.querySelector(".frame");
  frame.onclick = (event) => {
    const line = event.target.closest("tbody tr");
    if (!line || !plainClick(event)) return;
    event.preventDefault();
    setTriggerValue("act", { act: event.target.closest("[data-act]")?.dataset.act ?? line.dataset.open, run_id: line.dataset.run });
  };
  if (unchanged(parentElement, data)) return;
  const focused = (parentElement.activeElement ?? document.activeElement)?.dataset?.key;
  const table = el("table", "", null, { "aria-label": "Runs" }), top = el("thead"), head = el("tr"), body = el("tbody");
  head.append(...COLUMNS.map(([title, style]) => el("th", style, title, { scope: "col" })));
  top.append(head);
  body.append(...data.runs.map(row));
  table.append(top, body);
  frame.replaceChildren(table);
  if (focused) [...frame.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focused)?.focus();
}
