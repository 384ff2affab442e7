(() => {
  "use strict";
  const places = new Map(); // where each divider was left, by name

  function place(divider, value) {
    const input = divider.querySelector("input[type=range]");
    input.value = value;
    divider.style.setProperty("--at", `${value}%`);
    input.setAttribute("aria-valuetext", `${Math.round(value)} %`);
    places.set(divider.dataset.name, value);
  }

  function choose(divider, side, layer) {
    for (const image of divider.querySelectorAll("img[data-layer]")) {
      image.classList.toggle(side, image.dataset.layer === layer);
    }
    const [left, right] = ["left", "right"].map((one) => divider.querySelector(`img.${one}`).alt);
    divider.querySelector("input[type=range]").setAttribute("aria-label", `Divider between ${left} and ${right}`);
  }

  function prepare(divider) {
    divider.dataset.ready = "";
    for (const detail of divider.querySelectorAll("img[data-copy]")) {
      detail.src = divider.querySelector(`img[data-layer="${detail.dataset.copy}"]`).src;
    }
    if (divider.querySelector("input[type=range]")) place(divider, places.get(divider.dataset.name) ?? 50);
  }

  const prepareAll = () => document.querySelectorAll(".divider:not([data-ready])").forEach(prepare);

  document.addEventListener("input", ({ target }) => {
    if (target.matches(".divider-frame input[type=range]")) place(target.closest(".divider"), target.valueAsNumber);
  });
  document.addEventListener("change", ({ target }) => {
    if (target.matches(".divider-names select")) choose(target.closest(".divider"), target.dataset.side, target.value);
  });
  prepareAll();
  new MutationObserver(prepareAll).observe(document.documentElement, { childList: true, subtree: true });
})();
