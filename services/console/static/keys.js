// Keys that only move or select: they decide nothing. The preferences switch them off.
export const isOff = document.documentElement.dataset.keys === "off";
const FIELDS = "input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]";
const ROW = "main tbody tr, main .rows > .row";

export function listenForKeys() {
  if (isOff) return;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(FIELDS)) return;
    const act = { "/": search, j: () => move(1), k: () => move(-1), x: select }[event.key];
    if (act?.() === true) event.preventDefault();
  });
}

function search() {
  const field = document.querySelector("#main input[type=search]") ?? document.querySelector("#jump");
  field?.focus();
  return field !== null;
}

// The focus goes to the link of the row, so that Enter opens it and screen readers read it.
function move(step) {
  const rows = [...document.querySelectorAll(ROW)].filter((row) => linkOf(row) !== null);
  const at = rows.indexOf(document.activeElement.closest(ROW));
  const next = rows[at === -1 ? (step > 0 ? 0 : rows.length - 1) : at + step];
  if (next === undefined) return false;
  linkOf(next).focus();
  next.scrollIntoView({ block: "nearest" });
  return true;
}

function linkOf(row) {
  return row.querySelector("th a[href], h3 a[href]");
}

function select() {
  const box = document.activeElement.closest(ROW)?.querySelector("input[type=checkbox]");
  box?.click();
  return box !== undefined && box !== null;
}
