// Filters and search; the address keeps them after its "#", as in gallery.html#filter=missed&search=lake
"use strict";
(() => {
  const cards = [...document.querySelectorAll("article")];
  const texts = cards.map((card) => card.textContent.toLowerCase());
  const buttons = [...document.querySelectorAll("#filters button")];
  const search = document.getElementById("search");
  const objects = document.getElementById("objects");

  function show() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const known = buttons.some((button) => button.dataset.filter === asked.get("filter"));
    const filter = known ? asked.get("filter") : "all";
    const wanted = asked.get("search") || "";
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    cards.forEach((card, place) => {
      const fits = filter === "all" || card.dataset.words.split(" ").includes(filter);
      card.hidden = !(fits && words.every((word) => texts[place].includes(word)));
      count += card.hidden ? 0 : 1;
    });
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
    }
    if (search.value !== wanted) search.value = wanted;
    objects.checked = asked.get("objects") === "on";
    document.body.classList.toggle("with-objects", objects.checked);
    document.getElementById("shown").textContent = `${count} of ${cards.length} tweets`;
  }

  function ask(name, value) {
    const asked = new URLSearchParams(location.hash.slice(1));
    if (value) asked.set(name, value);
    else asked.delete(name);
    location.replace(`#${asked}`);
  }

  for (const button of buttons) {
    button.addEventListener("click", () => ask("filter", button.dataset.filter));
  }
  search.addEventListener("input", () => ask("search", search.value));
  objects.addEventListener("change", () => ask("objects", objects.checked ? "on" : ""));
  window.addEventListener("hashchange", show);
  document.getElementById("controls").hidden = false;
  show();
})();
