// Key figures with a small curve each. Plain SVG: Streamlit's own metric loads a charting library for its sparkline.
const WIDTH = 200, HEIGHT = 46, FLOOR = 6;

function curve(values, tone) {
  const low = Math.min(...values), high = Math.max(...values);
  const y = (value) => (high > low ? FLOOR + (1 - (value - low) / (high - low)) * (HEIGHT - 2 * FLOOR) : HEIGHT / 2);
  const points = values.map((value, at) => `${((at * WIDTH) / (values.length - 1)).toFixed(1)},${y(value).toFixed(1)}`);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: tone, "aria-hidden": "true" });
  drawing.append(svg("polygon", { class: "area", points: `0,${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` }), svg("polyline", { class: "line", points: points.join(" ") }));
  return drawing;
}

function bars(values, tone) {
  const high = Math.max(...values), step = WIDTH / values.length;
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: tone, "aria-hidden": "true" });
  values.forEach((value, at) => {
    const height = high > 0 ? (value / high) * (HEIGHT - FLOOR) : 0;
    drawing.append(svg("rect", { class: "bar", x: at * step + step * 0.15, y: HEIGHT - height, width: step * 0.7, height }));
  });
  return drawing;
}

function tile(one) {
  const box = el("div", "tile", null, { title: one.help, tabindex: "0", "data-tile": one.label });
  const change = el("div", "change");
  if (one.change) change.append(chip(one.change));
  change.append(el("span", "clamp", one.note));
  box.append(el("div", "label", one.label), el("div", `value ${one.known ? "" : "unknown"}`, one.value), change);
  if (one.values.length > 1) box.append((one.bars ? bars : curve)(one.values, one.tone));
  return box;
}

export default function ({ data, parentElement }) {
  if (unchanged(parentElement, data)) return;
  parentElement.querySelector(".tiles").replaceChildren(...data.tiles.map(tile));
}
