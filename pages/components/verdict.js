// The verdict on a run: a sentence, its level, and where in the run it stands.
export default function ({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".verdict");
  follow(box, setTriggerValue);
  if (unchanged(parentElement, data)) return;
  box.className = `verdict ${data.tone}`;
  const facts = el("div", "facts");
  facts.append(chip(data.chip));
  for (const { text, href, help } of data.facts) facts.append(href ? linkTo(href, "fact link", text, help) : el("span", "fact", text, { title: help }));
  box.replaceChildren(el("h2", "sentence", data.sentence), facts);
}
