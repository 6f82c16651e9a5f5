// A checkbox in the head of a list selects every row of the page; without a script it is not there.
export function selectAll() {
  for (const all of document.querySelectorAll("input[data-select]")) {
    const rows = [...all.closest("table").querySelectorAll(`input[name="${all.dataset.select}"]`)];
    const shown = all.form?.querySelector("[data-selected]");
    const follow = () => {
      const chosen = rows.filter((row) => row.checked).length;
      all.checked = chosen === rows.length;
      all.indeterminate = chosen > 0 && chosen < rows.length;
      if (shown) shown.textContent = chosen === 1 ? "1 selected" : `${chosen} selected`;
    };
    all.closest(".select-all").hidden = false;
    all.addEventListener("change", () => {
      for (const row of rows) row.checked = all.checked;
      follow();
    });
    for (const row of rows) row.addEventListener("change", follow);
    follow(); // a browser restores what was checked before
  }
}
