// The form of a repair: counts decided changes per stream, marks a preview that is out of date, and
// moves between undecided changes by "n" and "p". It decides nothing; the server checks all of it.
import { isOff } from "./keys.js";

export function followChoices() {
  document.addEventListener("change", (event) => {
    const form = event.target.closest("#review");
    if (form === null || event.target.id === "why") return;
    clearAnswered(form);
    markOutOfDate(form);
    count(form);
  });
  document.addEventListener("keydown", (event) => {
    if (isOff || (event.key !== "n" && event.key !== "p")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("textarea, select, [contenteditable], input:not([type=radio])")) return;
    move(event.key === "n" ? 1 : -1);
  });
}

function markOutOfDate(form) {
  const note = form.querySelector(".stale-preview");
  const approve = form.querySelector("#bar button[value=approve]");
  if (note === null || approve === null) return;
  note.hidden = false;
  approve.hidden = true;
  form.querySelector("#bar button[value=preview]").classList.add("primary");
}

// The notice about missing answers goes when none is missing any more.
function clearAnswered(form) {
  const isMissing = [...form.querySelectorAll(".column-error > .error")].some(
    (one) => lacksColumn(one.closest(".change")),
  );
  if (!isMissing) form.querySelector("#preview .unanswered")?.remove();
}

function lacksColumn(change) {
  return (
    change.matches(".asks-column") &&
    change.querySelector(".rename:checked") !== null &&
    change.querySelector(".aside:checked") === null
  );
}

function isOpen(change) {
  return change.querySelector("input.open:checked") !== null || lacksColumn(change);
}

function count(form) {
  const changes = [...form.querySelectorAll(".change")];
  for (const shown of form.querySelectorAll("[data-decided]")) {
    const own = changes.filter((one) => one.dataset.stream === shown.dataset.decided);
    const decided = own.filter((one) => !isOpen(one)).length;
    shown.firstChild.textContent = `${decided}/${own.length}`;
  }
  const next = form.querySelector(".next-open");
  if (next !== null) next.hidden = !changes.some(isOpen);
}

function move(step) {
  const open = [...document.querySelectorAll("#review .change")].filter(isOpen);
  if (open.length === 0) return;
  const here = document.activeElement?.closest(".change");
  const at = open.indexOf(here);
  const start = step > 0 ? 0 : open.length - 1;
  const next = at < 0 ? open[start] : open[(at + step + open.length) % open.length];
  next.querySelector(lacksColumn(next) ? "input.aside" : "input.open").focus();
  next.scrollIntoView({ block: "start" });
}
