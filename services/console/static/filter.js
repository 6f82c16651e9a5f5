// Fields that filter a list on the page: `data-filter` is the id of the list.
export function filterLists() {
  document.documentElement.classList.add("scripted");
  document.addEventListener("input", (event) => {
    const list = document.getElementById(event.target.dataset?.filter ?? "");
    if (!list) return;
    const wanted = event.target.value.trim().toLowerCase();
    for (const one of list.children) one.hidden = !one.textContent.toLowerCase().includes(wanted);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.dataset?.filter) event.preventDefault();
  });
}
