// Signals as cards; see pages/components/signal_cards.py for the data.
const scrolled = new WeakMap(); // to the chosen card once, not with every refresh
const WIDTH = 300, HEIGHT = 64, STRIP = 6;

function curve(one, fills, dark) {
  const heights = [...one.points.map(([, y]) => y), ...one.bounds.map(({ y }) => y)];
  const low = Math.min(...heights), high = Math.max(...heights), room = HEIGHT - STRIP - 10;
  const y = (value) => (high > low ? 4 + (1 - (value - low) / (high - low)) * room : 4 + room / 2);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const [from, to, level] of one.levels) {
    const rect = svg("rect", { x: from * WIDTH, y: HEIGHT - STRIP, width: (to - from) * WIDTH, height: STRIP, fill: pick(fills[level], dark) });
    drawing.append(rect);
  }
  for (const bound of one.bounds) {
    const line = svg("line", { class: "bound", x1: 0, x2: WIDTH, y1: y(bound.y), y2: y(bound.y), stroke: pick(fills[bound.level], dark) });
    const title = svg("title");
    title.textContent = bound.text;
    line.append(title);
    drawing.append(line);
  }
  drawing.append(svg("polyline", { class: "line", points: one.points.map(([x, value]) => `${(x * WIDTH).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
  const box = el("figure", "curve", null, { title: `Steps ${one.first} to ${one.last}, from ${one.range}. Below: the level at each step. Dashed: ${one.bounds.map(({ text }) => text).join(", ") || "no threshold near"}.` });
  const scale = el("figcaption", "scale num");
  scale.append(el("span", "", `step ${one.first}`), el("span", "", one.range), el("span", "", `${one.last}`));
  box.append(drawing, scale);
  return box;
}

function figure(one) {
  const line = el("div", "figure");
  line.append(el("span", "value num", one.value), el("span", "unit", one.unit));
  if (one.since) line.append(linkTo(one.since.href, "since", one.since.text, "Opens the groups of that step"));
  return line;
}

function evidence(rows) {
  const list = el("dl", "evidence");
  for (const { label, value, unit, place } of rows) {
    const answer = el("dd", "num", `${value}${unit ? ` ${unit}` : ""}`);
    if (place) answer.append(" · ", linkTo(place.href, "place", place.text, "Where to look: opens that step"));
    list.append(el("dt", "muted", label), answer);
  }
  return list;
}

function look({ label, step, token, places }) {
  const line = el("p", "look");
  line.append(el("span", "muted", label));
  if (token !== null) line.append(" ", el("code", "mono outside", legible(token)));
  line.append(el("span", "muted", `, step ${step}`));
  places.forEach(({ text, href, value }, at) => {
    line.append(at ? " · " : ": ", linkTo(href, "place", text, "Opens that group"), " ", el("span", "num", value));
  });
  if (places[0].unit) line.append(` ${places[0].unit}`);
  return line;
}

function card(one, fills, dark) {
  const box = el("article", "card", null, { role: "listitem", "data-signal": one.name }), head = el("div", "head");
  head.append(el("span", "title clamp", one.title, { title: one.help }), chip(one.chip));
  const measure = figure(one);
  measure.title = one.help;
  box.append(head, measure, el("p", "sentence outside", one.sentence));
  if (one.evidence.length) box.append(evidence(one.evidence));
  box.append(...one.looks.map(look));
  if (one.curve) box.append(curve(one.curve, fills, dark));
  return box;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const cards = parentElement.querySelector(".cards");
  follow(cards, setTriggerValue);
  const dark = isDark(cards);
  if (unchanged(parentElement, { data, dark })) return;
  cards.replaceChildren(...data.cards.map((one) => card(one, data.fills, dark)));
  const chosen = [...cards.children].find((box) => box.dataset.signal === data.chosen);
  if (!chosen) return;
  chosen.classList.add("chosen");
  if (scrolled.get(parentElement) === data.chosen) return;
  scrolled.set(parentElement, data.chosen);
  chosen.scrollIntoView({ block: "center" });
}
