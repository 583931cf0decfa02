// Rows to compare; a click on a heading sorts, one on a row opens it. See pages/components/rank_table.py for the data.
const sorted = new WeakMap();

function bar(cell, kind) {
  const box = el("span", `bar ${kind}`, null, { "aria-hidden": "true" }), part = el("span", cell.bar < 0 ? "part down" : "part");
  const width = Math.min(Math.abs(cell.bar), 1) * (kind === "balance" ? 50 : 100);
  part.style.width = `${width}%`;
  if (kind === "balance") part.style.left = `${cell.bar < 0 ? 50 - width : 50}%`;
  box.append(part);
  return box;
}

function content(cell, column, href) {
  if (cell.chip) return [chip(cell.chip)];
  if (column.kind === "code") {
    const blank = cell.text.trim() === "";
    const node = el(href ? "a" : "span", `mono clamp outside${blank ? " muted" : ""}`, legible(cell.text), { title: cell.text.slice(0, 600), ...(href && { href }) });
    return [node];
  }
  const text = el("span", cell.missing ? "muted" : "", cell.text);
  return cell.bar === undefined ? [text] : [bar(cell, column.kind), text];
}

function line(row, columns) {
  const node = el("tr", row.chosen ? "chosen" : "", null, { "data-id": row.id });
  let href = row.href;
  row.cells.forEach((cell, at) => {
    const column = columns[at];
    const box = el("td", [column.kind === "chip" ? "tag" : column.kind, column.leaves ? `leaves-${column.leaves}` : ""].join(" "));
    const inner = el("div", "cell num");
    inner.append(...content(cell, column, href));
    if (column.kind === "code") href = "";
    box.append(inner);
    node.append(box);
  });
  return node;
}

function order(rows, sorting) {
  if (!sorting) return rows;
  const value = (row) => row.cells[sorting.at]?.sort;
  const known = rows.filter((row) => value(row) !== null), unknown = rows.filter((row) => value(row) === null);
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  return [...known.sort((a, b) => sorting.sign * compare(value(a), value(b))), ...unknown];
}

export default function ({ data, parentElement, setTriggerValue }) {
  const frame = parentElement.querySelector(".frame");
  const draw = () => {
    const sorting = sorted.get(parentElement);
    const head = el("tr");
    data.columns.forEach((column, at) => {
      const by = sorting?.at === at ? sorting.sign : 0;
      const cell = el("th", [column.kind === "chip" ? "tag" : column.kind, column.leaves ? `leaves-${column.leaves}` : ""].join(" "), null, { scope: "col", title: `${column.means} Click to sort.`, "aria-sort": by ? (by > 0 ? "ascending" : "descending") : "none" });
      const button = el("button", "sort", column.title);
      if (by) button.append(el("span", "arrow", by > 0 ? " ▲" : " ▼"));
      button.onclick = () => {
        const first = ["code", "phrase", "chip"].includes(column.kind) ? 1 : -1;
        sorted.set(parentElement, by === 0 ? { at, sign: first } : by === first ? { at, sign: -first } : null);
        draw();
      };
      cell.append(button);
      head.append(cell);
    });
    const table = el("table", "", null, { "aria-label": data.label }), top = el("thead"), body = el("tbody");
    top.append(head);
    body.append(...order([...data.rows], sorting).map((row) => line(row, data.columns)));
    table.append(top, body);
    const at = frame.scrollTop;
    frame.replaceChildren(table);
    frame.scrollTop = at;
  };
  frame.setAttribute("aria-label", data.label);
  frame.style.maxHeight = `${data.height}px`;
  frame.onclick = (event) => {
    const row = event.target.closest("tbody tr");
    if (!row || !plainClick(event)) return;
    event.preventDefault();
    setTriggerValue("row", row.dataset.id);
  };
  if (!unchanged(parentElement, data)) draw();
}
