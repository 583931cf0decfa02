// The rollouts of one group, each token coloured by one quantity; see pages/components/token_strip.py for the data.
const strips = new WeakMap();

const bytes = (base64) => {
  const letters = atob(base64), coded = new Uint8Array(letters.length);
  for (let at = 0; at < coded.length; at++) coded[at] = letters.charCodeAt(at);
  return coded;
};
const floats = (base64) => new Float32Array(bytes(base64).buffer);
const integers = (base64) => new Int32Array(bytes(base64).buffer);
const number = (value, digits = 3, sign = false) => {
  if (Number.isNaN(value)) return "not available";
  const text = Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(2) : value.toPrecision(digits + 1);
  return ((sign && value > 0 ? "+" : "") + (text.includes("e") ? text : String(+text))).replace("-", "−");
};

// Bits of a token's mark: part of a run from the start or up to the end, in the middle, after an identical beginning.
const RUN = 1 | 2, MID = 4, SHARED = 8;
const MARKS = [[RUN, "run", "conflict in a run"], [MID, "mid", "conflict in the middle"], [SHARED, "shared", "after an identical beginning"]];
const SIDES = { "-1": "held at the lower bound", 0: "not clipped", 1: "held at the upper bound" };

const LINE_PX = 26, HEADER_PX = 60;

// The colours of the largest and the smallest value; a quantity around 0 has its large values blue unless its hue says otherwise.
const ends = (kind, hue, palette) => (kind === "sequential" ? [palette[hue], ""] : hue === "down" ? [palette.down, palette.up] : [palette.up, palette.down]);

class TokenStrip {
  constructor(parent) {
    this.bar = parent.querySelector(".bar");
    this.grid = parent.querySelector(".rollouts");
    this.tip = parent.querySelector(".tip");
    this.host = parent.host ?? parent;
    this.grid.onmousemove = (event) => this.pointAt(event);
    this.grid.onmouseleave = () => this.hideTip();
    this.grid.onclick = (event) => this.click(event);
    this.onKey = (event) => this.key(event);
    this.onScroll = () => this.hideTip();
    document.addEventListener("keydown", this.onKey);
    document.addEventListener("scroll", this.onScroll, { capture: true, passive: true });
  }

  update(data, trigger) {
    this.trigger = trigger;
    const same = this.data && this.data.id === data.id;
    this.data = data;
    this.quantity = data.quantities.find((one) => one.key === data.quantity);
    this.beside = data.quantities.find((one) => one.key === data.beside);
    if (!same) this.build();
    this.grid.style.setProperty("--card-width", data.stacked ? "100%" : this.beside ? "500px" : "400px");
    this.recolour();
    if (!same && data.chosen !== null) this.choose(data.chosen, { quiet: true });
  }

  build() {
    const traces = this.data.traces;
    this.ids = integers(this.data.ids);
    const unknown = new Float32Array(this.ids.length).fill(NaN);
    this.values = Object.fromEntries(Object.entries(traces).map(([name, coded]) => [name, coded === null ? unknown : floats(coded)]));
    this.marks = this.data.marks ? bytes(this.data.marks) : null;
    const { logp_before: before, logp_delta: delta } = this.values;
    this.values.logp_after = before.map((value, at) => value + delta[at]);
    this.values.ratio = delta.map(Math.exp);
    this.tokens = [];
    this.cards = new Map();
    this.chosen = null;
    const cards = this.data.rollouts.map((rollout) => this.card(rollout));
    this.grid.replaceChildren(...(cards.length ? cards : [el("div", "empty", "No rollout of this group fits the filter.")]));
  }

  card(rollout) {
    const section = el("section", "rollout", null, { "data-rollout": rollout.index, "aria-label": rollout.title });
    const header = el("header");
    header.append(el("span", "title", rollout.title), chip(rollout.chip));
    for (const [value, name, means] of rollout.facts) {
      const fact = el("span", means ? "fact num told" : "fact num", null, means ? { title: means } : {});
      fact.append(el("b", "", value), ` ${name}`);
      header.append(fact);
    }
    section.append(header);
    for (const note of rollout.notes) section.append(el("div", `note outside ${note.tone}`, note.text));
    const first = this.tokens.length;
    rollout.pieces.forEach((piece, position) => this.tokens.push({ piece, rollout, position }));
    const text = rollout.text === null ? this.text(first, "box") : el("div", "tokens outside", rollout.text, { dir: "auto" });
    section.style.containIntrinsicHeight = `auto ${this.likelyHeight(rollout)}px`;
    if (this.beside && rollout.text === null) {
      const sides = el("div", "sides");
      sides.append(this.side(this.quantity.label, text), this.side(this.beside.label, this.text(first, "twin")));
      section.append(sides);
    } else section.append(text);
    this.cards.set(rollout.index, section);
    return section;
  }

  // Cards out of sight are not laid out, so where the page ends is told by what their text will roughly take.
  likelyHeight({ pieces, text, notes }) {
    const letters = text === null ? pieces.reduce((total, piece) => total + Math.max(piece.length, 1), 0) : text.length;
    const across = this.data.stacked ? 130 : 45;
    return 80 + 28 * notes.length + LINE_PX * Math.ceil(letters / across);
  }

  side(label, text) {
    const side = el("div", "side");
    side.append(el("div", "muted heading", label), text);
    return side;
  }

  // The tokens from `first` on, each with its box under `name`.
  text(first, name) {
    const parts = [];
    for (let at = first; at < this.tokens.length; at++) parts.push(...this.token(at, name));
    const text = el("div", this.marks ? "tokens marked" : "tokens");
    text.append(...parts);
    text.dir = "auto";  // last, because the browser looks for the direction again after every change
    return text;
  }

  // Leading blanks stay outside the coloured box; a token of blanks alone shows glyphs.
  token(at, name) {
    const { piece } = this.tokens[at];
    const blank = /^\s*/.exec(piece)[0];
    const body = piece.slice(blank.length);
    const shown = body ? visible(body) : blank.replace(/ /g, "·").replace(/\t/g, "⇥").replace(/\r?\n/g, "⏎\n") || `⟨${this.ids[at]}⟩`;
    const box = el("i", body && piece !== "" ? "" : "special", shown);
    box.at = at;
    if (this.marks) {
      for (const [bits, mark] of MARKS) if (this.marks[at] & bits) box.classList.add(mark);
    } else if (this.values.clipped[at]) box.classList.add("clipped");
    this.tokens[at][name] = box;
    if (/^<.+>$/.test(body)) return [blank, el("wbr"), box];  // <eos> goes to the next line whole
    return blank && body ? [blank, box] : [box];
  }

  palette() {
    const background = getComputedStyle(this.host).getPropertyValue("--st-background-color").trim();
    const dark = parseInt(background.slice(1, 3), 16) < 100;
    return { up: dark ? "59,130,246" : "43,123,214", down: dark ? "229,87,63" : "224,82,42", more: dark ? "45,212,168" : "15,138,109" };
  }

  recolour() {
    const palette = this.palette();
    this.paint("box", this.quantity, palette);
    if (this.beside) this.paint("twin", this.beside, palette);
    this.legend(palette);
  }

  paint(name, { trace, kind, hue, scale }, palette) {
    const values = this.values[trace];
    const logarithmic = (value) => Math.log(value) / Math.log(scale);
    const weight = (value) => (value < 1 ? value - 1 : logarithmic(value));
    const strength = { ratio: logarithmic, weight }[kind] ?? ((value) => value / scale);
    const [more, less] = ends(kind, hue, palette);
    this.tokens.forEach((token, at) => {
      const level = strength(values[at]);
      const alpha = Math.min(Math.abs(level), 1) * 0.7;
      token[name].style.backgroundColor = alpha >= 0.04 ? `rgba(${level >= 0 || kind === "sequential" ? more : less},${alpha.toFixed(2)})` : "";
    });
  }

  scale({ label, unit, kind, hue, low, middle, high, means }, palette) {
    const ramp = el("span", "ramp"), [most, least] = ends(kind, hue, palette);
    ramp.style.background =
      kind === "sequential"
        ? `linear-gradient(90deg, transparent, rgba(${most},.7))`
        : `linear-gradient(90deg, rgba(${least},.7), transparent 50%, rgba(${most},.7))`;
    const scale = el("span", "scale num");
    scale.append(el("span", "", low), ramp, el("span", "", high), el("b", "", label), el("span", "muted", [unit, middle && `colourless at ${middle}`].filter(Boolean).join(", ")));
    scale.title = means;
    return scale;
  }

  legend(palette) {
    const plain = this.data.rollouts.length > 0 && this.data.rollouts.every(({ text }) => text !== null);
    const parts = plain ? [] : [this.scale(this.quantity, palette)];
    if (this.beside) parts.push(this.scale(this.beside, palette));
    if (this.marks) {
      for (const [bits, mark, name] of MARKS) if (this.marks.some((one) => one & bits)) parts.push(el("span", `sample ${mark}`, name));
    } else if (this.values.clipped.some(Boolean)) parts.push(el("span", "sample clipped", "clipped in the loss"));
    const keys = el("span", "keys muted");
    keys.append(el("kbd", "", "j"), " ", el("kbd", "", "k"), " rollout  ", ...(plain ? [] : [el("kbd", "", "←"), " ", el("kbd", "", "→"), " token  "]));
    keys.append(el("kbd", "", "n"), " ", el("kbd", "", "N"), " step");
    this.bar.replaceChildren(...parts, keys);
  }

  pointAt(event) {
    const at = event.target.at;
    if (at === undefined) return this.hideTip();
    this.showTip(at, event.clientX + 14, event.clientY + 18);
  }

  showTip(at, x, y) {
    if (this.tipAt !== at) this.tip.replaceChildren(...this.describe(at));
    this.tipAt = at;
    this.tip.style.display = "block";
    const { width, height } = this.tip.getBoundingClientRect();
    this.tip.style.left = `${Math.max(8, Math.min(x, innerWidth - width - 12))}px`;
    const above = y - height - 34, lowest = innerHeight - height - 8;
    this.tip.style.top = `${y + 4 <= lowest ? y : above > HEADER_PX ? above : Math.max(8, lowest)}px`;
  }

  hideTip() {
    this.tip.style.display = "none";
    this.tipAt = null;
  }

  describe(at) {
    const { piece, rollout, position } = this.tokens[at];
    const list = el("dl");
    const row = (name, trace, text) => {
      const now = trace === this.quantity.trace ? "now" : "";
      list.append(el("dt", now, name), el("dd", now, text ?? number(this.values[trace][at], 3, ["advantages", "logp_delta", "net", "nthr"].includes(trace))));
    };
    if (this.marks) row("conflict", "", MARKS.filter(([bits]) => this.marks[at] & bits).map(([, , name]) => name).join(", ") || "none");
    for (const [name, trace] of this.data.told) row(name, trace);
    const told = this.data.table.length ? [this.table(at), el("div", "muted recorded", "As the run recorded it")] : [];
    row("log-prob, sampling", "logp_sampling");
    row("log-prob, before", "logp_before");
    row("log-prob, after", "logp_after");
    row("Δ log-prob", "logp_delta");
    row("ratio", "ratio");
    row("log-prob, reference", "logp_ref");
    row("entropy", "entropy");
    row("advantage", "advantages");
    row("weight", "weights");
    if (this.values.nthr) row("NTHR", "nthr", Number.isNaN(this.values.nthr[at]) ? "wrong rollouts only" : undefined);
    row("clipping", "clipped", SIDES[this.values.clipped[at]] ?? "not available");
    const name = el("div", "token outside", JSON.stringify(visible(piece)).slice(1, -1).replaceAll('\\"', '"') || "(empty)");
    return [name, el("div", "muted", `token id ${this.ids[at]} · position ${position} of ${rollout.pieces.length} · ${rollout.title.toLowerCase()}`), ...told, list];
  }

  // The first row of the table names its columns; a cell that is coloured on either side stands out.
  table(at) {
    const [head, ...rows] = this.data.table, table = el("table", "num"), shown = [this.quantity.trace, this.beside?.trace];
    const line = (cells) => table.append(cells.reduce((row, cell) => (row.append(cell), row), el("tr")));
    line(head.map((name) => el("th", "", name)));
    for (const [name, ...traces] of rows) line([el("th", "", name), ...traces.map((trace) => el("td", shown.includes(trace) ? "now" : "", number(this.values[trace][at])))]);
    return table;
  }

  click(event) {
    const at = event.target.at;
    const card = event.target.closest?.(".rollout");
    if (!card) return;
    this.choose(+card.dataset.rollout, { still: true });
    this.pin(at ?? null);
  }

  choose(index, { quiet = false, still = false } = {}) {
    if (!this.cards.has(index)) return;
    this.cards.get(this.chosen)?.classList.remove("chosen");
    const card = this.cards.get(index);
    card.classList.add("chosen");
    if (!still) card.scrollIntoView({ block: "nearest", behavior: quiet ? "auto" : "smooth" });
    if (!quiet && index !== this.chosen) {
      clearTimeout(this.telling);
      this.telling = setTimeout(() => this.trigger("rollout", index), 250);
    }
    this.chosen = index;
  }

  pin(at) {
    this.tokens[this.pinned]?.box.classList.remove("chosen");
    this.pinned = at;
    this.tokens[at]?.box.classList.add("chosen");
  }

  key(event) {
    if (typing(event) || event.metaKey || event.ctrlKey || event.altKey || document.querySelector('[role="dialog"]')) return;
    const act = {
      j: () => this.stride(1), k: () => this.stride(-1), n: () => this.trigger("move", 1), N: () => this.trigger("move", -1),
      ArrowRight: () => this.walk(1), ArrowLeft: () => this.walk(-1), Escape: () => (this.pin(null), this.hideTip()),
    }[event.key];
    if (!act || (event.key.startsWith("Arrow") && this.chosen === null)) return;
    event.preventDefault();
    act();
  }

  stride(by) {
    const shown = [...this.cards.keys()];
    const from = shown.indexOf(this.chosen);
    this.pin(null);
    this.hideTip();
    this.choose(shown[from < 0 ? (by > 0 ? 0 : shown.length - 1) : Math.min(Math.max(from + by, 0), shown.length - 1)]);
  }

  walk(by) {
    const own = this.tokens.flatMap((token, at) => (token.rollout.index === this.chosen ? [at] : []));
    if (!own.length) return;
    const from = own.indexOf(this.pinned);
    const at = own[from < 0 ? (by > 0 ? 0 : own.length - 1) : Math.min(Math.max(from + by, 0), own.length - 1)];
    this.pin(at);
    const { left, bottom } = this.tokens[at].box.getBoundingClientRect();
    this.showTip(at, left, bottom + 6);
  }

  unmount() {
    document.removeEventListener("keydown", this.onKey);
    document.removeEventListener("scroll", this.onScroll, { capture: true });
    clearTimeout(this.telling);
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  if (!strips.has(parentElement)) strips.set(parentElement, new TokenStrip(parentElement));
  const strip = strips.get(parentElement);
  strip.update(data, setTriggerValue);
  return () => {
    strip.unmount();
    strips.delete(parentElement);
  };
}
