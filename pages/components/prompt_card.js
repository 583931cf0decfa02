// A prompt and its expected answer as plain text, each with a button that copies it as it was recorded.
function copying(text, name) {
  const button = el("button", "quiet copy", "Copy", { type: "button", "aria-label": `Copy the ${name}` });
  button.onclick = async () => {
    const copied = await navigator.clipboard.writeText(text).then(() => true, () => false);
    button.textContent = copied ? "Copied" : "The browser did not allow it";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  };
  return button;
}

function box(label, text, missing) {
  const side = el("div", "side"), head = el("div", "head");
  head.append(el("span", "muted", label));
  if (text) head.append(copying(text, label.toLowerCase()));
  side.append(head, el("pre", text ? "text outside" : "text muted", text ? visible(text) : missing, { dir: "auto", tabindex: "0", role: "region", "aria-label": label }));
  return side;
}

export default function ({ data, parentElement }) {
  if (unchanged(parentElement, data)) return;
  const card = parentElement.querySelector(".card");
  const notes = data.notes.map((note) => el("div", "note muted outside", note));
  card.replaceChildren(box("Prompt", data.prompt, "empty"), box("Expected answer", data.answer, "none"), ...notes);
}
