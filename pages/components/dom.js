// Shared by the components: every element is made here, and text only ever enters as text.
const el = (tag, className = "", text = null, attributes = {}) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== null) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

const svg = (tag, attributes = {}) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

const chip = ({ text, tone, icon = "" }) => {
  const node = el("span", `chip ${tone}`);
  if (icon) node.append(el("span", "icon", icon, { "aria-hidden": "true" }));
  node.append(text);
  return node;
};

// Control, zero-width and direction characters are shown by name, so that they cannot hide or reorder their neighbours.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;
const visible = (piece) => piece.replace(UNSEEN, (letter) => `⟨U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

// A token that is only blanks is shown by signs for them.
const legible = (piece) => piece.trim() === "" ? piece.replace(/ /g, "·").replace(/\t/g, "⇥").replace(/\r?\n/g, "⏎") || "(empty)" : visible(piece);

const plainClick = (event) => event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
const typing = (event) => event.composedPath().some((node) => node.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(node.tagName ?? ""));

// Whether a component was called again with what it already shows, as a live page does every two seconds.
const shown = new WeakMap();
const unchanged = (parentElement, data) => {
  const text = JSON.stringify(data);
  if (shown.get(parentElement) === text) return true;
  shown.set(parentElement, text);
  return false;
};
