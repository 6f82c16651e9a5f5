// Keys that only move: "/" goes to the search. None of them decides anything.
export function listenForKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const search = document.querySelector("#main input[type=search]") ?? document.querySelector("#jump");
    if (search === null) return;
    event.preventDefault();
    search.focus();
  });
}
