// Shared by the components of the diagnosis: colours given as "light|dark", and links that open inside the app.
const isDark = (node) => {
  const hex = parseInt(getComputedStyle(node).getPropertyValue("--st-background-color").trim().slice(1, 7), 16);
  return 299 * (hex >> 16) + 587 * ((hex >> 8) & 255) + 114 * (hex & 255) < 128000;
};
const pick = (pair, dark) => pair.split("|")[dark ? 1 : 0];

// Real links, so that they also open in a new tab; a plain click stays in this session.
const follow = (node, setTriggerValue) => {
  node.onclick = (event) => {
    const link = event.target.closest("[data-href]");
    if (!link || !plainClick(event)) return;
    event.preventDefault();
    setTriggerValue("go", link.dataset.href);
  };
};
const linkTo = (href, className, text, title = "") => el("a", className, text, { href, "data-href": href, ...(title && { title }) });
