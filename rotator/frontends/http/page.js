"use strict";
// Keeps the page true: pieces come from the server, and between them the words of time are counted on here.
(() => {
  const body = document.body, at = (id) => document.getElementById(id);
  let ahead = Number(body.dataset.now) - Date.now() / 1000, source = null;
  const now = () => Date.now() / 1000 + ahead;

  const brief = (span) => {
    const seconds = Math.max(0, Math.round(span));
    if (seconds < 90) return seconds + "s";
    const minutes = Math.floor(seconds / 60);
    if (minutes < 90) return minutes + "m";
    const hours = Math.floor(minutes / 60);
    return hours < 48 ? hours + "h" + String(minutes % 60).padStart(2, "0") + "m" : Math.floor(hours / 24) + "d";
  };
  const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const tick = () => {
    for (const node of document.querySelectorAll(".left[data-to]")) {
      const from = Number(node.dataset.from), to = Number(node.dataset.to), left = to - now();
      set(node, left > 0 ? brief(left) + " of " + brief(to - from) : "expired " + brief(-left) + " ago");
      const rest = node.parentNode.querySelector(".rest");
      if (rest) rest.setAttribute("width", Math.max(0, Math.min(100, (100 * left) / (to - from))).toFixed(1));
    }
    for (const node of document.querySelectorAll("tbody time")) {
      const away = Date.parse(node.dateTime) / 1000 - now();
      set(node, away > 0 ? "in " + brief(away) : away > -60 ? "now" : brief(-away) + " ago");
    }
  };

  const piece = (html) => {
    const template = document.createElement("template");
    template.innerHTML = "<table>" + html + "</table>";
    return template.content.querySelector("tbody");
  };
  const put = (told) => {
    ahead = told.now - Date.now() / 1000;
    const table = at("grants"), focused = document.activeElement && document.activeElement.closest("tbody");
    for (const [name, html] of Object.entries(told.rows || {})) {
      const old = at("g-" + name), fresh = piece(html);
      if (old) { fresh.classList.add("fresh"); old.replaceWith(fresh); } else table.append(fresh);
    }
    if (told.order) {
      const wanted = new Set(told.order.map((name) => "g-" + name));
      for (const old of [...table.tBodies]) if (!wanted.has(old.id)) old.remove();
      told.order.forEach((name, index) => {
        const row = at("g-" + name);
        if (row && table.tBodies[index] !== row) table.insertBefore(row, table.tBodies[index] || null);
      });
    }
    for (const id of ["verdict", "facts", "found", "pager", "since"])
      if (id in told && at(id).innerHTML !== told[id]) at(id).innerHTML = told[id];
    if (told.title) document.title = told.title;
    if (focused && !document.contains(focused)) table.focus({ preventScroll: true });
    tick();
  };

  const link = (words) => set(at("link"), words);
  const open = () => {
    source = new EventSource(body.dataset.events);
    source.onopen = () => link("live");
    source.onerror = () => link("no connection; trying again");
    source.addEventListener("page", (event) => put(JSON.parse(event.data)));
  };
  const pause = at("pause");
  pause.addEventListener("click", () => {
    const paused = source !== null;
    if (paused) { source.close(); source = null; link("paused"); } else { link("connecting"); open(); }
    pause.setAttribute("aria-pressed", String(paused));
  });
  at("live").hidden = false;
  open();
  setInterval(() => { if (source !== null && !document.hidden) tick(); }, 1000);
  window.addEventListener("pagehide", () => { if (source !== null) source.close(); });
})();
