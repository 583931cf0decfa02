// The causes that fit, each with the signals that say so.
function cause(one) {
  const item = el("li"), head = el("div", "head"), signs = el("div", "signs", null, { "aria-label": "Signals that say so" });
  head.append(el("strong", "", one.title), chip(one.chip), el("span", "muted small help", one.fit, { title: one.help }));
  for (const sign of one.signals) {
    const node = chip(sign);
    node.title = sign.title;
    signs.append(node);
  }
  item.append(head, el("div", "explains", one.explains), signs);
  return item;
}

export default function ({ data, parentElement }) {
  if (unchanged(parentElement, data)) return;
  parentElement.querySelector(".causes").replaceChildren(...data.causes.map(cause));
}
