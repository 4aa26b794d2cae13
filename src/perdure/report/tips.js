// Shows the title of a table cell on hover and on touch, where a browser's own tooltip never comes.
(() => {
  const box = document.createElement("div");
  box.className = "tip";
  box.hidden = true;
  document.body.append(box);
  for (const cell of document.querySelectorAll("td[title], th[title]")) {
    cell.dataset.tip = cell.title;
    cell.setAttribute("aria-label", cell.title);
    cell.removeAttribute("title");
  }
  const show = (event) => {
    const cell = event.target.closest("[data-tip]");
    box.hidden = !cell;
    if (!cell) return;
    box.textContent = cell.dataset.tip;
    const at = cell.getBoundingClientRect();
    const left = at.left + at.width / 2 - box.offsetWidth / 2;
    const above = at.top - box.offsetHeight - 8;
    box.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - box.offsetWidth - 8))}px`;
    box.style.top = `${above < 8 ? at.bottom + 8 : above}px`;
  };
  document.addEventListener("pointerover", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", () => { box.hidden = true; }, true);
})();
